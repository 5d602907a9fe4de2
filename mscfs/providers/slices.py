"""Parts of an open local file, for clients that want a file."""

from __future__ import annotations

import io
import os
from typing import Any

from mscfs.errors import IntegrityError
from mscfs.types import ByteRange

PIECE = 1 << 20


class _Body(io.RawIOBase):
    """What a client may ask of a file of `size` bytes beside reading it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position


class FileSlice(_Body):
    """A part of a local file as a file of its own; threads may share the descriptor, as its position is not used.

    `read` gives at least a MiB at a time, where there is so much: HTTP clients ask for 16 KiB and send what they get.

    IntegrityError when the file turns out to be shorter.
    """

    def __init__(self, descriptor: int, part: ByteRange) -> None:
        super().__init__(part.size)
        self._descriptor = descriptor
        self._part = part

    def read(self, size: int = -1) -> bytes:
        rest = self._part.size - self._position
        piece = os.pread(self._descriptor, min(rest, max(size, PIECE)), self._part.offset + self._position)
        if not piece and rest > 0:
            raise IntegrityError("the local file shrank while it was read")
        self._position += len(piece)
        return piece

    def read_all(self) -> bytes:
        """All bytes from the present position on."""
        content = self.read(self._part.size)
        if self._position < self._part.size:
            raise IntegrityError("the local file shrank while it was read")
        return content

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: max(0, self._part.size - self._position)]
        count = os.preadv(self._descriptor, [view], self._part.offset + self._position)
        if not count and len(view):
            raise IntegrityError("the local file shrank while it was read")
        self._position += count
        return count


class WholeBody(_Body):
    """Bytes as a file that gives all of them at once, whatever is asked for: see `FileSlice`."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        super().__init__(len(self._data))

    def read(self, size: int = -1) -> Any:
        rest = self._data[self._position :] if size else self._data[:0]
        self._position += len(rest)
        return rest
