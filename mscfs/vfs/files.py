"""Open files: open, create, read, write, flush, release."""

from __future__ import annotations

import errno
import os
import stat
import time
import uuid

from mscfs.errors import IsADirectoryKeyError, NotFoundError, VersionMismatchError
from mscfs.replicas.outage import refuse_in_outage
from mscfs.types import CLAIM_KEY
from mscfs.vfs.attributes import Attributes
from mscfs.vfs.changes import Changes
from mscfs.vfs.core import Owner
from mscfs.vfs.handles import FileHandle
from mscfs.vfs.inodes import Inode
from mscfs.vfs.reader import ChunkReader


class Files(Changes):
    """See the module."""

    async def open(self, number: int, flags: int) -> tuple[int, bool]:
        """Open a file; returns the handle and whether the kernel may keep the file's cached pages.

        The version is settled here (R1, R2). When it changed since the kernel last looked, ESTALE makes the kernel look
        the name up again and open what is there now.
        """
        with self._table[number].used() as inode:
            async with self.namespace.gate.passage(inode):
                return await self._open(inode, flags)

    async def _open(self, inode: Inode, flags: int) -> tuple[int, bool]:
        if inode.is_directory:
            raise IsADirectoryKeyError("is a directory", key=inode.key)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._check_writable()
        while inode.going is not None:
            await inode.going.wait()
            if inode.deleted:
                raise OSError(errno.ESTALE, "the name is another file's by now, or nobody's")
        direct = bool(flags & os.O_DIRECT)
        if (direct or not self.namespace.is_fresh(inode)) and not await self.namespace.revalidate(inode, alone=direct):
            raise OSError(errno.ESTALE, "the file changed since it was looked up")
        handle, keep = self._opened(inode, flags)
        if flags & os.O_TRUNC:
            # The kernel leaves it to us (FUSE_ATOMIC_O_TRUNC): no setattr follows.
            try:
                await self._truncate(inode, 0)
            except BaseException:
                await self.release(handle)
                raise
        return handle, keep

    async def create(self, parent: int, name: str, mode: int, flags: int, owner: Owner) -> tuple[int, bool, Attributes]:
        """Make a file and open it. With O_EXCL the name is taken on the primary now, across hosts (W5)."""
        self._check_writable()
        directory = self._directory(parent)
        self._check_new_name(directory, name)
        async with self.namespace.gate.passage(directory):
            return await self._create(directory, name, mode, flags, owner)

    async def _create(
        self, directory: Inode, name: str, mode: int, flags: int, owner: Owner
    ) -> tuple[int, bool, Attributes]:
        existing = self._table.child(directory, name)
        if existing is not None:
            if flags & os.O_EXCL:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            with existing.used():
                handle, keep = await self._open(existing, flags)
            return handle, keep, self._referenced(existing)
        key = directory.key + name
        await self._vacate(key)
        staging = self._area.create(key, "replace", None)
        placeholder = None
        try:
            if flags & os.O_EXCL:
                refuse_in_outage(self.manager, key)
                # Empty as it is: whoever wants the name too finds it taken.
                placeholder = await self._transport.upload(
                    key, staging.path, metadata=self._claim(), if_absent=True, expected=None
                )
                staging.base, staging.mode = placeholder.version, "update"
            staging.touch()
        except BaseException:
            self._area.discard(staging)
            raise
        inode = self._add(directory, name, stat.S_IFREG)
        inode.staging = staging
        overrides = inode.overrides
        overrides.mode, overrides.uid, overrides.gid = mode, owner.uid, owner.gid
        overrides.changed(time.time_ns())
        self.namespace.changed(inode, placeholder)
        self._names_changed(directory)
        handle, keep = self._opened(inode, flags)
        return handle, keep, self._referenced(inode)

    def _claim(self) -> dict[str, str] | None:
        """What tells our own empty object from another's when a network lost the answer or doubled the request."""
        return None if self.manager.capabilities.real_directories else {CLAIM_KEY: uuid.uuid4().hex}

    async def read(self, handle_number: int, offset: int, size: int) -> bytes | memoryview:
        """Bytes of the version that open() pinned, or of what was written here since.

        ESTALE when no store holds that version any more; EIO within the read deadline when no store answers (R5).
        """
        handle = self.handles.file(handle_number)
        inode = handle.inode
        if inode.staging is not None:
            return inode.staging.read(offset, size)
        if handle.reader is None:
            handle.reader = self._pinned(inode)
        reader = handle.reader
        try:
            return await reader.read(offset, size)
        except (NotFoundError, VersionMismatchError) as error:
            async with inode.lock:
                has_moved = handle.reader is not reader
            if has_moved:
                return await self.read(handle_number, offset, size)
            raise VersionMismatchError(
                "no store holds the version that was opened any more", store=error.store, key=inode.key
            ) from error

    async def write(self, handle_number: int, offset: int, data: bytes) -> int:
        """Write to the staging file; ENOSPC here when there is no room."""
        inode = self.handles.file(handle_number).inode
        self._check_writable()
        async with inode.lock:
            staging = await self._staging(inode)
            self._area.reserve(staging, offset + len(data), len(data))
            written = staging.write(offset, data)
            inode.overrides.changed(time.time_ns())
            self._uploads.written(inode, staging)
            stream = staging.stream
        if stream is not None:
            await stream.wait_for_room()
        return written

    async def flush(self, handle_number: int) -> None:
        """close(2) of one descriptor: the primary holds what was written, or the store's error (W1)."""
        await self._uploads.flush(self.handles.file(handle_number).inode)

    async def fsync(self, handle_number: int) -> None:
        """As flush; what was set on the file is kept as well."""
        inode = self.handles.file(handle_number).inode
        await self._uploads.flush(inode)
        await self._saver.save(inode)

    async def release(self, handle_number: int) -> None:
        """The last descriptor of a handle is gone. Errors reach nobody: what fails is kept and logged."""
        handle = self.handles.file(handle_number)
        inode = handle.inode
        self.handles.remove(handle_number)
        if handle.writable:
            inode.writers -= 1
        try:
            while len(inode.handles) == 1 and inode.staging is not None:
                # Still counted as open, so that the inode outlives the upload. Somebody may truncate it meanwhile.
                if inode.deleted:
                    await self._uploads.discard(inode)
                else:
                    await self._uploads.settle(inode)
        finally:
            inode.handles.discard(handle)
            if handle.reader is not None:
                handle.reader.close(last=not inode.handles)
        try:
            await self._delete_if_unread(inode)
        finally:
            self._table.drop_if_idle(inode)

    def _opened(self, inode: Inode, flags: int) -> tuple[int, bool]:
        handle = FileHandle(inode, flags)
        keep = True
        if inode.staging is None and inode.metadata is not None:
            token = inode.metadata.version.token
            keep = self._page_cache and inode.cached_version == token
            inode.cached_version = token
            if not handle.writable:
                handle.reader = self._pinned(inode)
                if not keep:  # what the kernel has kept nobody asks us for
                    handle.reader.start()
                    if self._siblings is not None:
                        self._siblings.opened(inode)
        inode.handles.add(handle)
        if handle.writable:
            inode.writers += 1
        return self.handles.add(handle), keep

    def _pinned(self, inode: Inode) -> ChunkReader:
        if inode.metadata is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return ChunkReader(self._fetcher, self._fetcher.pin(inode.key, inode.metadata.version))
