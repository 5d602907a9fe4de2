"""Parts of an open local file, for clients that want a file."""

from __future__ import annotations

import io
import os
from typing import Any

from mscfs.errors import IntegrityError
from mscfs.types import ByteRange


class FileSlice(io.RawIOBase):
    """A part of a local file as a file of its own; threads may share the descriptor, as its position is not used.

    IntegrityError when the file turns out to be shorter.
    """

    def __init__(self, descriptor: int, part: ByteRange) -> None:
        self._descriptor = descriptor
        self._part = part
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._part.size}[whence]
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._part.size - self._position)]
        count = os.preadv(self._descriptor, [view], self._part.offset + self._position)
        if not count and len(view):
            raise IntegrityError("the local file shrank while it was read")
        self._position += count
        return count
