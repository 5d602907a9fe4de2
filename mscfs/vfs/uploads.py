"""Bringing staged content to the primary: what close() and fsync() wait for (contract W1, W2, W3, W5)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

import trio

from mscfs.errors import NotFoundError, StorageError, VersionMismatchError
from mscfs.journal import FinishedUpload, Journal, UploadMode
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.outage import refuse_in_outage
from mscfs.types import ObjectMetadata, Version
from mscfs.vfs import streams
from mscfs.vfs.commits import Commits
from mscfs.vfs.inodes import MAY_GIVE_AWAY, Inode
from mscfs.vfs.namespace import Namespace
from mscfs.vfs.overrides import Overrides
from mscfs.vfs.saver import AttributeSaver
from mscfs.vfs.staging import StagingArea, StagingFile
from mscfs.vfs.streams import Streams
from mscfs.vfs.transport import RunBlocking, Transport

log = logging.getLogger(__name__)


class Uploads:
    """See the module. Streams and commits run in `nursery`.

    `on_wishes` is called when the journal got wishes, `on_kept` when content that could not be sent was given up here.
    """

    def __init__(
        self,
        manager: ReplicaManager,
        journal: Journal,
        transport: Transport,
        namespace: Namespace,
        area: StagingArea,
        run_blocking: RunBlocking,
        saver: AttributeSaver,
        *,
        nursery: trio.Nursery,
        on_wishes: Callable[[], None],
        on_kept: Callable[[], None],
    ) -> None:
        self._streams = Streams(transport, journal, nursery, run_blocking)
        self._commits = Commits(journal, nursery, run_blocking)
        self._streaming = manager.capabilities.streaming
        self._manager = manager
        self._journal = journal
        self._transport = transport
        self._namespace = namespace
        self._area = area
        self._saver = saver
        self._run_blocking = run_blocking
        self._on_wishes = on_wishes
        self._on_kept = on_kept

    async def flush(self, inode: Inode) -> None:
        """Return when the primary holds what is staged; nothing staged, or nothing new, is done at once.

        Raises the store's error. The content then stays staged and in the journal: it is sent again by the next
        flush, or by the next mount if its base is still the primary's version (W4).
        """
        if inode.staging is not None and inode.staging.dirty and not inode.deleted:
            # Writers wait while their file is on its way: an object is one state of the file, never a mixture of two.
            async with inode.lock:
                await self.bring_home(inode)

    async def bring_home(self, inode: Inode) -> None:
        """The same, for a caller who holds the inode's lock."""
        staging = inode.staging
        if staging is not None and staging.dirty and not inode.deleted:
            async with self._namespace.replacing(inode.key):
                await self._upload(inode, staging)

    def written(self, inode: Inode, staging: StagingFile) -> None:
        """The file was written to: a large one that is written in order is on its way from now on."""
        if not self._streaming or inode.deleted:
            return
        if staging.stream is None and staging.in_order >= streams.FIRST_AT:
            metadata = partial(self._user_metadata, inode, staging.mode, with_time=False)
            staging.stream = self._streams.begin(inode.key, staging.path, metadata)
        if staging.stream is not None:
            staging.stream.offer(staging.in_order)

    async def _upload(self, inode: Inode, staging: StagingFile) -> None:
        key, changes = inode.key, staging.changes
        # Nothing is forced to disk here: it would cost more than the upload. Until this is acknowledged only a crash of
        # the process, which the page cache survives, is covered (W4). With a full disk it goes on without: the upload
        # is what makes room, and a crash meanwhile leaves content that is kept as not closed.
        with suppress(OSError):
            staging.sending(key)
        try:
            refuse_in_outage(self._manager, key)
            # The time of a file that is sent while it is written is not known when its upload begins.
            metadata = await self._user_metadata(inode, staging.mode, with_time=staging.stream is None)
            written = await self._send(key, staging, metadata)
        except StorageError as error:
            await self._run_blocking(self._keep, key, staging, error)
            raise
        # Whatever fails from here on: this is what the primary holds, and what the next attempt replaces.
        staging.base, staging.mode = written.version, "update"
        if inode.overrides.any and self._manager.capabilities.posix_attributes:
            with suppress(VersionMismatchError):  # it was replaced elsewhere already, and these are not for that
                written = await self._run_blocking(self._keep_attributes, key, inode.overrides, written.version)
            staging.base = written.version
            inode.overrides.xattrs = None
        await self._finish(staging, written)
        staging.uploaded(written.version, changes)
        self._namespace.changed(inode, written)
        inode.cached_version = written.version.token
        self._saver.stored(inode)

    async def _send(self, key: str, staging: StagingFile, metadata: Mapping[str, str] | None) -> ObjectMetadata:
        expected = staging.base if staging.mode == "update" else None
        stream, staging.stream = staging.stream, None
        if stream is not None:
            written = await stream.complete(staging.size, metadata, key=key, expected=expected)
            if written is not None:
                return written
        # The parts, or an attempt before, may have become the object although nobody told us.
        staging.in_doubt = staging.in_doubt or stream is not None
        try:
            written = await self._transport.upload(
                key,
                staging.path,
                metadata=metadata,
                if_absent=False,
                expected=expected,
                repeated=staging.in_doubt,
            )
        except StorageError as error:
            staging.in_doubt = staging.in_doubt or error.transient
            raise
        return replace(written, metadata=metadata or {}) if written.metadata is None else written

    def _keep(self, key: str, staging: StagingFile, error: StorageError) -> None:
        """The upload failed: from now on the staged content is the only one, so it must outlive the machine."""
        try:
            if staging.row is None:
                staging.row = self._journal.begin_upload(key, staging.path, staging.mode, staging.base)
            staging.sync()
            # Where the store would say the same again, only a person can tell what should become of it.
            self._journal.keep_upload(staging.row, "" if error.transient else str(error))
        except OSError as trouble:
            # The program is told of the store's error; this one adds that a crash of the machine may lose the content.
            log.error("%s is not safe on disk: %s", staging.path, trouble)  # noqa: TRY400 - no bug

    async def _user_metadata(self, inode: Inode, mode: UploadMode, *, with_time: bool) -> Mapping[str, str] | None:
        """What the object keeps; of one that is changed in place a listing may not have told it."""
        metadata = inode.metadata.metadata if inode.metadata is not None else None
        if mode == "update" and inode.metadata is not None and metadata is None:
            with suppress(NotFoundError):
                metadata = (await self._run_blocking(self._manager.primary.head, inode.key)).metadata
        return self._saver.for_upload(inode, metadata or {}, with_time=with_time)

    def _keep_attributes(self, key: str, overrides: Overrides, expected: Version) -> ObjectMetadata:
        if overrides.xattrs is not None:
            self._manager.primary.set_xattrs(key, overrides.xattrs)
        return self._manager.primary.set_posix_attributes(
            key,
            mode=overrides.mode,
            uid=overrides.uid if MAY_GIVE_AWAY else None,
            gid=overrides.gid if MAY_GIVE_AWAY else None,
            modified_ns=overrides.mtime_ns,
            expected=expected,
        )

    async def _finish(self, staging: StagingFile, written: ObjectMetadata) -> None:
        wishes = self._manager.replication_wishes(written.key, written.content_length)
        if wishes:
            await self._commits.write(FinishedUpload(staging.row, wishes))
            self._on_wishes()
        elif staging.row is not None:
            # The next mount would find out by comparing with the primary: nobody has to wait for this.
            self._commits.write_soon(FinishedUpload(staging.row))
        staging.row = None
        if written.key in self._namespace.deferred:
            await self._run_blocking(self._journal.finish_delete, written.key)

    async def settle(self, inode: Inode) -> None:
        """The last handle is closed: send what is left, then let the staging file go, or keep it if that failed."""
        staging = inode.staging
        if staging is None:
            return
        try:
            await self.flush(inode)
        except OSError as error:
            staging.kept = True
            # What the kernel has in its page cache was written in vain: the next open reads what the primary holds.
            inode.cached_version = None
            log.error(  # noqa: TRY400 - an expected outcome, no traceback
                "%s was not uploaded: %s; its content is kept in %s", inode.key, error, staging.path
            )
        await self.discard(inode)
        if staging.kept:
            self._namespace.written_in_vain(inode)
            self._on_kept()

    async def forget_row(self, staging: StagingFile) -> None:
        """The journal need not know of a failed upload any more: it is going to another key."""
        if staging.row is not None:
            await self._run_blocking(self._journal.drop_upload, staging.row)
            staging.row = None

    async def discard(self, inode: Inode) -> None:
        """Give up an inode's staging file; its row goes too unless it is kept."""
        staging, inode.staging = inode.staging, None
        if staging is None:
            return
        try:
            if staging.row is not None:
                end = self._journal.release_upload if staging.kept else self._journal.drop_upload
                await self._run_blocking(end, staging.row)
        except StorageError as error:
            # Whoever closes it must not be kept from it; the next mount finds out what became of the content.
            log.warning("the journal still has %s in hand: %s", staging.path, error)
        finally:
            self._area.discard(staging)
