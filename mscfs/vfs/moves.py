"""Names that go: rmdir, unlink and rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack, nullcontext, suppress

from mscfs.errors import DirectoryNotEmptyError, IsADirectoryKeyError, NotADirectoryKeyError, StorageError
from mscfs.replicas.outage import refuse_in_outage
from mscfs.types import ObjectMetadata, Version
from mscfs.vfs.deletes import delete_if_held, delete_object
from mscfs.vfs.directorymoves import DirectoryMoves
from mscfs.vfs.inodes import Inode
from mscfs.vfs.renames import rename_object

RENAME_NOREPLACE = 1
"""renameat2(2)."""


class Moves(DirectoryMoves):
    """See the module."""

    async def remove_directory(self, parent: int, name: str) -> None:
        """Remove an empty directory; ENOTEMPTY."""
        self._check_writable()
        directory = self._directory(parent)
        async with self.namespace.gate.passage(directory):
            with (await self.namespace.lookup(directory, name)).used() as inode:
                await self._remove_directory(directory, inode)

    async def _remove_directory(self, directory: Inode, inode: Inode) -> None:
        if not inode.is_directory:
            raise NotADirectoryKeyError("not a directory", key=inode.key)
        if not self.namespace.is_empty_here(inode):
            raise DirectoryNotEmptyError("the directory is not empty", key=inode.key)
        refuse_in_outage(self.manager, inode.key)
        await self._prepare_removal(inode)
        await self._run_blocking(self.manager.remove_directory, inode.key)
        self._on_wishes()
        self.namespace.removed_directory(directory, inode)
        self._names_changed(directory)
        self._table.detach(inode)

    async def unlink(self, parent: int, name: str) -> None:
        """Take a name away. Open handles keep reading; the object goes when the last of them closes (W8)."""
        self._check_writable()
        directory = self._directory(parent)
        async with self.namespace.gate.passage(directory):
            with (await self.namespace.lookup(directory, name)).used() as inode:
                await self._unlink(directory, inode)
        with suppress(StorageError):  # the last handle was closed meanwhile; in trouble the journal still has it
            await self._delete_if_unread(inode)
        self._table.drop_if_idle(inode)

    async def _unlink(self, directory: Inode, inode: Inode) -> None:
        if inode.is_directory:
            raise IsADirectoryKeyError("is a directory", key=inode.key)
        async with inode.lock:
            with inode.leaving():
                await self._delete_or_defer(inode)
                await self._lose_name(directory, inode)
        if not inode.handles:
            await self._uploads.discard(inode)

    async def _delete_or_defer(self, inode: Inode) -> None:
        """What becomes of the object of a name that goes."""
        if inode.metadata is None:
            await self._delete_doubtful(inode)
        elif inode.handles and inode.staging is None:
            version = inode.metadata.version
            await self._run_blocking(self._journal.begin_delete, inode.key, version)
            self.namespace.deferred[inode.key] = version
        else:
            refuse_in_outage(self.manager, inode.key)
            await self._run_blocking(delete_object, self.manager, self._journal, inode.key, inode.metadata.version)
            self._on_wishes()

    async def _delete_doubtful(self, inode: Inode) -> None:
        """A name goes of which the primary told nothing, but may have an upload whose answer was lost.

        Where nobody can tell now, as in an outage, it may come to light when the primary is back.
        """
        staging = inode.staging
        if staging is not None and staging.in_doubt and not self.namespace.is_down:
            with suppress(StorageError):
                await self._run_blocking(delete_if_held, self.manager, inode.key, staging.path)
                self._on_wishes()

    async def rename(self, parent: int, name: str, new_parent: int, new_name: str, flags: int) -> None:
        """Rename a file, link or directory, replacing a file or an empty directory of the new name.

        RENAME_EXCHANGE is EINVAL.
        """
        self._check_writable()
        if flags & ~RENAME_NOREPLACE:
            raise OSError(errno.EINVAL, "only RENAME_NOREPLACE is supported")
        source_directory, target_directory = self._directory(parent), self._directory(new_parent)
        self._check_new_name(target_directory, new_name)
        # The kernel holds the names of both directories: nobody changes them between these steps.
        async with self.namespace.gate.passage(source_directory):
            inode = await self.namespace.lookup(source_directory, name)
        with inode.used():
            async with self.namespace.gate.passage(source_directory, target_directory):
                replaced = await self._replaced(inode, target_directory, new_name, flags)
                if replaced is inode:
                    return
                if not inode.is_directory:
                    await self._vacate(target_directory.key + new_name)
                    with nullcontext() if replaced is None else replaced.leaving():
                        if replaced is not None:
                            await self._keep_for_readers(replaced)
                        await self._rename(inode, source_directory, target_directory, new_name, flags)
                    if replaced is not None:
                        self._table.drop_if_idle(replaced)
                    return
            await self._move_directory(inode, target_directory, new_name, replaced)

    async def _replaced(self, inode: Inode, directory: Inode, name: str, flags: int) -> Inode | None:
        """What has the new name, if it may be replaced."""
        replaced = await self._lookup_or_none(directory, name)
        if replaced is None or replaced is inode:
            return replaced
        if flags & RENAME_NOREPLACE:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if replaced.is_directory and not inode.is_directory:
            raise IsADirectoryKeyError("is a directory", key=replaced.key)
        if inode.is_directory and not replaced.is_directory:
            raise NotADirectoryKeyError("not a directory", key=replaced.key)
        return replaced

    async def _rename(
        self, inode: Inode, source_directory: Inode, target_directory: Inode, new_name: str, flags: int
    ) -> None:
        replaced = target_directory.children.get(new_name)
        if inode.metadata is not None or (replaced is not None and replaced.metadata is not None):
            refuse_in_outage(self.manager, inode.key)
            # Only what was never uploaded moves without a transfer, and only to a name of which the primary has no
            # object: that would be there again when the file is unlinked, or renamed once more, before it is sent.
            await self._uploads.flush(inode)
            replaced = target_directory.children.get(new_name)
        async with AsyncExitStack() as held:
            # An upload of what is replaced must not come after what replaces it.
            for one in sorted({inode, replaced or inode}, key=lambda one: one.number):
                await held.enter_async_context(one.lock)
            target = target_directory.key + new_name
            renamed = inode.metadata
            if renamed is not None:
                try:
                    async with self.namespace.replacing(target):
                        renamed = await self._run_blocking(
                            self._rename_object,
                            inode.key,
                            target,
                            renamed.version,
                            bool(flags & RENAME_NOREPLACE),
                            self._saver.for_copy(inode),
                        )
                except StorageError:
                    # The copy may have been made all the same: what the target is has to be asked, unless it is here.
                    if replaced is None or replaced.staging is None or not replaced.staging.dirty:
                        self.namespace.part(target_directory, new_name)
                    target_directory.listing = None
                    self._on_wishes()
                    raise
                self._on_wishes()
            elif inode.staging is not None:
                for one in {inode, replaced or inode}:
                    await self._delete_doubtful(one)
                await self._uploads.forget_row(inode.staging)
                inode.staging.renamed(target)
            current = target_directory.children.get(new_name)
            if current is not None and current is not inode:
                await self._lose_name(target_directory, current)
                if not current.handles:
                    await self._uploads.discard(current)
            self.namespace.removed(source_directory, inode.name)
            self._keep_directory(source_directory)
            self._table.move(inode, target_directory, new_name)
            self._names_changed(source_directory)
            self._names_changed(target_directory)
            if inode.staging is not None:
                # Its parts, if any, go to the old name.
                inode.staging.end_stream()
                inode.staging.key = target
            self._moved(inode, renamed)

    def _rename_object(
        self, source: str, target: str, version: Version, no_replace: bool, metadata: Mapping[str, str] | None
    ) -> ObjectMetadata:
        renamed = rename_object(
            self.manager, self._journal, source, target, version, no_replace=no_replace, metadata=metadata
        )
        if target in self.namespace.deferred:
            # What waits to be deleted is gone; the new object may look just like it.
            self._journal.finish_delete(target)
        return renamed
