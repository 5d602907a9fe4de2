"""Open files and directories, by the number the kernel knows them under."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TypeVar

from mscfs.types import Version
from mscfs.vfs.inodes import Inode
from mscfs.vfs.listings import Listing
from mscfs.vfs.reader import ChunkReader


@dataclass(eq=False, slots=True)
class FileHandle:
    """One open of a file. `reader` is pinned to the version of the open (R1) and None while staged bytes are read."""

    inode: Inode
    flags: int
    reader: ChunkReader | None = None

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY


def repin(inode: Inode) -> None:
    """The object has a new version or key made here: handles on this mount see their own writes."""
    for handle in inode.handles:
        assert isinstance(handle, FileHandle)
        if handle.reader is not None:
            handle.reader.close()
            handle.reader = None


def reversioned(inode: Inode, before: Version | None, now: Version) -> None:
    """The same content has another version, or key: pages, staged changes and handles go on from it."""
    if before is not None and inode.cached_version == before.token:
        inode.cached_version = now.token
    if inode.staging is not None:
        inode.staging.base = now
    repin(inode)


@dataclass(eq=False, slots=True)
class DirectoryHandle:
    """One open of a directory: the listing that the last rewind began to read, and what is in no listing."""

    inode: Inode
    listing: Listing | None = None
    listed: int = 0
    """Entries of the listing, once it is read to its end."""
    loose: list[Inode] | None = None


Handle = TypeVar("Handle", FileHandle, DirectoryHandle)


class HandleTable:
    """Numbers for handles; numbers are not used twice while mounted."""

    def __init__(self) -> None:
        self._next = 1
        self._handles: dict[int, FileHandle | DirectoryHandle] = {}

    def __len__(self) -> int:
        return len(self._handles)

    def add(self, handle: FileHandle | DirectoryHandle) -> int:
        """The number of a new handle."""
        number = self._next
        self._next += 1
        self._handles[number] = handle
        return number

    def file(self, number: int) -> FileHandle:
        """An open file; OSError EBADF."""
        handle = self._handles.get(number)
        if not isinstance(handle, FileHandle):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def directory(self, number: int) -> DirectoryHandle:
        """An open directory; OSError EBADF."""
        handle = self._handles.get(number)
        if not isinstance(handle, DirectoryHandle):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return handle

    def remove(self, number: int) -> None:
        """Forget a handle."""
        self._handles.pop(number, None)
