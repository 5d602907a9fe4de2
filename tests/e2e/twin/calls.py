"""The calls: each is made on one root directory, as one user, and says what a program would see."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
LONG_AGO = 1_000_000_000
"""Times before are somebody's choice and compared, in seconds; later ones are the clock's."""


@dataclass(frozen=True)
class Result:
    """What a call gave: a value, or the name of an errno."""

    value: Any = None
    error: str = ""


@dataclass
class Side:
    """One of the two directories, for one user: its open files by number, and how to take back the last call."""

    root: Path
    files: dict[int, int] = field(default_factory=dict)
    undo: tuple[Any, ...] | None = None
    """A call and its arguments."""

    def at(self, path: str) -> str:
        return str(self.root / path)

    def close_all(self) -> None:
        for descriptor in self.files.values():
            os.close(descriptor)
        self.files.clear()


def perform(side: Side, name: str, arguments: tuple[Any, ...]) -> Result:
    """Make one call."""
    side.undo = None
    try:
        return Result(CALLS[name](side, *arguments))
    except OSError as error:
        return Result(error=errno.errorcode.get(error.errno or 0, str(error.errno)))
    except KeyError:
        return Result(error="no such open file")


Data = tuple[str, int]
"""A character, and how often: short to print."""


def content(data: Data) -> bytes:
    return data[0].encode() * data[1]


def status(found: os.stat_result) -> tuple[str, tuple[tuple[str, object], ...]]:
    kind = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "link"}.get(stat.S_IFMT(found.st_mode), "")
    details: dict[str, object] = {
        "mode": oct(stat.S_IMODE(found.st_mode)),
        "owner": (found.st_uid, found.st_gid),
        "links": found.st_nlink,
    }
    if kind != "directory":  # what is taken back changes its time
        details["size"] = found.st_size
        details["mtime"] = found.st_mtime_ns if found.st_mtime < LONG_AGO else "now"
    return kind, tuple(sorted(details.items()))


def open_(side: Side, file: int, path: str, flags: int, mode: int) -> None:
    descriptor = os.open(side.at(path), flags | os.O_CLOEXEC, mode)
    old = side.files.pop(file, None)
    side.files[file] = descriptor
    if old is not None:
        os.close(old)


def close(side: Side, file: int) -> None:
    os.close(side.files.pop(file))


def duplicate(side: Side, file: int) -> None:
    """A descriptor of its own, closed at once: flushes, and closes nothing."""
    os.close(os.dup(side.files[file]))


def write_file(side: Side, path: str, data: Data, extra: int) -> None:
    descriptor = os.open(side.at(path), os.O_WRONLY | os.O_CREAT | extra, 0o666)
    try:
        os.write(descriptor, content(data))
    finally:
        os.close(descriptor)


def read_file(side: Side, path: str) -> bytes:
    descriptor = os.open(side.at(path), os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return os.read(descriptor, 1 << 20)
    finally:
        os.close(descriptor)


def write_mapped(side: Side, file: int, offset: int, data: bytes) -> None:
    descriptor = side.files[file]
    size = os.fstat(descriptor).st_size
    if size < offset + len(data):
        raise OSError(errno.ENXIO, "")
    with mmap.mmap(descriptor, size) as mapped:
        mapped[offset : offset + len(data)] = data
        mapped.flush()


def copy_range(side: Side, source: int, target: int, size: int) -> int:
    return os.copy_file_range(side.files[source], side.files[target], size, 0, 0)


def rename_with(side: Side, source: str, target: str, flags: int) -> None:
    old, new = side.at(source).encode(), side.at(target).encode()
    if LIBC.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags):
        raise OSError(ctypes.get_errno(), "")


def exchange(side: Side, source: str, target: str) -> None:
    rename_with(side, source, target, RENAME_EXCHANGE)
    side.undo = "exchange", source, target


def link(side: Side, source: str, target: str) -> None:
    os.link(side.at(source), side.at(target), follow_symlinks=False)
    side.undo = "unlink", target


def make_fifo(side: Side, path: str) -> None:
    os.mkfifo(side.at(path), 0o600)
    side.undo = "unlink", path


def unnamed(side: Side, path: str) -> None:
    os.close(os.open(side.at(path), os.O_TMPFILE | os.O_RDWR, 0o600))


def allocate(side: Side, file: int, offset: int, size: int) -> None:
    descriptor = side.files[file]
    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY:
        return  # one of the differences, and what the local directory does cannot be taken back
    os.posix_fallocate(descriptor, offset, size)


def list_xattrs(found: list[str]) -> list[str]:
    return sorted(name for name in found if name.startswith("user."))


def list_directory(side: Side, path: str) -> list[tuple[str, bool]]:
    with os.scandir(side.at(path)) as entries:
        return sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)


def list_again(side: Side, path: str) -> list[str]:
    """A directory read, rewound and read again through one descriptor."""
    descriptor = os.open(side.at(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        first = os.listdir(descriptor)
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert sorted(first) == sorted(os.listdir(descriptor))
        return sorted(first)
    finally:
        os.close(descriptor)


def lock_region(side: Side, file: int, how: int, start: int, length: int) -> None:
    fcntl.lockf(side.files[file], how if how == fcntl.LOCK_UN else how | fcntl.LOCK_NB, length, start)


CALLS: dict[str, Callable[..., Any]] = {
    "open": open_,
    "close": close,
    "duplicate": duplicate,
    "read": lambda side, file, size: os.read(side.files[file], size),
    "pread": lambda side, file, size, offset: os.pread(side.files[file], size, offset),
    "write": lambda side, file, data: os.write(side.files[file], content(data)),
    "pwrite": lambda side, file, data, offset: os.pwrite(side.files[file], content(data), offset),
    "lseek": lambda side, file, offset, whence: os.lseek(side.files[file], offset, whence),
    "ftruncate": lambda side, file, size: os.ftruncate(side.files[file], size),
    "fsync": lambda side, file: os.fsync(side.files[file]),
    "fdatasync": lambda side, file: os.fdatasync(side.files[file]),
    "fstat": lambda side, file: _without_links(os.fstat(side.files[file])),
    "fchmod": lambda side, file, mode: os.fchmod(side.files[file], mode),
    "futimens": lambda side, file, when: os.utime(side.files[file], ns=(when, when)),
    "fallocate": allocate,
    "flock": lambda side, file, how: fcntl.flock(side.files[file], how | fcntl.LOCK_NB),
    "lockf": lock_region,
    "mmap": write_mapped,
    "copy_file_range": copy_range,
    "write_file": write_file,
    "read_file": read_file,
    "truncate": lambda side, path, size: os.truncate(side.at(path), size),
    "stat": lambda side, path: status(os.stat(side.at(path))),
    "lstat": lambda side, path: status(os.lstat(side.at(path))),
    "access": lambda side, path, mode: os.access(side.at(path), mode),
    "chmod": lambda side, path, mode: os.chmod(side.at(path), mode),
    "chown": lambda side, path, uid, gid: os.chown(side.at(path), uid, gid),
    "lchown": lambda side, path, uid, gid: os.lchown(side.at(path), uid, gid),
    "utimens": lambda side, path, when: os.utime(side.at(path), ns=(when, when)),
    "mkdir": lambda side, path, mode: os.mkdir(side.at(path), mode),
    "rmdir": lambda side, path: os.rmdir(side.at(path)),
    "unlink": lambda side, path: os.unlink(side.at(path)),
    "rename": lambda side, old, new: os.rename(side.at(old), side.at(new)),
    "noreplace": lambda side, old, new: rename_with(side, old, new, RENAME_NOREPLACE),
    "exchange": exchange,
    "symlink": lambda side, target, path: os.symlink(target, side.at(path)),
    "readlink": lambda side, path: os.readlink(side.at(path)),
    "link": link,
    "mknod": lambda side, path: os.mknod(side.at(path), 0o640 | stat.S_IFREG),
    "mkfifo": make_fifo,
    "tmpfile": unnamed,
    "listdir": list_directory,
    "rewinddir": list_again,
    "statvfs": lambda side, path: os.statvfs(side.at(path)).f_namemax,
    "setxattr": lambda side, path, name, value, flags: os.setxattr(side.at(path), name, value, flags),
    "getxattr": lambda side, path, name: os.getxattr(side.at(path), name),
    "removexattr": lambda side, path, name: os.removexattr(side.at(path), name),
    "listxattr": lambda side, path: list_xattrs(os.listxattr(side.at(path))),
    "fsetxattr": lambda side, file, name, value, flags: os.setxattr(side.files[file], name, value, flags),
    "fgetxattr": lambda side, file, name: os.getxattr(side.files[file], name),
    "flistxattr": lambda side, file: list_xattrs(os.listxattr(side.files[file])),
}


def _without_links(found: os.stat_result) -> object:
    """An open file may have lost its name."""
    kind, details = status(found)
    return kind, tuple(item for item in details if item[0] != "links")
