"""rename(2) of a directory: nobody on this mount sees half of it, and what is open below stays open (W7)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from mscfs.errors import DirectoryNotEmptyError, InvalidKeyError
from mscfs.replicas.outage import refuse_in_outage
from mscfs.types import ObjectMetadata
from mscfs.vfs.answers import directory_metadata
from mscfs.vfs.changes import Changes
from mscfs.vfs.handles import repin, reversioned
from mscfs.vfs.inodes import Inode
from mscfs.vfs.trees import MovedTree, copy_tree, remove_tree, rename_directory


class DirectoryMoves(Changes):
    """See the module."""

    async def _move_directory(
        self, inode: Inode, target_directory: Inode, new_name: str, replaced: Inode | None
    ) -> None:
        """Rename a directory; `replaced` is a directory of the new name, which must be empty."""
        if inode in _upwards(target_directory):
            raise InvalidKeyError("a directory cannot be moved into itself", key=inode.key)
        places = (inode,) if replaced is None else (inode, replaced)
        refuse_in_outage(self.manager, inode.key)
        async with self.namespace.gate.closed(*places):
            if replaced is not None:
                await self._prepare_removal(replaced)
                if await self._run_blocking(self._holds_objects, replaced.key):
                    raise DirectoryNotEmptyError("the directory is not empty", key=replaced.key)
            await self._vacate(target_directory.key + new_name)
            await self._bring_home(inode)
            async with AsyncExitStack() as held:
                # A listing that began under the old names would tell that there is nothing under the new ones.
                for child in (*places, *_below(inode)):
                    if child.is_directory:
                        while child.coming is not None:
                            await child.coming.end()
                    else:
                        await held.enter_async_context(child.lock)
                await self._move_held(inode, target_directory, new_name, replaced)

    async def _move_held(self, inode: Inode, target_directory: Inode, new_name: str, replaced: Inode | None) -> None:
        source_directory, name = inode.parent, inode.name
        assert source_directory is not None
        source, target = inode.key, target_directory.key + new_name + "/"
        keys = {child: child.key for child in _below(inode)}
        moved: MovedTree | None = None
        if self.manager.capabilities.real_directories:
            await self._run_blocking(rename_directory, self.manager, self._journal, source, target)
            copies = {
                key: replace(child.metadata, key=target + key[len(source) :])
                for child, key in keys.items()
                if child.metadata is not None and not child.is_directory
            }
        else:
            wanted = frozenset(key for child, key in keys.items() if not child.is_directory)
            moved = await self._run_blocking(self._copy_tree, source, target, replaced is not None, wanted)
            copies = moved.copies
        current = target_directory.children.get(new_name)
        if current is not None and current is not inode:
            await self._lose_name(target_directory, current)
        self.namespace.removed(source_directory, name)
        self._keep_directory(source_directory)
        self._table.move(inode, target_directory, new_name)
        self._names_changed(source_directory)
        self._names_changed(target_directory)
        self.namespace.changed(inode, directory_metadata(inode.key))
        await self._follow(inode, source, keys, copies)
        if moved is not None:
            await self._run_blocking(remove_tree, self.manager, self._journal, moved)
            # Whoever listed it meanwhile saw what was not removed yet.
            self.namespace.removed(source_directory, name)
        self._on_wishes()

    async def _follow(
        self, root: Inode, source: str, keys: Mapping[Inode, str], copies: Mapping[str, ObjectMetadata]
    ) -> None:
        """What is known below a directory that was moved has new keys, and perhaps new versions."""
        self.namespace.left(source)
        self.namespace.forget_below(root)
        if self._table.remembered is not None:
            self._table.remembered.moved(source, root.key)
        for child in list(_below(root)):
            if child.is_directory:
                self.namespace.forget_below(child)
                self.namespace.changed(child, directory_metadata(child.key))
                continue
            renamed = copies.get(keys.get(child, ""))
            if child.metadata is not None and renamed is None:
                # It came into being here meanwhile, or is gone there: ask.
                child.metadata, child.checked = replace(child.metadata, key=child.key), float("-inf")
                repin(child)
                continue
            if child.staging is not None:
                child.staging.end_stream()
                await self._uploads.forget_row(child.staging)
                with suppress(OSError):  # a full disk: only after a crash it would go by its old name
                    child.staging.renamed(child.key)
            self._moved(child, renamed)

    async def _bring_home(self, directory: Inode) -> None:
        """What is changed in place goes to the primary first; what never was there moves without a transfer."""
        await self._prepare_removal(directory)
        for child in list(_below(directory)):
            if child.metadata is not None and not child.is_directory:
                await self._uploads.flush(child)

    async def _prepare_removal(self, directory: Inode) -> None:
        """What was unlinked below, and is read on, is read from here: the objects go with the directory."""
        for key in [key for key in self.namespace.deferred if key.startswith(directory.key)]:
            await self._vacate(key)

    def _holds_objects(self, directory: str) -> bool:
        primary = self.manager.primary
        if primary.capabilities.real_directories:
            return False  # the rename itself will tell
        return any(entry.key != directory for entry in primary.list(directory))

    def _copy_tree(self, source: str, target: str, replaced: bool, wanted: frozenset[str]) -> MovedTree:
        return copy_tree(
            self.manager, self._journal, source, target, replaced=replaced, wanted=wanted, check=self._check_writable
        )

    def _moved(self, inode: Inode, renamed: ObjectMetadata | None) -> None:
        """An inode has its new name; `renamed` is what the primary says of it, None if it never was there."""
        metadata = inode.metadata
        inode.overrides.ctime_ns = time.time_ns()
        if metadata is None or renamed is None:
            self.namespace.changed(inode, None)
            return
        mtime_ns = self._attributes.of(inode, 0.0).mtime_ns
        self.namespace.changed(inode, renamed)
        if self._attributes.of(inode, 0.0).mtime_ns != mtime_ns:
            inode.overrides.mtime_ns = mtime_ns
        self._saver.stored(inode)
        reversioned(inode, metadata.version, renamed.version)

    async def _lose_name(self, directory: Inode, inode: Inode) -> None:
        """Take a name away, and the wish to send its content. The caller holds the inode's lock."""
        staging = inode.staging
        if staging is not None:
            # Of an upload that failed, say by fsync() in an outage: a recovery would bring it home under this name.
            await self._uploads.forget_row(staging)
            staging.drop()
        inode.deleted = True
        self.namespace.removed(directory, inode.name)
        self._names_changed(directory)
        self._table.detach(inode)
        self._keep_directory(directory)

    def _keep_directory(self, directory: Inode) -> None:
        """A directory whose last key is taken away here does not vanish under the program that does so."""
        if directory.parent is not None and not self.manager.capabilities.real_directories:
            directory.sticky = True


def _below(directory: Inode) -> Iterator[Inode]:
    """All inodes below a directory."""
    for child in directory.children.values():
        yield child
        yield from _below(child)


def _upwards(inode: Inode | None) -> Iterator[Inode]:
    while inode is not None:
        yield inode
        inode = inode.parent
