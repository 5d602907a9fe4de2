"""Names that go: rmdir, unlink and rename."""

from __future__ import annotations

import errno
import os

from mscfs.errors import DirectoryNotEmptyError, IsADirectoryKeyError, NotADirectoryKeyError
from mscfs.types import ObjectMetadata, Version
from mscfs.vfs.core import Core
from mscfs.vfs.inodes import Inode
from mscfs.vfs.renames import rename_object

RENAME_NOREPLACE = 1
"""renameat2(2)."""


class Moves(Core):
    """See the module."""

    async def remove_directory(self, parent: int, name: str) -> None:
        """Remove an empty directory; ENOTEMPTY."""
        self._check_writable()
        directory = self._directory(parent)
        with (await self.namespace.lookup(directory, name)).used() as inode:
            await self._remove_directory(directory, inode)

    async def _remove_directory(self, directory: Inode, inode: Inode) -> None:
        if not inode.is_directory:
            raise NotADirectoryKeyError("not a directory", key=inode.key)
        if not self.namespace.is_empty_here(inode):
            raise DirectoryNotEmptyError("the directory is not empty", key=inode.key)
        for key in [key for key in self.namespace.deferred if key.startswith(inode.key)]:
            await self._delete_deferred(key)
        await self._run_blocking(self.manager.remove_directory, inode.key)
        self._on_wishes()
        self.namespace.removed(directory, inode.name)
        self._table.detach(inode)

    async def unlink(self, parent: int, name: str) -> None:
        """Take a name away. Open handles keep reading; the object goes when the last of them closes (W8)."""
        self._check_writable()
        directory = self._directory(parent)
        with (await self.namespace.lookup(directory, name)).used() as inode:
            await self._unlink(directory, inode)
        self._table.drop_if_idle(inode)

    async def _unlink(self, directory: Inode, inode: Inode) -> None:
        if inode.is_directory:
            raise IsADirectoryKeyError("is a directory", key=inode.key)
        async with inode.lock:
            if inode.metadata is not None:
                if inode.handles and inode.staging is None:
                    version = inode.metadata.version
                    await self._run_blocking(self._journal.begin_delete, inode.key, version)
                    self.namespace.deferred[inode.key] = version
                else:
                    await self._run_blocking(self.manager.delete, inode.key)
                    self._on_wishes()
            self._lost_name(directory, inode)
        if not inode.handles:
            await self._uploads.discard(inode)

    async def rename(self, parent: int, name: str, new_parent: int, new_name: str, flags: int) -> None:
        """Rename a file or link, replacing a file of the new name.

        Directories are refused with EXDEV: mv(1) and shutil.move then copy. RENAME_EXCHANGE is EINVAL.
        """
        self._check_writable()
        if flags & ~RENAME_NOREPLACE:
            raise OSError(errno.EINVAL, "only RENAME_NOREPLACE is supported")
        source_directory, target_directory = self._directory(parent), self._directory(new_parent)
        self._check_name(new_name)
        with (await self.namespace.lookup(source_directory, name)).used() as inode:
            await self._rename(inode, source_directory, target_directory, new_name, flags)

    async def _rename(
        self, inode: Inode, source_directory: Inode, target_directory: Inode, new_name: str, flags: int
    ) -> None:
        if inode.is_directory:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replaced = await self._lookup_or_none(target_directory, new_name)
        if replaced is inode:
            return
        if replaced is not None:
            if flags & RENAME_NOREPLACE:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            if replaced.is_directory:
                raise IsADirectoryKeyError("is a directory", key=replaced.key)
        if inode.metadata is not None:
            # Only what was never uploaded moves without a transfer; changes in place are brought home first.
            await self._uploads.flush(inode)
        async with inode.lock:
            target = target_directory.key + new_name
            renamed = inode.metadata
            if renamed is not None:
                renamed = await self._run_blocking(
                    self._rename_object, inode.key, target, renamed.version, bool(flags & RENAME_NOREPLACE)
                )
                self._on_wishes()
            elif inode.staging is not None and inode.staging.row is not None:
                await self._run_blocking(self._journal.drop_upload, inode.staging.row)
                inode.staging.row = None
            current = target_directory.children.get(new_name)
            if current is not None and current is not inode:
                self._lost_name(target_directory, current)
                if not current.handles:
                    await self._uploads.discard(current)
            self.namespace.removed(source_directory, inode.name)
            self._keep_directory(source_directory)
            self._table.move(inode, target_directory, new_name)
            if inode.staging is not None:
                # Its parts, if any, go to the old name.
                inode.staging.end_stream()
            self._moved(inode, renamed)

    def _moved(self, inode: Inode, renamed: ObjectMetadata | None) -> None:
        metadata = inode.metadata
        if metadata is None or renamed is None:
            self.namespace.changed(inode, None)
            return
        self.namespace.changed(inode, renamed)
        inode.overrides.mtime_ns = inode.overrides.mtime_ns or metadata.version.modified_ns
        if inode.cached_version == metadata.version.token:
            inode.cached_version = renamed.version.token
        if inode.staging is not None:
            inode.staging.base = renamed.version
        self._repin(inode)

    def _rename_object(self, source: str, target: str, version: Version, no_replace: bool) -> ObjectMetadata:
        return rename_object(self.manager, self._journal, source, target, version, no_replace=no_replace)

    def _lost_name(self, directory: Inode, inode: Inode) -> None:
        inode.deleted = True
        if inode.staging is not None:
            inode.staging.end_stream()
        self.namespace.removed(directory, inode.name)
        self._table.detach(inode)
        self._keep_directory(directory)

    def _keep_directory(self, directory: Inode) -> None:
        """A directory whose last key is taken away here does not vanish under the program that does so."""
        if directory.parent is not None and not self.manager.capabilities.real_directories:
            directory.sticky = True
