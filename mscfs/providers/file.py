"""A directory as a store: objects are files, written whole and atomically, never outside of `base_path`."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from mscfs.config.values import ProviderConfig
from mscfs.errors import (
    AlreadyExistsError,
    ConfigError,
    InvalidKeyError,
    IsADirectoryKeyError,
    KeyTooLongError,
    NotFoundError,
    VersionMismatchError,
)
from mscfs.providers.base import Capabilities, MultipartUpload, Source, Space, StorageProvider
from mscfs.providers.beneath import Base, check_path, closing, locked, reopen, storage_errors
from mscfs.providers.file_base import KnownBase
from mscfs.providers.file_draft import Draft, make_link, sweep, version_of
from mscfs.providers.file_listing import entries, pages, walk
from mscfs.providers.file_metadata import describe, describe_path, read_metadata, type_of, write_metadata
from mscfs.providers.file_reader import FileReader
from mscfs.providers.file_upload import FileUpload
from mscfs.providers.file_xattrs import read_xattrs, write_xattrs
from mscfs.providers.page import Page
from mscfs.providers.sources import read_pieces
from mscfs.types import STAMP_KEY, ByteRange, ObjectMetadata, Version

log = logging.getLogger(__name__)

_LONGEST_PATH = 4095
"""Bytes of a path that the kernel takes."""


class FileProvider(StorageProvider):
    """Objects below an absolute `base_path`. A base that is not there is down; it is never made (contract L6).

    An empty one on another disk than before, the mountpoint of a disk that is not mounted, is down as well.

    A version is size, mtime and inode. User metadata is an extended attribute; where the file system has none it is
    lost, and a copy is then judged by its time, which is its primary's.
    """

    capabilities = Capabilities(real_directories=True, posix_attributes=True, binary_keys=True, streaming=False)

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
        self._known_base = KnownBase(self._path, store=profile)
        self._told_of_metadata = False

    # -- reading ------------------------------------------------------------------------------------------------

    def check_new_key(self, key: str) -> None:
        self._check(key.removesuffix("/"))
        if len(os.fsencode(f"{self._path}/{key}")) > _LONGEST_PATH:
            raise KeyTooLongError(f"the path has more than {_LONGEST_PATH} bytes", store=self.profile, key=key)

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> FileReader:
        """Open a file; a symbolic link is followed as long as it stays below the base."""
        self._check_read(key)
        with (
            storage_errors(store=self.profile, key=key, reading=True),
            self._base() as base,
            closing(base.open_path(key, follow=True)) as place,
        ):
            if not stat.S_ISREG(os.fstat(place).st_mode):
                raise NotFoundError("not a file", store=self.profile, key=key)
            reader = FileReader(reopen(place, os.O_RDONLY), key, byte_range, source=self.profile)
        if expected is not None and reader.metadata.version != expected:
            reader.close()
            raise VersionMismatchError("the file has changed", store=self.profile, key=key)
        return reader

    def head(self, key: str) -> ObjectMetadata:
        """A file or symbolic link."""
        self._check_read(key)
        with (
            storage_errors(store=self.profile, key=key, reading=True),
            self._base() as base,
            closing(base.open_path(key, follow=False)) as place,
        ):
            if type_of(os.fstat(place)) not in {"file", "symlink"}:
                raise NotFoundError("not a file", store=self.profile, key=key)
            return describe_path(key, place)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        """All files and links below, in the order of object stores."""
        with storage_errors(store=self.profile, key=prefix), self._base() as base:
            yield from walk(base, prefix, start_after)

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        """The entries of one directory."""
        if directory:
            self._check(directory.removesuffix("/"))
        with storage_errors(store=self.profile, key=directory), self._base() as base:
            yield from entries(base, directory)

    def list_pages(self, directory: str = "") -> Iterator[Page]:
        """The same in columns."""
        if directory:
            self._check(directory.removesuffix("/"))
        with storage_errors(store=self.profile, key=directory), self._base() as base:
            yield from pages(base, directory)

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
        with (
            storage_errors(store=self.profile, key=directory, reading=True),
            self._base() as base,
            closing(base.open_directory(path)) as opened,
        ):
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
        with storage_errors(store=self.profile, key=key), self._draft(key, expected) as draft:
            offset = 0
            for piece in read_pieces(source, store=self.profile, key=key):
                draft.write(piece, offset)
                offset += len(piece)
            return self._publish(draft, key, metadata, if_absent=if_absent, expected=expected)

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        """Begin an upload in parts, which are written into one draft."""

        def new_draft() -> Draft:
            with storage_errors(store=self.profile, key=key):
                return self._draft(key)

        def publish(draft: Draft, if_absent: bool, expected: Version | None) -> ObjectMetadata:
            return self._publish(draft, key, metadata, if_absent=if_absent, expected=expected)

        return FileUpload(new_draft, publish, store=self.profile, key=key)

    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        """Copy, by the kernel where the file system can share the bytes. A symbolic link is copied as one."""
        self._check_new(target)
        found = self.head(source)
        if found.symlink_target is not None:
            if expected is not None and found.version != expected:
                raise VersionMismatchError("the link has changed", store=self.profile, key=source)
            return self._link(target, found.symlink_target, if_absent=if_absent)
        with (
            self.get(source, expected=expected) as reader,
            storage_errors(store=self.profile, key=target),
            self._draft(target) as draft,
        ):
            draft.append_from(reader.descriptor, 0, reader.byte_range.size)
            reader.check_unchanged()
            if draft.replaced is None:
                os.fchmod(draft.descriptor, stat.S_IMODE(reader.metadata.mode or 0) & 0o777)
            kept = reader.metadata.metadata if metadata is None else metadata
            return self._publish(draft, target, kept, if_absent=if_absent, expected=None)

    def rename(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        """A single step; the version stays what it was."""
        self._check(source)
        self._check_new(target)
        with storage_errors(store=self.profile, key=source), self._base() as base, ExitStack() as held:
            try:
                from_directory = held.enter_context(closing(base.open_directory(_parent(source))))
            except (FileNotFoundError, NotADirectoryError):
                raise NotFoundError("no such file", store=self.profile, key=source) from None
            to_directory = held.enter_context(closing(base.make_directory(_parent(target))))
            for directory in _in_lock_order(from_directory, to_directory):
                held.enter_context(locked(directory, store=self.profile))
            present = self.head(source)
            self._check_version(source, present.version, expected)
            replaced = _status(to_directory, _name(target))
            if replaced is not None and stat.S_ISDIR(replaced.st_mode):
                raise IsADirectoryKeyError("is a directory", store=self.profile, key=target)
            if if_absent and replaced is not None:
                raise AlreadyExistsError("the file exists", store=self.profile, key=target)
            os.replace(_name(source), _name(target), src_dir_fd=from_directory, dst_dir_fd=to_directory)
            os.fsync(to_directory)
            os.fsync(from_directory)
        return self.head(target) if metadata is None else self.set_metadata(target, metadata)

    def rename_directory(self, source: str, target: str) -> None:
        """rename(2): a single step, whatever is below."""
        self._check_directory(source)
        self._check_directory(target)
        self.check_new_key(target)
        old, new = source.removesuffix("/"), target.removesuffix("/")
        with storage_errors(store=self.profile, key=source), self._base() as base, ExitStack() as held:
            above_old = held.enter_context(closing(base.open_directory(_parent(old))))
            above_new = held.enter_context(closing(base.open_directory(_parent(new))))
            for directory in _in_lock_order(above_old, above_new):
                held.enter_context(locked(directory, store=self.profile))
            for swept in (False, True):
                try:
                    os.rename(_name(old), _name(new), src_dir_fd=above_old, dst_dir_fd=above_new)
                    break
                except OSError as error:
                    if swept or error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                        raise
                with closing(base.open_directory(new)) as opened:
                    sweep(opened)
            os.fsync(above_new)
            os.fsync(above_old)

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
                self._check_version(key, version_of(status), expected)
                os.unlink(_name(key), dir_fd=directory)
                os.fsync(directory)

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """Make a directory, and its parents."""
        self._check_directory(directory)
        self.check_new_key(directory)
        with storage_errors(store=self.profile, key=directory), self._base() as base:
            os.close(base.make_directory(directory.removesuffix("/")))

    def remove_directory(self, directory: str) -> None:
        """rmdir(2), after what crashed writers left hidden in it; a directory that is gone is no error."""
        self._check_directory(directory)
        path = directory.removesuffix("/")
        with storage_errors(store=self.profile, key=directory), self._base() as base:
            try:
                with closing(base.open_directory(_parent(path))) as above:
                    try:
                        os.rmdir(_name(path), dir_fd=above)
                    except OSError as error:
                        if error.errno != errno.ENOTEMPTY:
                            raise
                        with closing(base.open_directory(path)) as opened:
                            sweep(opened)
                        os.rmdir(_name(path), dir_fd=above)
                    os.fsync(above)
            except FileNotFoundError:
                return

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        """Replace the extended attribute; the version stays, unless a stamp sets the time."""
        self._check(key)
        with (
            storage_errors(store=self.profile, key=key, reading=True),
            self._base() as base,
            closing(base.open_directory(_parent(key))) as directory,
            locked(directory, store=self.profile),
            closing(base.open_path(key, follow=False)) as place,
        ):
            status = os.fstat(place)
            if not stat.S_ISREG(status.st_mode):
                raise NotFoundError("not a file", store=self.profile, key=key)
            self._check_version(key, version_of(status), expected)
            with closing(reopen(place, os.O_RDONLY)) as descriptor:
                self._write_metadata(descriptor, metadata)
            return describe_path(key, place)

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        """A symbolic link; what is there is replaced. Never followed out of the base."""
        return self._link(key, target, if_absent=False)

    def set_posix_attributes(
        self,
        key: str,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        modified_ns: int | None = None,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        """chmod, chown and utimensat of a file or directory (`""` is the base)."""
        with self._place(key) as place:
            # The magic link stands for what was opened, also for a symbolic link itself.
            name, status = f"/proc/self/fd/{place}", os.fstat(place)
            self._check_version(key, version_of(status), expected)
            if uid is not None or gid is not None:
                os.chown(name, -1 if uid is None else uid, -1 if gid is None else gid)
            if mode is not None and not stat.S_ISLNK(status.st_mode):
                Path(name).chmod(stat.S_IMODE(mode))
            if modified_ns is not None:
                os.utime(name, ns=(status.st_atime_ns, modified_ns))
            return describe_path(key, place)

    def xattrs(self, key: str) -> Mapping[str, bytes]:
        """Of the file itself; none where the file system has none."""
        with self._place(key) as place:
            return read_xattrs(f"/proc/self/fd/{place}")

    def set_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        """One after the other: a crash in between leaves some of them."""
        with self._place(key) as place:
            write_xattrs(f"/proc/self/fd/{place}", xattrs)

    def check_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        """Tried on a file without a name: how many fit is known to the file system alone (ext4 has 4 KiB)."""
        self._check(key)
        with (
            storage_errors(store=self.profile, key=key),
            self._base() as base,
            Draft(base.open_directory(_parent(key)), _name(key), store=self.profile, key=key) as draft,
        ):
            write_xattrs(draft.descriptor, xattrs)

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
        return Base.opened(self._path, store=self.profile, check=self._known_base.check)

    @contextmanager
    def _place(self, key: str) -> Iterator[int]:
        """An O_PATH descriptor of a file, link or directory (`""` is the base)."""
        path = key.removesuffix("/")
        if path:
            self._check(path)
        with (
            storage_errors(store=self.profile, key=key),
            self._base() as base,
            closing(base.open_path(path, follow=False) if path else os.dup(base.descriptor)) as place,
        ):
            status = os.fstat(place)
            if type_of(status) is None or (key.endswith("/") and not stat.S_ISDIR(status.st_mode)):
                raise NotFoundError("no such file", store=self.profile, key=key)
            yield place

    def _check(self, key: str) -> None:
        check_path(key, store=self.profile)

    def _check_new(self, key: str) -> None:
        self._check(key)
        self.check_new_key(key)

    def _check_directory(self, directory: str) -> None:
        if not directory.endswith("/"):
            raise InvalidKeyError("a directory's key is a name that ends in '/'", store=self.profile, key=directory)
        self._check(directory.removesuffix("/"))

    def _check_read(self, key: str) -> None:
        if key.endswith("/"):
            raise NotFoundError("a directory is no object", store=self.profile, key=key)
        self._check(key)

    def _check_version(self, key: str, present: Version, expected: Version | None) -> None:
        if expected is not None and present != expected:
            raise VersionMismatchError("the file has changed", store=self.profile, key=key)

    def _draft(self, key: str, expected: Version | None = None) -> Draft:
        """A draft in the key's directory, which is made where it is missing, unless a version is expected there."""
        self._check_new(key)
        with self._base() as base:
            try:
                directory = base.make_directory(_parent(key)) if expected is None else base.open_directory(_parent(key))
            except FileNotFoundError:
                if expected is None:
                    raise
                raise VersionMismatchError("the file is gone", store=self.profile, key=key) from None
            return Draft(directory, _name(key), store=self.profile, key=key)

    def _publish(
        self,
        draft: Draft,
        key: str,
        metadata: Mapping[str, str] | None,
        *,
        if_absent: bool,
        expected: Version | None,
    ) -> ObjectMetadata:
        # The clock's own time, not the coarser one of the file system: it is half of the version.
        now = time.time_ns()
        os.utime(draft.descriptor, ns=(now, now))
        self._write_metadata(draft.descriptor, metadata or {})
        keeps_time = STAMP_KEY in (metadata or {})
        status = draft.publish(if_absent=if_absent, expected=expected, keeps_time=keeps_time)
        return describe(key, status, metadata=read_metadata(draft.descriptor, status))

    def _link(self, key: str, target: str, *, if_absent: bool) -> ObjectMetadata:
        self._check_new(key)
        with (
            storage_errors(store=self.profile, key=key),
            self._base() as base,
            closing(base.make_directory(_parent(key))) as directory,
        ):
            make_link(directory, _name(key), target, if_absent=if_absent, store=self.profile, key=key)
        return self.head(key)

    def _write_metadata(self, descriptor: int, metadata: Mapping[str, str]) -> None:
        if not write_metadata(descriptor, metadata) and not self._told_of_metadata:
            self._told_of_metadata = True
            log.warning(
                "%s: %s keeps no extended attributes: copies are judged by size and time", self.profile, self._path
            )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _in_lock_order(*directories: int) -> list[int]:
    """Each directory once, in an order that is the same for everybody: nobody waits for one who waits for us."""
    by_identity = {(status.st_dev, status.st_ino): one for one in directories for status in (os.fstat(one),)}
    return [by_identity[identity] for identity in sorted(by_identity)]
