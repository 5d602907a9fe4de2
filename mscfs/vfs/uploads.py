"""Bringing staged content to the primary: what close() and fsync() wait for (contract W1, W2, W3, W5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mscfs.errors import NotFoundError, StorageError
from mscfs.journal import Journal
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import STAMP_KEY, ObjectMetadata
from mscfs.vfs.inodes import MAY_GIVE_AWAY, Inode, Overrides
from mscfs.vfs.namespace import Namespace
from mscfs.vfs.staging import StagingArea, StagingFile
from mscfs.vfs.transport import RunBlocking, Transport

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Begun:
    """An upload whose row is in the journal."""

    row: int
    metadata: Mapping[str, str] | None


class Uploads:
    """See the module. `on_wishes` is called when the journal got wishes to replicate."""

    def __init__(
        self,
        manager: ReplicaManager,
        journal: Journal,
        transport: Transport,
        namespace: Namespace,
        area: StagingArea,
        run_blocking: RunBlocking,
        *,
        on_wishes: Callable[[], None],
    ) -> None:
        self._manager = manager
        self._journal = journal
        self._transport = transport
        self._namespace = namespace
        self._area = area
        self._run_blocking = run_blocking
        self._on_wishes = on_wishes

    async def flush(self, inode: Inode) -> None:
        """Return when the primary holds what is staged; nothing staged, or nothing new, is done at once.

        Raises the store's error. The content then stays staged and in the journal: it is sent again by the next
        flush, or by the next mount if its base is still the primary's version (W4).
        """
        if inode.staging is None or not inode.staging.dirty or inode.deleted:
            return
        # Writers wait while their file is on its way: an object is one state of the file, never a mixture of two.
        async with inode.lock:
            staging = inode.staging
            if staging is not None and staging.dirty and not inode.deleted:
                await self._upload(inode, staging)

    async def _upload(self, inode: Inode, staging: StagingFile) -> None:
        key, changes = inode.key, staging.changes
        begun = await self._run_blocking(self._begin, key, inode.metadata, staging)
        try:
            written = await self._transport.upload(
                key,
                staging.path,
                metadata=begun.metadata,
                if_absent=False,
                expected=staging.base if staging.mode == "update" else None,
            )
        except StorageError as error:
            await self._run_blocking(self._keep, begun, staging, error)
            raise
        written = await self._run_blocking(self._finish, begun, written, inode.overrides)
        staging.row = None
        staging.uploaded(written.version, changes)
        self._namespace.changed(inode, written)
        self._namespace.deferred.pop(key, None)
        inode.cached_version = written.version.token
        self._on_wishes()

    def _keep(self, begun: _Begun, staging: StagingFile, error: StorageError) -> None:
        """The upload failed: from now on the staged content is the only one, so it must outlive the machine."""
        staging.sync()
        # Where the store would say the same again, only a person can tell what should become of it.
        self._journal.keep_upload(begun.row, "" if error.transient else str(error))

    def _begin(self, key: str, known: ObjectMetadata | None, staging: StagingFile) -> _Begun:
        # Nothing is forced to disk here: it would cost more than the upload, and until this is acknowledged only a
        # crash of the process, which the page cache survives, is covered (W4).
        if staging.row is None:
            staging.row = self._journal.begin_upload(key, staging.path, staging.mode, staging.base)
        metadata = known.metadata if known is not None else None
        if staging.mode == "update" and known is not None and metadata is None:
            metadata = self._user_metadata(key)
        return _Begun(staging.row, {k: v for k, v in (metadata or {}).items() if k != STAMP_KEY} or None)

    def _user_metadata(self, key: str) -> Mapping[str, str] | None:
        """Of an object that is changed in place: a listing does not carry it, and it must not get lost."""
        try:
            return self._manager.primary.head(key).metadata
        except NotFoundError:
            return None

    def _finish(self, begun: _Begun, written: ObjectMetadata, overrides: Overrides) -> ObjectMetadata:
        if overrides.any and self._manager.capabilities.posix_attributes:
            written = self._manager.primary.set_posix_attributes(
                written.key,
                mode=overrides.mode,
                uid=overrides.uid if MAY_GIVE_AWAY else None,
                gid=overrides.gid if MAY_GIVE_AWAY else None,
                modified_ns=overrides.mtime_ns,
            )
        wishes = self._manager.replication_wishes(written.key, written.content_length)
        self._journal.finish_upload(begun.row, wishes)
        if written.key in self._namespace.deferred:
            self._journal.finish_delete(written.key)
        return written

    async def settle(self, inode: Inode) -> None:
        """The last handle is closed: send what is left, then let the staging file go, or keep it if that failed."""
        staging = inode.staging
        if staging is None:
            return
        try:
            await self.flush(inode)
        except StorageError as error:
            staging.kept = True
            log.error(  # noqa: TRY400 - an expected outcome, no traceback
                "%s was not uploaded: %s; its content is kept in %s", inode.key, error, staging.path
            )
        await self.discard(inode)

    async def discard(self, inode: Inode) -> None:
        """Give up an inode's staging file; its row goes too unless it is kept."""
        staging, inode.staging = inode.staging, None
        if staging is None:
            return
        if staging.row is not None and not staging.kept:
            await self._run_blocking(self._journal.drop_upload, staging.row)
        self._area.discard(staging)
