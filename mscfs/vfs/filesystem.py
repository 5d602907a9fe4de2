"""The file system: names, handles, reads and writes. It knows trio and no pyfuse3, so it is tested without a kernel.

Errors are OSError (StorageError is one); the FUSE adapter passes on the errno.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass

from mscfs.errors import (
    DirectoryNotEmptyError,
    IsADirectoryKeyError,
    NotADirectoryKeyError,
    NotFoundError,
    ReadOnlyError,
    StorageError,
    VersionMismatchError,
)
from mscfs.journal import Journal
from mscfs.providers.base import Space
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata, Version
from mscfs.vfs.attributes import AttributeMaker, Attributes
from mscfs.vfs.fetcher import Fetcher
from mscfs.vfs.handles import DirectoryHandle, FileHandle, HandleTable
from mscfs.vfs.inodes import MAY_GIVE_AWAY, Inode, InodeTable
from mscfs.vfs.namespace import Namespace, directory_metadata, is_local
from mscfs.vfs.paths import NAME_MAX, check_new_name, to_bytes
from mscfs.vfs.reader import ChunkReader
from mscfs.vfs.renames import rename_object
from mscfs.vfs.staging import StagingArea, StagingFile
from mscfs.vfs.transport import RunBlocking, Transport
from mscfs.vfs.uploads import Uploads

RENAME_NOREPLACE = 1
"""renameat2(2)."""


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


@dataclass(frozen=True, slots=True)
class Owner:
    """Who makes a file."""

    uid: int
    gid: int


class Filesystem:
    """See the module. One trio task for each call; calls on one inode that change it take turns."""

    def __init__(
        self,
        *,
        manager: ReplicaManager,
        journal: Journal,
        transport: Transport,
        namespace: Namespace,
        fetcher: Fetcher,
        uploads: Uploads,
        area: StagingArea,
        attributes: AttributeMaker,
        run_blocking: RunBlocking,
        page_cache: bool,
        read_only: bool,
        forget_cached: Callable[[str], None] | None,
        on_wishes: Callable[[], None],
    ) -> None:
        self.manager = manager
        self.namespace = namespace
        self.handles = HandleTable()
        self._journal = journal
        self._transport = transport
        self._table: InodeTable = namespace.table
        self._fetcher = fetcher
        self._uploads = uploads
        self._area = area
        self._attributes = attributes
        self._run_blocking = run_blocking
        self._page_cache = page_cache
        self._read_only = read_only
        self._forget_cached = forget_cached
        self._on_wishes = on_wishes

    # -- names ----------------------------------------------------------------------------------------------------

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

    async def remove_directory(self, parent: int, name: str) -> None:
        """Remove an empty directory; ENOTEMPTY."""
        self._check_writable()
        directory = self._directory(parent)
        inode = await self.namespace.lookup(directory, name)
        if not inode.is_directory:
            raise NotADirectoryKeyError("not a directory", key=inode.key)
        if not self.namespace.is_empty_here(inode):
            raise DirectoryNotEmptyError("the directory is not empty", key=inode.key)
        for key in [key for key in self.namespace.deferred if key.startswith(inode.key)]:
            await self._delete_deferred(key)
        await self._run_blocking(self.manager.remove_directory, inode.key)
        self._on_wishes()
        self.namespace.removed(directory, name)
        self._table.detach(inode)

    async def unlink(self, parent: int, name: str) -> None:
        """Take a name away. Open handles keep reading; the object goes when the last of them closes (W8)."""
        self._check_writable()
        directory = self._directory(parent)
        inode = await self.namespace.lookup(directory, name)
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
            self._table.drop_if_idle(inode)

    async def rename(self, parent: int, name: str, new_parent: int, new_name: str, flags: int) -> None:
        """Rename a file or link, replacing a file of the new name.

        Directories are refused with EXDEV: mv(1) and shutil.move then copy. RENAME_EXCHANGE is EINVAL.
        """
        self._check_writable()
        if flags & ~RENAME_NOREPLACE:
            raise OSError(errno.EINVAL, "only RENAME_NOREPLACE is supported")
        source_directory, target_directory = self._directory(parent), self._directory(new_parent)
        self._check_name(new_name)
        inode = await self.namespace.lookup(source_directory, name)
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
            self.namespace.removed(source_directory, name)
            self._keep_directory(source_directory)
            self._table.move(inode, target_directory, new_name)
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

    # -- files ----------------------------------------------------------------------------------------------------

    async def open(self, number: int, flags: int) -> tuple[int, bool]:
        """Open a file; returns the handle and whether the kernel may keep the file's cached pages.

        The version is settled here (R1, R2). When it changed since the kernel last looked, ESTALE makes the kernel look
        the name up again and open what is there now.
        """
        inode = self._table[number]
        if inode.is_directory:
            raise IsADirectoryKeyError("is a directory", key=inode.key)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self._check_writable()
        direct = bool(flags & os.O_DIRECT)
        if (direct or not self.namespace.is_fresh(inode)) and not await self.namespace.revalidate(inode):
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
        self._check_name(name)
        existing = directory.children.get(name)
        if existing is not None:
            if flags & os.O_EXCL:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            handle, keep = await self.open(existing.number, flags)
            return handle, keep, self._referenced(existing)
        placeholder = None
        if flags & os.O_EXCL:
            if directory.key + name in self.namespace.deferred:
                await self._delete_deferred(directory.key + name)
            placeholder = await self._run_blocking(self._create_exclusively, directory.key + name)
        if placeholder is not None:
            staging = self._area.create("update", placeholder.version)
        else:
            staging = self._area.create("replace", None)
        staging.touch()
        inode = self._table.add(directory, name, stat.S_IFREG)
        inode.staging = staging
        overrides = inode.overrides
        overrides.mode, overrides.uid, overrides.gid, overrides.mtime_ns = mode, owner.uid, owner.gid, time.time_ns()
        self.namespace.changed(inode, placeholder)
        handle, keep = self._opened(inode, flags)
        return handle, keep, self._referenced(inode)

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
        try:
            return await handle.reader.read(offset, size)
        except (NotFoundError, VersionMismatchError) as error:
            raise VersionMismatchError(
                "no store holds the version that was opened any more", store=error.store, key=inode.key
            ) from error

    async def write(self, handle_number: int, offset: int, data: bytes) -> int:
        """Write to the staging file; ENOSPC here when there is no room."""
        inode = self.handles.file(handle_number).inode
        async with inode.lock:
            staging = await self._staging(inode)
            self._area.reserve(staging, offset + len(data))
            written = staging.write(offset, data)
        inode.overrides.mtime_ns = time.time_ns()
        return written

    async def flush(self, handle_number: int) -> None:
        """close(2) of one descriptor: the primary holds what was written, or the store's error (W1)."""
        await self._uploads.flush(self.handles.file(handle_number).inode)

    async def fsync(self, handle_number: int) -> None:
        """As flush."""
        await self._uploads.flush(self.handles.file(handle_number).inode)

    async def release(self, handle_number: int) -> None:
        """The last descriptor of a handle is gone. Errors reach nobody: what fails is kept and logged."""
        handle = self.handles.file(handle_number)
        inode = handle.inode
        self.handles.remove(handle_number)
        if handle.writable:
            inode.writers -= 1
        if len(inode.handles) == 1:
            # Still counted as open, so that the inode outlives the upload.
            if inode.deleted:
                await self._uploads.discard(inode)
            else:
                await self._uploads.settle(inode)
        inode.handles.discard(handle)
        if handle.reader is not None:
            handle.reader.close()
            if not inode.handles and self._forget_cached is not None:
                self._forget_cached(handle.reader.target.digest)
        if not inode.handles and inode.detached and inode.key in self.namespace.deferred:
            await self._delete_deferred(inode.key)
        self._table.drop_if_idle(inode)

    async def set_attributes(self, number: int, change: Change) -> Attributes:
        """truncate(2), chmod(2), chown(2), utimensat(2)."""
        self._check_writable()
        inode = self._table[number]
        if change.size is not None:
            await self._truncate(inode, change.size)
        if change.is_kept_by_store or change.atime_ns is not None:
            await self._set_posix_attributes(inode, change)
        return self._attributes_of(inode)

    # -- the whole ------------------------------------------------------------------------------------------------

    async def space(self) -> Space | None:
        """The primary's room; None where it has no bound, or cannot be asked: df must not hang or fail for that."""
        try:
            return await self._run_blocking(self.manager.space)
        except StorageError:
            return None

    async def flush_all(self) -> list[str]:
        """Upload everything dirty (shutdown); returns the keys that could not be."""
        failed = []
        for inode in self._table:
            try:
                await self._uploads.flush(inode)
            except StorageError:
                failed.append(inode.key)
        return failed

    def keep_staged(self) -> None:
        """The deadline passed: what is still dirty stays on disk for the next mount."""
        for inode in self._table:
            if inode.staging is not None and inode.staging.dirty and not inode.deleted:
                inode.staging.kept = True

    def key_of(self, number: int) -> str:
        """The key of an inode."""
        return self._table[number].key

    # -- inside ---------------------------------------------------------------------------------------------------

    def _directory(self, number: int) -> Inode:
        inode = self._table[number]
        if not inode.is_directory:
            raise NotADirectoryKeyError("not a directory", key=inode.key)
        return inode

    def _attributes_of(self, inode: Inode) -> Attributes:
        timeout = self.namespace.ttl if is_local(inode) else self.namespace.remaining(inode)
        return self._attributes.of(inode, timeout)

    def _referenced(self, inode: Inode) -> Attributes:
        inode.lookups += 1
        return self._attributes_of(inode)

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError("the mount is read-only")

    def _check_name(self, name: str) -> None:
        if len(to_bytes(name)) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
        check_new_name(name, binary_keys=self.manager.capabilities.binary_keys)

    async def _vacant(self, parent: int, name: str) -> Inode:
        """The directory in which `name` is free to be made."""
        self._check_writable()
        directory = self._directory(parent)
        self._check_name(name)
        if await self._lookup_or_none(directory, name) is not None:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        return directory

    async def _lookup_or_none(self, directory: Inode, name: str) -> Inode | None:
        try:
            return await self.namespace.lookup(directory, name)
        except FileNotFoundError:
            return None

    def _opened(self, inode: Inode, flags: int) -> tuple[int, bool]:
        handle = FileHandle(inode, flags)
        keep = True
        if inode.staging is None and inode.metadata is not None:
            token = inode.metadata.version.token
            keep = self._page_cache and inode.cached_version == token
            inode.cached_version = token
            if not handle.writable:
                handle.reader = self._pinned(inode)
                handle.reader.start()
        inode.handles.add(handle)
        if handle.writable:
            inode.writers += 1
        return self.handles.add(handle), keep

    def _pinned(self, inode: Inode) -> ChunkReader:
        if inode.metadata is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return ChunkReader(self._fetcher, self._fetcher.pin(inode.key, inode.metadata.version))

    def _repin(self, inode: Inode) -> None:
        """The object has a new version or key made here: handles on this mount see their own writes."""
        for handle in inode.handles:
            assert isinstance(handle, FileHandle)
            if handle.reader is not None:
                handle.reader.close()
                handle.reader = None

    def _create_exclusively(self, key: str) -> ObjectMetadata:
        return self.manager.primary.put(key, b"", if_absent=True)

    def _rename_object(self, source: str, target: str, version: Version, no_replace: bool) -> ObjectMetadata:
        return rename_object(self.manager, self._journal, source, target, version, no_replace=no_replace)

    def _lost_name(self, directory: Inode, inode: Inode) -> None:
        inode.deleted = True
        self.namespace.removed(directory, inode.name)
        self._table.detach(inode)
        self._keep_directory(directory)

    def _keep_directory(self, directory: Inode) -> None:
        """A directory whose last key is taken away here does not vanish under the program that does so."""
        if directory.parent is not None and not self.manager.capabilities.real_directories:
            directory.sticky = True

    async def _delete_deferred(self, key: str) -> None:
        version = self.namespace.deferred.pop(key, None)
        try:
            await self._run_blocking(self._delete_and_finish, key, version)
        except StorageError:
            # The journal still has it: the next mount carries it out.
            self.namespace.deferred[key] = version
            raise
        self._on_wishes()

    def _delete_and_finish(self, key: str, version: Version | None) -> None:
        try:
            self.manager.primary.delete(key, expected=version)
        except VersionMismatchError:
            self._journal.finish_delete(key)  # somebody wrote it anew: not ours to remove
            return
        self._journal.finish_delete(key, self.manager.deletion_wishes(key))

    async def _staging(self, inode: Inode) -> StagingFile:
        """The staging file of an inode, filled with its present content first. The caller holds the inode's lock."""
        if inode.staging is not None:
            return inode.staging
        version = inode.metadata.version if inode.metadata is not None else None
        staging = self._area.create("update" if version else "replace", version)
        try:
            if version is not None and version.size:
                await self._transport.download(inode.key, version, staging.path)
                staging.filled()
        except BaseException:
            self._area.discard(staging)
            raise
        inode.staging = staging
        self._repin(inode)
        return staging

    async def _truncate(self, inode: Inode, size: int) -> None:
        if inode.is_directory:
            raise IsADirectoryKeyError("is a directory", key=inode.key)
        async with inode.lock:
            if size == 0 and inode.staging is None:
                base = inode.metadata.version if inode.metadata is not None else None
                inode.staging = self._area.create("replace", base)
                self._repin(inode)
            staging = await self._staging(inode)
            if size == 0:
                staging.mode = "replace"
            self._area.reserve(staging, size)
            staging.truncate(size)
            inode.overrides.mtime_ns = time.time_ns()
        if not inode.handles:
            # truncate(2) by path: there is no close() that could bring it home.
            await self._uploads.flush(inode)
            await self._uploads.discard(inode)

    async def _set_posix_attributes(self, inode: Inode, change: Change) -> None:
        overrides = inode.overrides
        if change.mode is not None:
            overrides.mode = stat.S_IMODE(change.mode)
        if change.uid is not None:
            overrides.uid = change.uid
        if change.gid is not None:
            overrides.gid = change.gid
        if change.atime_ns is not None:
            overrides.atime_ns = change.atime_ns
        if change.mtime_ns is not None:
            overrides.mtime_ns = change.mtime_ns
        stored = (
            inode.metadata is not None
            and not inode.detached
            and not (inode.staging is not None and inode.staging.dirty)
        )
        if not (stored and change.is_kept_by_store and self.manager.capabilities.posix_attributes):
            return
        if inode.kind == stat.S_IFLNK:
            return
        async with inode.lock:
            before = inode.metadata
            written = await self._run_blocking(self._keep_attributes, inode.key, change)
            self._on_wishes()
            self.namespace.changed(inode, written)
            if before is not None and inode.cached_version == before.version.token:
                inode.cached_version = written.version.token
            if inode.staging is not None:
                inode.staging.base = written.version
            self._repin(inode)

    def _keep_attributes(self, key: str, change: Change) -> ObjectMetadata:
        return self.manager.set_posix_attributes(
            key, mode=change.mode, uid=change.uid, gid=change.gid, modified_ns=change.mtime_ns
        )
