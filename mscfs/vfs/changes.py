"""Changes of files: their staged content, truncate, and attributes."""

from __future__ import annotations

import contextlib
import errno
import stat
import time
from dataclasses import dataclass

from mscfs.config.values import MIB
from mscfs.errors import IsADirectoryKeyError, VersionMismatchError
from mscfs.types import ObjectMetadata, Version, representable
from mscfs.vfs.attributes import Attributes
from mscfs.vfs.core import Core
from mscfs.vfs.handles import repin, reversioned
from mscfs.vfs.inodes import Inode
from mscfs.vfs.staging import StagingFile


@dataclass(frozen=True, slots=True)
class Change:
    """What a setattr asks for; None leaves it."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    @property
    def is_kept_by_store(self) -> bool:
        """Whether a store with POSIX attributes has to be told."""
        return (self.mode, self.uid, self.gid, self.mtime_ns) != (None, None, None, None)


LARGEST_KEPT = 256 * MIB
"""Of an open file whose object is replaced or removed so much is copied here for its readers."""


USED_ANEW = "its name was used anew since"
"""The problem of unsent content."""


class Changes(Core):
    """See the module."""

    async def set_attributes(self, number: int, change: Change, *, by_handle: bool = False) -> Attributes:
        """truncate(2), chmod(2), chown(2), utimensat(2).

        `by_handle`: ftruncate(2), whose close() brings the file home. Of truncate(2) by path the primary has the result
        when it returns (W1), whoever else has the file open.
        """
        self._check_writable()
        with self._table[number].used() as inode:
            async with self.namespace.gate.passage(inode):
                if change.size is not None:
                    await self._truncate(inode, change.size, bring_home=not by_handle)
                if change.is_kept_by_store or change.atime_ns is not None:
                    await self._set_posix_attributes(inode, change)
                return self._attributes_of(inode)

    async def _staging(self, inode: Inode) -> StagingFile:
        """The staging file of an inode, filled with its present content first. The caller holds the inode's lock."""
        if inode.staging is not None:
            return inode.staging
        version = inode.metadata.version if inode.metadata is not None else None
        staging = self._area.create(inode.key, "update" if version else "replace", version)
        try:
            if version is not None and version.size:
                staging.filling()
                await self._transport.download(inode.key, version, staging.path)
                staging.filled()
        except BaseException:
            self._area.discard(staging)
            raise
        if inode.deleted:
            staging.drop()
        inode.staging = staging
        repin(inode)
        return staging

    async def _vacate(self, key: str) -> None:
        """A name is wanted, or its directory goes, while its unlinked object still waits for its last reader (W8).

        Or older content waits to be sent there, which must not come back when what is made now is gone again (W4).
        """
        if self._journal.may_lack(key):
            await self._run_blocking(self._journal.supersede_uploads, key, USED_ANEW)
        if key in self.namespace.deferred:
            for inode in self._table:
                if inode.detached and inode.key == key:
                    await self._keep_for_readers(inode)
            await self._delete_deferred(key)

    async def _keep_for_readers(self, inode: Inode) -> None:
        """An object is about to go: who has it open reads a copy from here, unless it is too large for that (R1)."""
        if inode.handles and inode.metadata is not None and inode.staging is None and inode.size <= LARGEST_KEPT:
            # Without the copy its readers are told ESTALE; that must not keep others from the name.
            with contextlib.suppress(OSError):
                async with inode.lock:
                    await self._staging(inode)

    async def _truncate(self, inode: Inode, size: int, *, bring_home: bool = False) -> None:
        if inode.is_directory:
            raise IsADirectoryKeyError("is a directory", key=inode.key)
        try:
            async with inode.lock:
                await self._truncate_held(inode, size, bring_home=bring_home)
        except OSError:
            if not inode.handles:
                # Nobody is left to send it: as after a close() that failed.
                await self._uploads.settle(inode)
            raise
        if not inode.handles:
            await self._uploads.discard(inode)

    async def _truncate_held(self, inode: Inode, size: int, *, bring_home: bool) -> None:
        if size == 0 and inode.staging is None:
            base = inode.metadata.version if inode.metadata is not None else None
            inode.staging = self._area.create(inode.key, "replace", base)
            repin(inode)
        staging = await self._staging(inode)
        if size == 0:
            staging.mode = "replace"
        self._area.reserve(staging, size)
        staging.truncate(size)
        inode.overrides.changed(time.time_ns())
        if bring_home:
            # With the lock held: the end of somebody's handle must not take over the upload, and its error.
            await self._uploads.bring_home(inode)

    async def _set_posix_attributes(self, inode: Inode, change: Change) -> None:
        overrides = inode.overrides
        if change.mode is not None:
            overrides.mode = stat.S_IMODE(change.mode)
        if change.uid is not None:
            overrides.uid = change.uid
        if change.gid is not None:
            overrides.gid = change.gid
        if change.atime_ns is not None:
            overrides.atime_ns = representable(change.atime_ns)
        if change.mtime_ns is not None:
            overrides.mtime_ns, overrides.is_time_chosen = representable(change.mtime_ns), True
        overrides.ctime_ns = time.time_ns()
        if change.is_kept_by_store and self.manager.capabilities.posix_attributes:
            if inode.kind != stat.S_IFLNK:
                await self._set_on_store(inode, change)
            return
        self._saver.changed(inode)

    async def _set_on_store(self, inode: Inode, change: Change) -> None:
        for is_last in (False, True):
            async with inode.lock:  # what is on its way takes along what was set before it left
                before = inode.metadata
                if before is None or inode.detached or (inode.staging is not None and inode.staging.dirty):
                    return
                try:
                    expected = None if inode.is_directory else before.version
                    written = await self._run_blocking(self._keep_attributes, inode.key, change, expected)
                except VersionMismatchError:
                    if is_last:
                        raise
                else:
                    self._on_wishes()
                    self.namespace.changed(inode, written)
                    reversioned(inode, before.version, written.version)
                    return
            # It was changed elsewhere, and is not what our pages and staged changes are of.
            if not await self.namespace.revalidate(inode) and inode.detached:
                raise OSError(errno.ESTALE, "the file was changed elsewhere")

    def _keep_attributes(self, key: str, change: Change, expected: Version | None) -> ObjectMetadata:
        return self.manager.set_posix_attributes(
            key, mode=change.mode, uid=change.uid, gid=change.gid, modified_ns=change.mtime_ns, expected=expected
        )
