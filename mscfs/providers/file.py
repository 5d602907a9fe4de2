"""A directory as a store: objects are files, written whole and atomically, never outside of `base_path`."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, BinaryIO

from mscfs.config.values import ProviderConfig
from mscfs.errors import (
    AlreadyExistsError,
    ConfigError,
    InvalidKeyError,
    IsADirectoryKeyError,
    NotADirectoryKeyError,
    NotFoundError,
    VersionMismatchError,
)
from mscfs.providers.base import Capabilities, MultipartUpload, ObjectReader, Source, Space, StorageProvider
from mscfs.providers.beneath import Base, check_path, closing, locked, reopen, storage_errors
from mscfs.providers.file_draft import Draft, sweep, version_of
from mscfs.providers.file_listing import entries, walk
from mscfs.providers.file_metadata import describe, describe_path, read_metadata, write_metadata
from mscfs.providers.file_upload import FileUpload
from mscfs.providers.sources import read_pieces
from mscfs.types import STAMP_KEY, ByteRange, ObjectMetadata, Version

log = logging.getLogger(__name__)

_PIECE = 1 << 20


class FileProvider(StorageProvider):
    """Objects below an absolute `base_path`. A base that is not there is down; it is never made (contract L6).

    A version is size, mtime and inode. User metadata is an extended attribute; where the file system has none it is
    lost, and a copy is then judged by its time, which is its primary's.
    """

    capabilities = Capabilities(real_directories=True, posix_attributes=True, binary_keys=True)

    def __init__(
        self,
        *,
        profile: str = "file",
        options: Mapping[str, Any],
        credentials: ProviderConfig | None = None,
    ) -> None:
        path = str(options.get("base_path", ""))
        if not path.startswith("/"):
            raise ConfigError(f"profile {profile}: base_path of a file store must be an absolute path, not {path!r}")
        self.profile = profile
        self._path = os.path.normpath(path)
        self.identity = f"file://{self._path}"
        self._told_of_metadata = False

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        """Open a file; a symbolic link is followed as long as it stays below the base."""
        self._check(key)
        with storage_errors(store=self.profile, key=key, reading=True), self._base() as base:
            with closing(base.open_path(key, follow=True)) as place:
                if not stat.S_ISREG(os.fstat(place).st_mode):
                    raise NotFoundError("not a file", store=self.profile, key=key)
                descriptor = reopen(place, os.O_RDONLY)
            try:
                status = os.fstat(descriptor)
                if expected is not None and version_of(status) != expected:
                    raise VersionMismatchError("the file has changed", store=self.profile, key=key)
                described = describe(key, status, metadata=_valid(read_metadata(descriptor), status))
                wanted = (byte_range or ByteRange(0, status.st_size)).clip(status.st_size)
                return _FileReader(descriptor, described, wanted, self.profile)
            except BaseException:
                os.close(descriptor)
                raise

    def head(self, key: str) -> ObjectMetadata:
        """A file or symbolic link."""
        self._check(key)
        with storage_errors(store=self.profile, key=key, reading=True), self._base() as base:
            with closing(base.open_path(key, follow=False)) as place:
                return self._described(key, place)

    def _described(self, key: str, place: int) -> ObjectMetadata:
        status = os.fstat(place)
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise NotFoundError("not a file", store=self.profile, key=key)
        described = describe_path(key, place)
        return describe(
            key, status, metadata=_valid(described.metadata or {}, status), symlink_target=described.symlink_target
        )

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        """All files and links below, in the order of object stores."""
        with storage_errors(store=self.profile, key=prefix), self._base() as base:
            yield from walk(base, prefix, start_after)

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        """The entries of one directory."""
        if directory:
            self._check(directory.removesuffix("/"))
        with storage_errors(store=self.profile, key=directory), self._base() as base:
            found = entries(base, directory)
        yield from found

    def has_directory(self, directory: str) -> bool:
        """Whether it is there; the base itself is `""`."""
        try:
            self.head_directory(directory)
        except NotFoundError:
            return False
        return True

    def head_directory(self, directory: str) -> ObjectMetadata:
        """The metadata of a directory; NotFoundError."""
        path = directory.removesuffix("/")
        if path:
            self._check(path)
        with storage_errors(store=self.profile, key=directory, reading=True), self._base() as base:
            with closing(base.open_directory(path)) as opened:
                return describe(directory, os.fstat(opened), metadata={})

    # -- writing ------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        source: Source,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        """Write a hidden file beside the target, force it to disk, rename it into place."""
        with self._draft(key) as draft:
            offset = 0
            for piece in read_pieces(source, store=self.profile, key=key):
                draft.write(piece, offset)
                offset += len(piece)
            return self._publish(draft, key, metadata, if_absent=if_absent, expected=expected)

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        """Begin an upload in parts; they are unnamed files on the same disk."""
        self._check(key)
        with storage_errors(store=self.profile, key=key), self._base():
            pass  # down is told at once

        def publish(parts: Sequence[BinaryIO], if_absent: bool, expected: Version | None) -> ObjectMetadata:
            with self._draft(key) as draft:
                for part in parts:
                    draft.append_from(part.fileno(), 0, os.fstat(part.fileno()).st_size)
                return self._publish(draft, key, metadata, if_absent=if_absent, expected=expected)

        return FileUpload(self._path, publish)

    def copy(
        self, source: str, target: str, *, expected: Version | None = None, if_absent: bool = False
    ) -> ObjectMetadata:
        """Copy, by the kernel where the file system can share the bytes."""
        reader = self.get(source, expected=expected)
        assert isinstance(reader, _FileReader)
        with reader, self._draft(target) as draft:
            draft.append_from(reader.descriptor, 0, reader.byte_range.size)
            metadata = {k: v for k, v in (reader.metadata.metadata or {}).items() if k != STAMP_KEY}
            return self._publish(draft, target, metadata, if_absent=if_absent, expected=None)

    def rename(
        self, source: str, target: str, *, expected: Version | None = None, if_absent: bool = False
    ) -> ObjectMetadata:
        """rename(2): one step; the version stays what it was."""
        self._check(source)
        self._check(target)
        with (
            storage_errors(store=self.profile, key=source),
            self._base() as base,
            closing(base.open_directory(_parent(source))) as from_directory,
            closing(base.make_directory(_parent(target))) as to_directory,
            locked(from_directory, store=self.profile),
        ):
            present = self.head(source)
            if expected is not None and present.version != expected:
                raise VersionMismatchError("the file has changed", store=self.profile, key=source)
            if if_absent and _exists(to_directory, _name(target)):
                raise AlreadyExistsError("the file exists", store=self.profile, key=target)
            os.replace(_name(source), _name(target), src_dir_fd=from_directory, dst_dir_fd=to_directory)
            os.fsync(to_directory)
            os.fsync(from_directory)
        return self.head(target)

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        """Remove a file or link."""
        self._check(key)
        with storage_errors(store=self.profile, key=key), self._base() as base:
            try:
                directory = base.open_directory(_parent(key))
            except (FileNotFoundError, NotADirectoryError):
                return
            with closing(directory), locked(directory, store=self.profile):
                status = _status(directory, _name(key))
                if status is None or stat.S_ISDIR(status.st_mode):
                    return
                if expected is not None and version_of(status) != expected:
                    raise VersionMismatchError("the file has changed", store=self.profile, key=key)
                os.unlink(_name(key), dir_fd=directory)

    def make_directory(self, directory: str) -> None:
        """Make a directory, and its parents."""
        self._check_directory(directory)
        with storage_errors(store=self.profile, key=directory), self._base() as base:
            with closing(base.make_directory(directory.removesuffix("/"))):
                pass

    def remove_directory(self, directory: str) -> None:
        """rmdir(2), after what crashed writers left hidden in it; a directory that is gone is no error."""
        self._check_directory(directory)
        path = directory.removesuffix("/")
        with storage_errors(store=self.profile, key=directory), self._base() as base:
            try:
                with closing(base.open_directory(path)) as opened:
                    sweep(opened)
                with closing(base.open_directory(_parent(path))) as above:
                    os.rmdir(_name(path), dir_fd=above)
            except FileNotFoundError:
                return

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        """Replace the extended attribute; the version stays, unless a stamp sets the time."""
        with self._opened(key) as (descriptor, directory), locked(directory, store=self.profile):
            if expected is not None and version_of(os.fstat(descriptor)) != expected:
                raise VersionMismatchError("the file has changed", store=self.profile, key=key)
            self._tell_of_lost_metadata(kept=write_metadata(descriptor, metadata))
            return describe(key, os.fstat(descriptor), metadata=dict(metadata))

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        """A symbolic link; one that is there is replaced. Never followed out of the base."""
        self._check(key)
        with storage_errors(store=self.profile, key=key), self._base() as base:
            with closing(base.make_directory(_parent(key))) as directory, locked(directory, store=self.profile):
                status = _status(directory, _name(key))
                if status is not None and stat.S_ISDIR(status.st_mode):
                    raise IsADirectoryKeyError("is a directory", store=self.profile, key=key)
                if status is not None:
                    os.unlink(_name(key), dir_fd=directory)
                os.symlink(target, _name(key), dir_fd=directory)
                os.fsync(directory)
        return self.head(key)

    def set_posix_attributes(
        self,
        key: str,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        modified_ns: int | None = None,
    ) -> ObjectMetadata:
        """chmod, chown and utimensat of a file or directory (`""` is the base)."""
        path = key.removesuffix("/")
        if path:
            self._check(path)
        with storage_errors(store=self.profile, key=key), self._base() as base:
            with closing(base.open_path(path or ".", follow=False) if path else os.dup(base.descriptor)) as place:
                name = f"/proc/self/fd/{place}"
                if stat.S_ISLNK(os.fstat(place).st_mode):
                    raise InvalidKeyError("a symbolic link has no attributes", store=self.profile, key=key)
                if uid is not None or gid is not None:
                    os.chown(name, -1 if uid is None else uid, -1 if gid is None else gid)
                if mode is not None:
                    os.chmod(name, stat.S_IMODE(mode))
                if modified_ns is not None:
                    os.utime(name, ns=(modified_ns, modified_ns))
                status = os.fstat(place)
                return describe(key, status, metadata=_valid(read_metadata(name), status))

    def probe(self) -> None:
        """Whether the base is there."""
        with storage_errors(store=self.profile), self._base():
            pass

    def space(self) -> Space:
        """The disk's room."""
        with storage_errors(store=self.profile), self._base() as base:
            found = os.fstatvfs(base.descriptor)
        size = found.f_frsize
        return Space(found.f_blocks * size, found.f_bfree * size, found.f_bavail * size, found.f_files, found.f_ffree)

    # -- inside -------------------------------------------------------------------------------------------------

    def _base(self) -> AbstractContextManager[Base]:
        return Base.opened(self._path, store=self.profile)

    def _check(self, key: str) -> None:
        check_path(key, store=self.profile)

    def _check_directory(self, directory: str) -> None:
        if not directory.endswith("/"):
            raise InvalidKeyError("a directory's key is a name that ends in '/'", store=self.profile, key=directory)
        self._check(directory.removesuffix("/"))

    @contextmanager
    def _draft(self, key: str) -> Iterator[Draft]:
        self._check(key)
        with storage_errors(store=self.profile, key=key), self._base() as base:
            try:
                directory = base.make_directory(_parent(key))
            except NotADirectoryError:
                raise NotADirectoryKeyError("a parent is a file", store=self.profile, key=key) from None
            with Draft(directory, _name(key), store=self.profile, key=key) as draft:
                yield draft

    def _publish(
        self,
        draft: Draft,
        key: str,
        metadata: Mapping[str, str] | None,
        *,
        if_absent: bool,
        expected: Version | None,
    ) -> ObjectMetadata:
        self._tell_of_lost_metadata(kept=write_metadata(draft.descriptor, metadata or {}))
        status = draft.publish(if_absent=if_absent, expected=expected)
        return describe(key, status, metadata=dict(metadata or {}))

    @contextmanager
    def _opened(self, key: str) -> Iterator[tuple[int, int]]:
        """A file, opened for its attributes, and its directory."""
        self._check(key)
        with storage_errors(store=self.profile, key=key, reading=True), self._base() as base:
            with closing(base.open_directory(_parent(key))) as directory:
                with closing(base.open_path(key, follow=False)) as place:
                    if not stat.S_ISREG(os.fstat(place).st_mode):
                        raise NotFoundError("not a file", store=self.profile, key=key)
                    with closing(reopen(place, os.O_RDONLY)) as descriptor:
                        yield descriptor, directory

    def _tell_of_lost_metadata(self, *, kept: bool) -> None:
        if not kept and not self._told_of_metadata:
            self._told_of_metadata = True
            log.warning(
                "%s: %s keeps no extended attributes: copies are judged by size and time", self.profile, self._path
            )


class _FileReader(ObjectReader):
    """Reads by descriptor: the file may be replaced meanwhile, its bytes stay."""

    def __init__(self, descriptor: int, metadata: ObjectMetadata, byte_range: ByteRange, source: str) -> None:
        super().__init__(metadata, byte_range, source=source)
        self.descriptor = descriptor

    def _pieces(self) -> Iterator[bytes | memoryview]:
        offset = self.byte_range.offset
        with storage_errors(store=self.source, key=self.metadata.key):
            while offset < self.byte_range.end:
                piece = os.pread(self.descriptor, min(_PIECE, self.byte_range.end - offset), offset)
                if not piece:
                    break
                offset += len(piece)
                yield piece
            if version_of(os.fstat(self.descriptor)) != self.metadata.version:
                raise VersionMismatchError(
                    "the file was changed in place while it was read", store=self.source, key=self.metadata.key
                )

    def close(self) -> None:
        """Close the file."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        self.close()


def _valid(metadata: Mapping[str, str], status: os.stat_result) -> dict[str, str]:
    """Metadata without a stamp that is not true any more: a copy whose time is another was changed in place."""
    stamped = Version.from_stamp(metadata.get(STAMP_KEY))
    if stamped is None or stamped.modified_ns in {0, status.st_mtime_ns}:
        return dict(metadata)
    return {name: value for name, value in metadata.items() if name != STAMP_KEY}


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _exists(directory: int, name: str) -> bool:
    return _status(directory, name) is not None
