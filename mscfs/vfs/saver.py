"""Keeping attributes in user metadata (`preserve_attributes`, W9).

What is known when a file is sent goes with it. What is set afterwards is told to the store a moment later, all of it at
once, so that `cp -p`, `rsync -a` and `tar x` cost one change of metadata and not three; at once by fsync(2), and before
the mount ends.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace

import trio

from mscfs.errors import NotFoundError, StorageError, VersionMismatchError
from mscfs.providers.base import Dialect
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.restamp import change_metadata
from mscfs.types import ObjectMetadata
from mscfs.vfs.handles import reversioned
from mscfs.vfs.inodes import Inode
from mscfs.vfs.kept import NOTHING, Kept, read_kept, with_kept, without_content_keys, without_time
from mscfs.vfs.kept_xattrs import check_room, read_xattrs, with_xattrs
from mscfs.vfs.namespace import Namespace
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

DELAY = 1.0
"""Seconds from the first change of attributes until the store is told."""
LONGEST_DELAY = 60.0
"""The pause doubles with each failure, up to this."""
AT_ONCE = 8


class AttributeSaver:
    """See the module."""

    def __init__(
        self,
        manager: ReplicaManager,
        namespace: Namespace,
        run_blocking: RunBlocking,
        nursery: trio.Nursery,
        *,
        keeps: bool,
        on_wishes: Callable[[], None],
        delay: float = DELAY,
    ) -> None:
        self.keeps = keeps
        """Without it attributes last while mounted, and nothing is told to the store."""
        self._manager = manager
        self._dialect: Dialect = manager.capabilities.dialect
        self._namespace = namespace
        self._run_blocking = run_blocking
        self._nursery = nursery
        self._on_wishes = on_wishes
        self._delay = delay
        self._limit = trio.CapacityLimiter(AT_ONCE)
        self._waiting: set[Inode] = set()

    def xattrs(self, inode: Inode) -> Mapping[str, bytes]:
        """The extended attributes of an inode whose metadata are known."""
        if inode.overrides.xattrs is not None:
            return inode.overrides.xattrs
        return read_xattrs(inode.metadata.metadata) if self.keeps and inode.metadata is not None else {}

    def for_upload(self, inode: Inode, known: Mapping[str, str], *, with_time: bool = True) -> Mapping[str, str] | None:
        """The user metadata of new content; of the old content's nothing but the time is lost."""
        metadata = without_content_keys(known)
        if self.keeps:
            overrides = inode.overrides
            kept = overrides.kept if with_time or overrides.is_time_chosen else without_time(overrides.kept)
            metadata = self._merged(metadata, inode, kept)
        return metadata or None

    def for_copy(self, inode: Inode) -> Mapping[str, str] | None:
        """The user metadata for a copy that is made anyhow; None to leave them as they are."""
        metadata = inode.metadata.metadata if inode.metadata is not None else None
        if metadata is None or not self._is_unsaved(inode):
            return None
        return self._merged(metadata, inode, self._unsaved(inode))

    def for_directory(self, mode: int, uid: int, gid: int) -> Mapping[str, str] | None:
        """The user metadata of a new directory's marker."""
        return with_kept({}, Kept(mode, uid, gid), directory=True, dialect=self._dialect) if self.keeps else None

    def check_room(self, inode: Inode, xattrs: Mapping[str, bytes]) -> None:
        """Raise OSError ENOSPC for what the store could not keep with an object, whether it is going to or not."""
        known = (inode.metadata.metadata if inode.metadata is not None else None) or {}
        kept = with_kept(known, inode.overrides.kept, directory=inode.is_directory, dialect=self._dialect)
        check_room(with_xattrs(kept, xattrs), self._dialect)

    def stored(self, inode: Inode) -> None:
        """The store told the inode's new metadata. What was set meanwhile is told to it later."""
        if not self.keeps or inode.metadata is None or inode.metadata.metadata is None:
            return
        metadata = inode.metadata.metadata
        inode.overrides.stored(read_kept(metadata, directory=inode.is_directory), read_xattrs(metadata))
        self.changed(inode)

    def changed(self, inode: Inode) -> None:
        """Attributes were set here: tell the store soon, if nothing else will."""
        if inode in self._waiting or not self._is_unsaved(inode):
            return
        self._waiting.add(inode)
        inode.users += 1  # it stays, whatever the kernel forgets
        self._nursery.start_soon(self._save_later, inode)

    async def save(self, inode: Inode) -> None:
        """Tell the store now what it does not know yet. Raises StorageError."""
        if not self._is_unsaved(inode):
            return
        async with self._namespace.gate.passage(inode), inode.lock:
            before = inode.metadata
            if not self._is_unsaved(inode) or before is None:
                return
            try:
                written = await self._run_blocking(self._tell, inode, before)
            except (NotFoundError, VersionMismatchError):
                log.info("%s was changed elsewhere: attributes set here are not kept with it", inode.key)
                inode.checked = float("-inf")
                return
            self._namespace.changed(inode, written)
            inode.overrides.stored(
                read_kept(written.metadata, directory=inode.is_directory), read_xattrs(written.metadata)
            )
            if not inode.is_directory:
                reversioned(inode, before.version, written.version)
        self._on_wishes()

    async def finish(self) -> None:
        """The mount ends: tell the store everything; what fails is logged."""
        async with trio.open_nursery() as nursery:
            for inode in list(self._waiting):
                nursery.start_soon(self._save_or_log, inode)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _is_unsaved(self, inode: Inode) -> bool:
        """Whether the store has to be told, and nothing under way will: a file that is sent takes its attributes."""
        if not self.keeps or inode.metadata is None or inode.kind == stat.S_IFLNK:
            return False
        if inode.parent is None or inode.deleted or (inode.staging is not None and inode.staging.dirty):
            return False
        if inode.overrides.xattrs is not None and inode.overrides.xattrs != read_xattrs(inode.metadata.metadata):
            return True
        return self._unsaved(inode) != NOTHING

    def _unsaved(self, inode: Inode) -> Kept:
        """What was set and is not kept. A time that nobody asked for is no reason to tell anything."""
        overrides = inode.overrides
        wanted = overrides.kept if overrides.is_time_chosen else without_time(overrides.kept)
        known = inode.metadata.metadata if inode.metadata is not None else None
        return wanted.beyond(read_kept(known, directory=inode.is_directory))

    def _merged(self, metadata: Mapping[str, str], inode: Inode, kept: Kept) -> dict[str, str]:
        merged = with_kept(metadata, kept, directory=inode.is_directory, dialect=self._dialect)
        return merged if inode.overrides.xattrs is None else with_xattrs(merged, inode.overrides.xattrs)

    def _tell(self, inode: Inode, before: ObjectMetadata) -> ObjectMetadata:
        kept = self._unsaved(inode)
        if inode.is_directory:
            return self._tell_marker(inode, before, kept)
        return change_metadata(self._manager, inode.key, before.version, lambda known: self._merged(known, inode, kept))

    def _tell_marker(self, inode: Inode, before: ObjectMetadata, kept: Kept) -> ObjectMetadata:
        known: Mapping[str, str] = {}
        try:
            known = self._manager.head_marker(inode.key).metadata or {}
        except NotFoundError:
            if not self._manager.primary.has_directory(inode.key):
                raise
        metadata = self._merged(known, inode, kept)
        self._manager.make_directory(inode.key, metadata=metadata)
        return replace(before, metadata=metadata)

    async def _save_later(self, inode: Inode) -> None:
        pause = self._delay
        try:
            while True:
                await trio.sleep(pause)
                try:
                    async with self._limit:
                        await self.save(inode)
                except StorageError as error:
                    if not error.transient:
                        log.warning("attributes of %s are not kept by the store: %s", inode.key, error)
                        return
                    pause = min(LONGEST_DELAY, 2 * pause)
                else:
                    return
        finally:
            self._waiting.discard(inode)
            inode.users -= 1
            self._namespace.table.drop_if_idle(inode)

    async def _save_or_log(self, inode: Inode) -> None:
        try:
            async with self._limit:
                await self.save(inode)
        except StorageError as error:
            log.warning("attributes of %s are not kept by the store: %s", inode.key, error)
