"""A file that is being written: hidden under a reserved name until it appears as a whole."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from contextlib import suppress
from types import TracebackType
from typing import Self

from mscfs.errors import AlreadyExistsError, IntegrityError, IsADirectoryKeyError, VersionMismatchError
from mscfs.providers.beneath import DRAFT_PREFIX, DRAFT_SUFFIX, is_draft, locked
from mscfs.types import Version

_COPY_PIECE = 64 << 20
_READ_PIECE = 1 << 20
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS})


def draft_name() -> str:
    """A new reserved name."""
    return f"{DRAFT_PREFIX}{secrets.token_hex(8)}{DRAFT_SUFFIX}"


def version_of(status: os.stat_result) -> Version:
    """The identity of a file: every replacement has another inode, every change in place another mtime."""
    return Version(status.st_size, f"{status.st_mtime_ns:x}-{status.st_ino:x}", status.st_mtime_ns)


class Draft:
    """A new file for `name` in an opened directory. Leaving the context without `publish` throws it away.

    It takes the mode and owner of the file it will replace, or those of any new file. A crash leaves the hidden file,
    unlocked: `sweep` removes it. The directory descriptor belongs to the draft from now on.
    """

    def __init__(self, directory: int, name: str, *, store: str, key: str) -> None:
        self._directory = directory
        self._name = name
        self._store = store
        self._key = key
        self._hidden = draft_name()
        self._published = False
        try:
            replaced = _status(directory, name)
            keep = replaced is not None and stat.S_ISREG(replaced.st_mode)
            # Secret until it has the mode of the file it replaces; the umask decides for a new one.
            mode = 0o600 if keep else 0o666
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.descriptor = os.open(self._hidden, flags, mode, dir_fd=directory)
        except BaseException:
            os.close(directory)
            raise
        try:
            # Tells `sweep` that somebody is writing; without locks a sweep finds nothing to remove either.
            with suppress(OSError):
                fcntl.flock(self.descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if replaced is not None and keep:
                _keep_owner_and_mode(self.descriptor, replaced)
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
                piece = os.pread(source, min(size, _READ_PIECE), offset)
                copied = os.write(self.descriptor, piece)
            if not copied:
                raise IntegrityError("the file shrank while it was copied", store=self._store, key=self._key)
            offset += copied
            size -= copied

    def publish(self, *, if_absent: bool = False, expected: Version | None = None) -> os.stat_result:
        """Make the file appear under its name, durably, and return its status.

        AlreadyExistsError, VersionMismatchError: conditions as in `StorageProvider.put`; nothing has changed then.
        """
        os.fsync(self.descriptor)
        with locked(self._directory, store=self._store):
            present = _status(self._directory, self._name)
            if present is not None and stat.S_ISDIR(present.st_mode):
                raise IsADirectoryKeyError("is a directory", store=self._store, key=self._key)
            if expected is not None and (present is None or version_of(present) != expected):
                raise VersionMismatchError("the file has changed", store=self._store, key=self._key)
            if not if_absent or not self._link():
                if if_absent and present is not None:
                    raise AlreadyExistsError("the file exists", store=self._store, key=self._key)
                os.replace(self._hidden, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._published = True
            status = os.fstat(self.descriptor)
        os.fsync(self._directory)
        return status

    def close(self) -> None:
        """Give the descriptors back; an unpublished draft is removed."""
        try:
            if not self._published:
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

    def _link(self) -> bool:
        """Appear by link(2): exclusive also against programs that do not know our lock. False: there are no links."""
        try:
            os.link(self._hidden, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except FileExistsError:
            raise AlreadyExistsError("the file exists", store=self._store, key=self._key) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return False
        os.unlink(self._hidden, dir_fd=self._directory)
        return True


def sweep(directory: int) -> bool:
    """Remove the drafts that a crash left in a directory (nobody holds their lock); whether there were any."""
    swept = False
    for name in os.listdir(directory):
        if not is_draft(name):
            continue
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=directory)
                swept = True
            finally:
                os.close(descriptor)
        except OSError:
            continue  # published, discarded or being written
    return swept


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
