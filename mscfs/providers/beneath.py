"""Opening files below a base directory without ever leaving it (contract L5, L6)."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mscfs.errors import (
    InvalidKeyError,
    KeyTooLongError,
    NotADirectoryKeyError,
    NotFoundError,
    StorageError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    from_oserror,
)

DRAFT_PREFIX = ".mscfs-"
DRAFT_SUFFIX = ".draft"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK_PATIENCE = 10.0
_LOCK_PAUSE = 0.001
_NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK})
_MOST_BYTES_IN_A_NAME = 255


def is_draft(name: str) -> bool:
    """Whether a name is reserved for files that are being written."""
    return name.startswith(DRAFT_PREFIX) and name.endswith(DRAFT_SUFFIX)


def check_path(path: str, *, store: str) -> None:
    """Raise InvalidKeyError for what is no path below a directory: empty segments, `.`, `..`, NUL, reserved names."""
    for segment in path.split("/"):
        if segment in {"", ".", ".."} or "\0" in segment or is_draft(segment):
            raise InvalidKeyError("a directory cannot hold this key", store=store, key=path.replace("\0", "\\0"))
        if len(os.fsencode(segment)) > _MOST_BYTES_IN_A_NAME:
            raise KeyTooLongError(f"a name has more than {_MOST_BYTES_IN_A_NAME} bytes", store=store, key=path)


@contextmanager
def closing(descriptor: int) -> Iterator[int]:
    """The descriptor, closed at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(*, store: str, key: str = "", reading: bool = False) -> Iterator[None]:
    """Errors of the operating system become those of a store. `reading`: below a file there is no such object."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        if reading and error.errno in {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
            raise NotFoundError("no such file", store=store, key=key) from error
        if error.errno == errno.ELOOP:
            raise NotADirectoryKeyError("a parent is a symbolic link", store=store, key=key) from error
        raise from_oserror(error, store=store, key=key) from error


class Base:
    """The opened base directory. Paths are relative to it, already checked with `check_path`; `""` is the base.

    Whatever the names lead to, an opened descriptor is compared with the path it must have: the kernel's own answer
    (`/proc/self/fd`) cannot be raced by somebody who swaps a directory for a symbolic link.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._real = _real_path(descriptor).rstrip("/")

    @classmethod
    @contextmanager
    def opened(cls, path: str, *, store: str, check: Callable[[int], None] = lambda _: None) -> Iterator[Base]:
        """Open the base; StoreMissingError when it is not there: it is never created. `check` may refuse it too."""
        try:
            descriptor = os.open(path, _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreMissingError(f"{path} is no directory: is the disk mounted?", store=store) from None
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
            # Of an object this would say that it has changed.
            raise StoreUnavailableError(f"{path}: {os.strerror(errno.ESTALE)}", store=store) from None
        with closing(descriptor):
            check(descriptor)
            yield cls(descriptor)

    def open_directory(self, path: str) -> int:
        """A directory that is reached without any symbolic link. FileNotFoundError, NotADirectoryError."""
        descriptor = os.open(path or ".", _DIRECTORY | os.O_NOFOLLOW, dir_fd=self.descriptor)
        return self._checked(descriptor, path, below=False)

    def make_directory(self, path: str) -> int:
        """The same, made with its parents where missing (and durable)."""
        missing: list[str] = []
        at = path
        # Not by recursion: a path may have two thousand parts.
        while True:
            try:
                opened = self.open_directory(at)
                break
            except FileNotFoundError:
                if not at:
                    raise
            missing.append(at)
            at = at.rpartition("/")[0]
        while missing:
            at = missing.pop()
            with closing(opened) as above:
                try:
                    os.mkdir(at.rpartition("/")[2], dir_fd=above)
                except FileExistsError:
                    pass  # by somebody else, a moment ago; or a symbolic link, which opening refuses
                else:
                    os.fsync(above)
                opened = self.open_directory(at)
        return opened

    def open_path(self, path: str, *, follow: bool) -> int:
        """A descriptor for looking at what a path names (O_PATH), without opening it: no device or fifo reacts.

        `follow`: through symbolic links, as long as they stay below the base; otherwise none is followed, a link at
        the end is itself what is opened. FileNotFoundError when it leads outside.
        """
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        return self._checked(os.open(path, flags, dir_fd=self.descriptor), path, below=follow)

    def _checked(self, descriptor: int, path: str, *, below: bool) -> int:
        try:
            real = _real_path(descriptor)
            expected = f"{self._real}/{path}" if path else self._real or "/"
            if real == expected or (below and real.startswith(f"{self._real}/")):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        raise FileNotFoundError(2, "reached through a symbolic link, or outside of the base directory", path)


def reopen(descriptor: int, flags: int) -> int:
    """Really open what an O_PATH descriptor names."""
    return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_CLOEXEC)


@contextmanager
def locked(directory: int, *, store: str) -> Iterator[None]:
    """The lock under which the entries of a directory are compared and replaced, between threads and programs.

    StoreTimeoutError after ten seconds: whoever holds it is stuck, and we must not be. Some network file systems have
    no such lock; conditions are then checked just before the change, and creation stays exclusive by link(2).
    """
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreTimeoutError("another program keeps the directory locked", store=store) from None
            time.sleep(_LOCK_PAUSE)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            yield
            return
        else:
            break
    try:
        yield
    finally:
        # Not left to close(2): a child forked meanwhile holds a copy of the descriptor.
        fcntl.flock(directory, fcntl.LOCK_UN)


def _real_path(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a Path would cost more than the call
