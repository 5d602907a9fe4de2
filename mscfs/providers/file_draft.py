"""A file that is being written: without a name, or hidden under a reserved one, until it appears as a whole."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
import time
from contextlib import suppress
from types import TracebackType
from typing import Self

from mscfs.errors import (
    AlreadyExistsError,
    IntegrityError,
    InvalidKeyError,
    IsADirectoryKeyError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.beneath import DRAFT_PREFIX, DRAFT_SUFFIX, is_draft, locked
from mscfs.providers.file_xattrs import copy_xattrs
from mscfs.types import Version, representable

COARSEST_TIME = 2_000_000_000
"""Nanoseconds: FAT counts in steps of two seconds."""

_COPY_PIECE = 64 << 20
_READ_PIECE = 1 << 20
_NO_UNNAMED_FILES = frozenset({errno.ENOTSUP, errno.EISDIR, errno.EINVAL, errno.ENOENT})
_FUTURE = 3600 * 1_000_000_000
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


def draft_name() -> str:
    """A new reserved name."""
    return f"{DRAFT_PREFIX}{secrets.token_hex(8)}{DRAFT_SUFFIX}"


def version_of(status: os.stat_result) -> Version:
    """The identity of a file: a replacement has another inode and a later time, a change in place a later time."""
    return Version(status.st_size, f"{status.st_mtime_ns:x}-{status.st_ino:x}", representable(status.st_mtime_ns))


class Draft:
    """A new file for `name` in an opened directory. Leaving the context without `publish` throws it away.

    It takes the mode and owner of the file it will replace (`replaced`), or those of any new file. A crash leaves
    nothing where the file system has unnamed files; elsewhere a hidden file, unlocked, that `sweep` removes. The
    directory's descriptor belongs to the draft from now on.
    """

    def __init__(self, directory: int, name: str, *, store: str, key: str) -> None:
        self._directory = directory
        self._name = name
        self._store = store
        self._key = key
        self._hidden = ""
        """The draft's name while it has one."""
        try:
            before = _status(directory, name)
            self.replaced = before if before is not None and stat.S_ISREG(before.st_mode) else None
            # Secret until it has the mode of the file it replaces; the umask decides for a new one.
            self.descriptor = self._create(0o600 if self.replaced else 0o666)
        except BaseException:
            os.close(directory)
            raise
        try:
            # Tells `sweep` that somebody is writing; without locks a sweep finds nothing to remove either.
            with suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if self.replaced is not None:
                _keep_owner_and_mode(self.descriptor, self.replaced)
                copy_xattrs(directory, name, self.descriptor)
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """All of `data` at `offset`."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.descriptor, view, offset)
            view = view[written:]
            offset += written

    def append_from(self, source: int, offset: int, size: int) -> None:
        """`size` bytes of another descriptor, from its `offset`, at our position: shared or copied by the kernel."""
        while size:
            try:
                copied = os.copy_file_range(source, self.descriptor, min(size, _COPY_PIECE), offset_src=offset)
            except OSError:
                # Between file systems, or where the kernel cannot; a full disk says so again.
                piece = os.pread(source, min(size, _READ_PIECE), offset)
                copied = os.write(self.descriptor, piece)
            if not copied:
                raise IntegrityError("the file shrank while it was copied", store=self._store, key=self._key)
            offset += copied
            size -= copied

    def publish(
        self, *, if_absent: bool = False, expected: Version | None = None, keeps_time: bool = False
    ) -> os.stat_result:
        """Make the file appear under its name, durably, and return its status.

        Unless it `keeps_time`, it becomes later than the file it replaces, if only by a little. AlreadyExistsError,
        VersionMismatchError: conditions as in `StorageProvider.put`; nothing has changed then.
        """
        os.fsync(self.descriptor)
        with locked(self._directory, store=self._store):
            present = _status(self._directory, self._name)
            if present is not None and stat.S_ISDIR(present.st_mode):
                raise IsADirectoryKeyError("is a directory", store=self._store, key=self._key)
            if expected is not None and (present is None or version_of(present) != expected):
                raise VersionMismatchError("the file has changed", store=self._store, key=self._key)
            if if_absent and present is not None:
                raise AlreadyExistsError("the file exists", store=self._store, key=self._key)
            if present is not None and not keeps_time:
                _make_later(self.descriptor, present.st_mtime_ns)
            try:
                self._appear(new=if_absent)
            except FileNotFoundError:
                message = "the directory was removed while a file in it was written"
                raise StoreUnavailableError(message, store=self._store, key=self._key) from None
            status = os.fstat(self.descriptor)
        os.fsync(self._directory)
        return status

    def close(self) -> None:
        """Give the descriptors back; an unpublished draft is removed."""
        try:
            if self._hidden:
                os.unlink(self._hidden, dir_fd=self._directory)
        finally:
            os.close(self.descriptor)
            os.close(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _create(self, mode: int) -> int:
        try:
            return os.open(".", os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, mode, dir_fd=self._directory)
        except OSError as error:
            if error.errno not in _NO_UNNAMED_FILES:
                raise
        hidden = draft_name()
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(hidden, flags, mode, dir_fd=self._directory)
        self._hidden = hidden
        return descriptor

    def _appear(self, *, new: bool) -> None:
        if new and self._appear_as_new():
            return
        if not self._hidden:
            hidden = draft_name()
            self._link(hidden)
            self._hidden = hidden
        os.replace(self._hidden, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._hidden = ""

    def _appear_as_new(self) -> bool:
        """Appear by link(2): exclusive also against programs that do not know our lock. False: there are no links."""
        try:
            self._link(self._name)
        except FileExistsError:
            raise AlreadyExistsError("the file exists", store=self._store, key=self._key) from None
        except OSError as error:
            if not self._hidden or error.errno not in _NO_LINKS:
                raise
            return False
        return True

    def _link(self, name: str) -> None:
        if self._hidden:
            os.link(self._hidden, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        else:
            os.link(f"/proc/self/fd/{self.descriptor}", name, dst_dir_fd=self._directory, follow_symlinks=True)


def make_link(directory: int, name: str, target: str, *, if_absent: bool, store: str, key: str) -> None:
    """Make a symbolic link, durably; what is there is replaced in one step, unless `if_absent`."""
    if not target or "\0" in target:
        raise InvalidKeyError("a symbolic link needs a target without NUL", store=store, key=key)
    with locked(directory, store=store):
        if if_absent and _status(directory, name) is not None:
            raise AlreadyExistsError("the file exists", store=store, key=key)
        hidden = draft_name()
        os.symlink(target, hidden, dir_fd=directory)
        try:
            os.replace(hidden, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(hidden, dir_fd=directory)
            raise
    os.fsync(directory)


def sweep(directory: int) -> None:
    """Remove what crashed writers left in a directory: nobody holds the lock of it."""
    for name in os.listdir(directory):
        if not is_draft(name):
            continue
        with suppress(OSError):  # published, thrown away or being written meanwhile
            if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=directory)
                continue
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=directory)
            finally:
                os.close(descriptor)


def _status(directory: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _keep_owner_and_mode(descriptor: int, replaced: os.stat_result) -> None:
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (replaced.st_uid, replaced.st_gid):
        # Only root may give files away; else the new owner is who wrote it.
        with suppress(PermissionError):
            os.fchown(descriptor, replaced.st_uid, replaced.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(replaced.st_mode) & 0o777)


def _make_later(descriptor: int, replaced_ns: int) -> None:
    """Give a file a time after that of the file it replaces, where clock or file system make them equal.

    Inodes are used again: two versions of one name must not share their time as well.
    """
    now = time.time_ns()
    if replaced_ns > now + _FUTURE:
        return  # somebody's choice; not to be carried on
    for step in (0, 1, COARSEST_TIME):
        if step:
            os.utime(descriptor, ns=(now, replaced_ns + step))
            os.fsync(descriptor)
        if os.fstat(descriptor).st_mtime_ns > replaced_ns:
            return
