"""Names: looking them up, listing them, and making directories and links."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mscfs.errors import StorageError
from mscfs.providers.page import Detail
from mscfs.replicas.outage import refuse_in_outage
from mscfs.vfs.answers import directory_metadata
from mscfs.vfs.attributes import Attributes, Ownership
from mscfs.vfs.changes import Changes
from mscfs.vfs.core import Owner
from mscfs.vfs.entries import GONE, KEPT, UNSURE, Entries
from mscfs.vfs.handles import DirectoryHandle
from mscfs.vfs.inodes import MAY_GIVE_AWAY, Inode

ROWS = 1024
"""Entries that one call of `read_directory` gives at most; the kernel takes about 700 at once."""


@dataclass(slots=True)
class Rows:
    """Entries of a directory from `position` on: slots of the columns, or inodes that no listing told of."""

    position: int
    entries: Entries
    slots: array[int]
    loose: list[Inode]
    timeout: float
    """How long what the columns tell may be believed."""


class Names(Changes):
    """See the module."""

    def attributes(self, number: int) -> Attributes:
        """stat(2) of an inode the kernel holds; never asks a store."""
        inode = self._table.get(number)
        if inode is None:
            entries, slot = self._table.place(number)
            if not entries.states[slot] & KEPT:
                return self._listed(entries, slot)
            inode = self._table.materialise(entries, slot)
        return self._attributes_of(inode)

    async def told_attributes(self, number: int) -> Attributes:
        """The same, after asking the store for what listings did not tell of it."""
        place = None if self._table.get(number) else self._table.place(number)
        if place is not None and not place[0].states[place[1]] and self.namespace.details.lacks(*place):
            # Where the store does not answer, what is known is the answer.
            with contextlib.suppress(StorageError):
                await self.namespace.details.complete(*place)
        return self.attributes(number)

    async def lookup(self, parent: int, name: str) -> Attributes:
        """The inode of a name, with one more reference by the kernel."""
        directory = self._directory(parent)
        self._check_length(name)
        async with self.namespace.gate.passage(directory):
            found = await self.namespace.find(directory, name)
            if isinstance(found, Inode):
                return self._referenced(found)
            entries, slot = found
            entries.refer(slot)
            return self._listed(entries, slot)

    def absence(self, parent: int) -> float:
        """Seconds for which the kernel may believe that a name it was just refused does not exist."""
        return self.namespace.absence(self._directory(parent))

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gives back references."""
        self._table.forget(number, lookups)

    def open_directory(self, number: int) -> int:
        """A handle for reading a directory."""
        return self.handles.add(DirectoryHandle(self._directory(number)))

    async def read_directory(self, handle_number: int, position: int) -> Rows:
        """Some entries from `position` on, as soon as there are any; none at the end. 0 begins anew."""
        handle = self.handles.directory(handle_number)
        if position == 0 or handle.listing is None:
            async with self.namespace.gate.passage(handle.inode):
                handle.listing, handle.loose = await self.namespace.listing(handle.inode), None
        listing, entries = handle.listing, handle.inode.entries
        assert entries is not None
        await listing.reach(position)
        end = position + ROWS if handle.loose is None else min(position + ROWS, handle.listed)
        slots = listing.sequence[position:end]
        if slots:
            await self.namespace.details.settle_links(entries, slots)
            return Rows(position, entries, slots, [], self.namespace.remaining(listing.taken))
        if handle.loose is None:
            handle.listed, handle.loose = len(listing.sequence), self.namespace.loose(handle.inode)
        return Rows(position, entries, slots, handle.loose[position - handle.listed :], 0.0)

    @property
    def reads_kept(self) -> bool:
        """Whether user metadata tell attributes."""
        return self._attributes.reads_kept

    def listed(self, entries: Entries, slot: int) -> Attributes:
        """The attributes of what was listed; nobody may believe them where its object has to be asked first."""
        return self._listed(entries, slot)

    @property
    def started_ns(self) -> int:
        """The time of what no store tells a time of."""
        return self._attributes.started_ns

    def is_present(self, inode: Inode) -> bool:
        """Whether an inode still has its name."""
        return inode.parent is not None and inode.parent.children.get(inode.name) is inode

    def present(self, entries: Entries, slot: int) -> Inode | None:
        """The inode of an entry that the columns do not tell all about; None when its name is gone."""
        return None if entries.states[slot] & (GONE | UNSURE) else self._table.materialise(entries, slot)

    def reference(self, inode: Inode) -> Attributes:
        """Count an inode that the kernel took from a directory."""
        return self._referenced(inode)

    def dereference(self, inode: Inode) -> None:
        """Take back one reference that the kernel did not take after all."""
        self._table.forget(inode.number, 1)

    def ownership(self, kind: int, detail: Detail | None) -> Ownership:
        """Mode, owner and group of what a listing told of."""
        return self._attributes.ownership(kind, detail)

    def close_directory(self, handle_number: int) -> None:
        """Close a directory."""
        self.handles.directory(handle_number)
        self.handles.remove(handle_number)

    async def readlink(self, number: int) -> str:
        """The target of a symbolic link."""
        with self._table[number].used() as inode:
            if inode.metadata is None or inode.metadata.symlink_target is None:
                inode.metadata = await self._run_blocking(self.manager.head, inode.key)
            return inode.metadata.symlink_target or ""

    async def symlink(self, parent: int, name: str, target: str, owner: Owner) -> Attributes:
        """Make a symbolic link."""
        directory = self._directory(parent)
        async with self.namespace.gate.passage(directory):
            await self._check_vacant(directory, name)
            written = await self._run_blocking(self.manager.make_symlink, directory.key + name, target)
            self._on_wishes()
            inode = self._add(directory, name, stat.S_IFLNK)
            self.namespace.changed(inode, written)
            inode.overrides.uid, inode.overrides.gid = owner.uid, owner.gid
            self._names_changed(directory)
            return self._referenced(inode)

    async def make_directory(self, parent: int, name: str, mode: int, owner: Owner) -> Attributes:
        """Make a directory."""
        directory = self._directory(parent)
        async with self.namespace.gate.passage(directory):
            await self._check_vacant(directory, name, is_directory=True)
            key = directory.key + name + "/"
            metadata = self._saver.for_directory(mode, owner.uid, owner.gid)
            await self._run_blocking(self._make_directory, key, mode, owner, metadata)
            self._on_wishes()
            inode = self._add(directory, name, stat.S_IFDIR)
            self.namespace.changed(inode, replace(directory_metadata(key), metadata=metadata))
            self.namespace.made_directory(inode)
            inode.overrides.mode, inode.overrides.uid, inode.overrides.gid = mode, owner.uid, owner.gid
            inode.overrides.changed(time.time_ns())
            self._saver.stored(inode)
            self._names_changed(directory)
            return self._referenced(inode)

    def _make_directory(self, key: str, mode: int, owner: Owner, metadata: Mapping[str, str] | None) -> None:
        self.manager.make_directory(key, metadata=metadata)
        if self.manager.capabilities.posix_attributes:
            uid, gid = (owner.uid, owner.gid) if MAY_GIVE_AWAY else (None, None)
            self.manager.primary.set_posix_attributes(key, mode=mode, uid=uid, gid=gid)

    async def _check_vacant(self, directory: Inode, name: str, *, is_directory: bool = False) -> None:
        """Raise unless `name` is free to be made in a directory; afterwards it is on the store, too."""
        self._check_writable()
        self._check_new_name(directory, name, is_directory=is_directory)
        if await self._lookup_or_none(directory, name) is not None:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        refuse_in_outage(self.manager, directory.key + name)
        await self._vacate(directory.key + name)
