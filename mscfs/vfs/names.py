"""Names: looking them up, listing them, and making directories and links."""

from __future__ import annotations

import errno
import os
import stat
import time

from mscfs.vfs.attributes import Attributes
from mscfs.vfs.core import Core, Owner
from mscfs.vfs.handles import DirectoryHandle
from mscfs.vfs.inodes import MAY_GIVE_AWAY, Inode
from mscfs.vfs.namespace import directory_metadata


class Names(Core):
    """See the module."""

    def attributes(self, number: int) -> Attributes:
        """stat(2) of an inode the kernel holds; never asks a store."""
        return self._attributes_of(self._table[number])

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The inode of a name, with one more reference by the kernel."""
        inode = await self.namespace.lookup(self._directory(parent), name)
        return self._referenced(inode)

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gives back references."""
        self._table.forget(number, lookups)

    def open_directory(self, number: int) -> int:
        """A handle for reading a directory."""
        return self.handles.add(DirectoryHandle(self._directory(number)))

    async def read_directory(self, handle_number: int, *, rewind: bool) -> list[Inode]:
        """The entries as they were at the last rewind."""
        handle = self.handles.directory(handle_number)
        if handle.entries is None or rewind:
            handle.entries = await self.namespace.entries(handle.inode)
        return handle.entries

    def reference(self, inode: Inode) -> Attributes:
        """Count an entry that the kernel took from a directory listing; ESTALE when it was dropped meanwhile."""
        return self._referenced(self._table.current(inode))

    def dereference(self, number: int) -> None:
        """Take back one reference that the kernel did not take after all."""
        self._table.forget(number, 1)

    def close_directory(self, handle_number: int) -> None:
        """Close a directory; entries that nobody looked up are forgotten."""
        handle = self.handles.directory(handle_number)
        self.handles.remove(handle_number)
        for inode in handle.entries or ():
            self._table.drop_if_idle(inode)

    async def readlink(self, number: int) -> str:
        """The target of a symbolic link."""
        inode = self._table[number]
        if inode.metadata is None or inode.metadata.symlink_target is None:
            inode.metadata = await self._run_blocking(self.manager.head, inode.key)
        return inode.metadata.symlink_target or ""

    async def symlink(self, parent: int, name: str, target: str, owner: Owner) -> Attributes:
        """Make a symbolic link."""
        directory = await self._vacant(parent, name)
        key = directory.key + name
        written = await self._run_blocking(self.manager.make_symlink, key, target)
        self._on_wishes()
        inode = self._table.add(directory, name, stat.S_IFLNK)
        self.namespace.changed(inode, written)
        inode.overrides.uid, inode.overrides.gid = owner.uid, owner.gid
        return self._referenced(inode)

    async def make_directory(self, parent: int, name: str, mode: int, owner: Owner) -> Attributes:
        """Make a directory."""
        directory = await self._vacant(parent, name)
        key = directory.key + name + "/"
        await self._run_blocking(self._make_directory, key, mode, owner)
        self._on_wishes()
        inode = self._table.add(directory, name, stat.S_IFDIR)
        self.namespace.changed(inode, directory_metadata(key))
        inode.overrides.mode, inode.overrides.uid, inode.overrides.gid = mode, owner.uid, owner.gid
        inode.overrides.mtime_ns = time.time_ns()
        return self._referenced(inode)

    def _make_directory(self, key: str, mode: int, owner: Owner) -> None:
        self.manager.make_directory(key)
        if self.manager.capabilities.posix_attributes:
            uid, gid = (owner.uid, owner.gid) if MAY_GIVE_AWAY else (None, None)
            self.manager.primary.set_posix_attributes(key, mode=mode, uid=uid, gid=gid)

    async def _vacant(self, parent: int, name: str) -> Inode:
        """The directory in which `name` is free to be made."""
        self._check_writable()
        directory = self._directory(parent)
        self._check_name(name)
        if await self._lookup_or_none(directory, name) is not None:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        return directory
