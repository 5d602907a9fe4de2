"""Every error mscfs raises on purpose.

    MscfsError
    ├── ConfigError                 the configuration cannot be used (exit 78)
    ├── UsageError                  a command was called wrongly (exit 64)
    ├── MountError                  a mount cannot start, stop or be found
    ├── SyncError                   some objects could not be brought to some replicas
    └── StorageError (OSError)      a store, or the file system above it, said no
        ├── NotFoundError           ENOENT   no such key                        (FileNotFoundError)
        ├── AlreadyExistsError      EEXIST   the key must be new and is not     (FileExistsError)
        ├── VersionMismatchError    ESTALE   the object is not the expected version any more
        ├── AccessDeniedError       EACCES   the store refused the credentials  (PermissionError)
        ├── InvalidKeyError         EINVAL   this store cannot hold that key
        │   └── KeyTooLongError     ENAMETOOLONG
        ├── NotADirectoryKeyError   ENOTDIR  a parent of the key is a file      (NotADirectoryError)
        ├── IsADirectoryKeyError    EISDIR   the key is a directory             (IsADirectoryError)
        ├── DirectoryNotEmptyError  ENOTEMPTY
        ├── NoSpaceError            ENOSPC   the store or the disk is full
        ├── QuotaExceededError      EDQUOT
        ├── ReadOnlyError           EROFS
        ├── UnsupportedError        ENOTSUP  this store cannot do that
        ├── IntegrityError          EIO      fewer or other bytes than promised
        └── StoreUnavailableError   EIO      down, throttled or unreachable; trying again may help
            ├── StoreTimeoutError
            └── StoreMissingError   the bucket, container or base directory is not there

Errors are picklable: worker processes send them home.
"""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Sequence
from typing import ClassVar


class MscfsError(Exception):
    """Base of all errors; `exit_code` is what the command line ends with (sysexits.h where one fits)."""

    exit_code: int = 1


class ConfigError(MscfsError, ValueError):
    """The configuration cannot be used; the message names the file and the key path."""

    exit_code = 78


class UsageError(MscfsError, ValueError):
    """A command or call was made with arguments that make no sense together."""

    exit_code = 64


class MountError(MscfsError):
    """A mount cannot start, stop or be found."""


class SyncError(MscfsError):
    """Some objects could not be brought to some replicas; everything else was done.

    `failures` are (profile, key, reason), the first ones when there are very many, and `failed` their number.
    `result` is what was done all the same.
    """

    def __init__(self, failures: Sequence[tuple[str, str, str]], failed: int, result: object) -> None:
        super().__init__(failures, failed, result)
        self.failures = tuple(failures)
        self.failed = failed
        self.result = result

    def __str__(self) -> str:
        shown = [": ".join(part for part in failure if part) for failure in self.failures[:3]]
        rest = [f"and {self.failed - 3} more"] if self.failed > 3 else []
        return f"{self.failed} failed: " + "; ".join([*shown, *rest])


class StorageError(MscfsError, OSError):
    """A store said no. `store` is the profile's name, `key` the object; both may be empty."""

    number: ClassVar[int] = errno.EIO
    transient: ClassVar[bool] = False
    """Whether the same call may succeed later: the retrying provider and the journal look here."""
    advice: ClassVar[str] = ""
    """What whoever set an object store up may do about it."""

    def __init__(self, message: str, *, store: str = "", key: str = "") -> None:
        super().__init__(self.number, message)
        self.message = message
        self.store = store
        self.key = key
        if key:
            self.filename = key

    def __str__(self) -> str:
        where = ":".join(part for part in (self.store, self.key) if part)
        return f"{where}: {self.message}" if where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.store, self.key))


def _rebuild(kind: type[StorageError], message: str, store: str, key: str) -> StorageError:
    return kind(message, store=store, key=key)


class NotFoundError(StorageError, FileNotFoundError):
    """No such key."""

    number = errno.ENOENT


class AlreadyExistsError(StorageError, FileExistsError):
    """The key must be new and is not."""

    number = errno.EEXIST


class VersionMismatchError(StorageError):
    """The object is not the expected version any more."""

    number = errno.ESTALE


class AccessDeniedError(StorageError, PermissionError):
    """The store refused the credentials, or they do not allow this."""

    number = errno.EACCES
    exit_code = 77
    advice = "check the credentials and what they allow"


class InvalidKeyError(StorageError):
    """This store cannot hold that key."""

    number = errno.EINVAL


class KeyTooLongError(InvalidKeyError):
    """The key, or one of its names, has more bytes than this store takes."""

    number = errno.ENAMETOOLONG


class NotADirectoryKeyError(StorageError, NotADirectoryError):
    """A parent of the key is a file."""

    number = errno.ENOTDIR


class IsADirectoryKeyError(StorageError, IsADirectoryError):
    """The key is a directory."""

    number = errno.EISDIR


class DirectoryNotEmptyError(StorageError):
    """The directory still holds something."""

    number = errno.ENOTEMPTY


class NoSpaceError(StorageError):
    """The store or the local disk is full."""

    number = errno.ENOSPC


class QuotaExceededError(StorageError):
    """The store's quota is used up."""

    number = errno.EDQUOT


class ReadOnlyError(StorageError):
    """The profile or mount is read-only."""

    number = errno.EROFS


class UnsupportedError(StorageError):
    """This store cannot do that."""

    number = errno.ENOTSUP


class IntegrityError(StorageError):
    """Fewer or other bytes than promised."""

    transient = True


class StoreUnavailableError(StorageError):
    """Down, throttled or unreachable; trying again may help."""

    transient = True
    exit_code = 69
    advice = "check endpoint_url and the network"


class StoreTimeoutError(StoreUnavailableError):
    """No answer in time."""


class StoreMissingError(StoreUnavailableError):
    """The bucket, container or base directory is not there."""

    advice = "create it, or correct base_path"


_NONSENSE = (ValueError, LookupError, AttributeError, TypeError, SyntaxError, AssertionError, RecursionError)
"""What parsing raises: something is lacking, of another kind or nested too deeply; XML's own error is a SyntaxError."""


def from_nonsense(error: Exception) -> tuple[type[StorageError], str] | None:
    """The class and the message for what is raised over an answer that nobody can make sense of; None for others.

    The message tells where it was raised, never what the answer was.
    """
    if not isinstance(error, _NONSENSE) or isinstance(error, MscfsError):
        return None
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{os.path.basename(place.filename)}:{place.lineno}"  # noqa: PTH119 - a name is enough
    return IntegrityError, f"the store's answer makes no sense ({type(error).__name__} at {where})"


_BY_ERRNO: dict[int, type[StorageError]] = {
    errno.ENOENT: NotFoundError,
    errno.EEXIST: AlreadyExistsError,
    errno.ESTALE: VersionMismatchError,
    errno.EACCES: AccessDeniedError,
    errno.EPERM: AccessDeniedError,
    errno.EINVAL: InvalidKeyError,
    errno.ENAMETOOLONG: KeyTooLongError,
    errno.EILSEQ: InvalidKeyError,
    errno.ENOTDIR: NotADirectoryKeyError,
    errno.EISDIR: IsADirectoryKeyError,
    errno.ENOTEMPTY: DirectoryNotEmptyError,
    errno.ENOSPC: NoSpaceError,
    errno.E2BIG: NoSpaceError,  # an extended attribute for which no file has room
    errno.EDQUOT: QuotaExceededError,
    errno.EROFS: ReadOnlyError,
    errno.ENOTSUP: UnsupportedError,
    errno.ETIMEDOUT: StoreTimeoutError,
}


def from_oserror(error: OSError, *, store: str = "", key: str = "") -> StorageError:
    """The StorageError for an operating-system error; what has no class of its own is StoreUnavailableError."""
    if isinstance(error, StorageError):
        return error
    kind = _BY_ERRNO.get(error.errno or 0, StoreUnavailableError)
    message = os.strerror(error.errno) if error.errno else str(error)
    return kind(message, store=store, key=key)
