"""Reading one version through one handle: what is here at once, the rest when its bytes arrive."""

from __future__ import annotations

from dataclasses import dataclass

import trio

from mscfs.errors import StorageError
from mscfs.vfs.buffers import Buffer
from mscfs.vfs.fetcher import Fetcher
from mscfs.vfs.pinned import PinnedObject
from mscfs.vfs.readahead import FIRST_WINDOW, ReadAhead

LONG_WAIT = 0.5
REPEATED_WITHIN = 1.0
"""A read that failed after so long a wait fails again at once when it is repeated within so many seconds: the kernel
asks for a page anew when its read-ahead failed, and a program would wait for the deadline (R5) twice.
"""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Bytes that no store delivered in time."""

    offset: int
    end: int
    error: StorageError
    remembered_until: float


class ChunkReader:
    """The reads of one handle. All chunks are of the pinned version (R1)."""

    def __init__(self, fetcher: Fetcher, target: PinnedObject) -> None:
        self.target = target
        self._fetcher = fetcher
        self._ahead = ReadAhead()
        self._failures: list[_Failure] = []

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Exactly the bytes asked for, short only at the end of the object.

        Everything that is here is answered without giving way to another task. What is returned may be a slice of
        memory that is used again: it is good until the caller gives way.
        """
        end = min(offset + size, self.target.version.size)
        if offset >= end:
            return b""
        buffers = self._fetcher.buffers
        buffer = self._buffer_with(offset, end)
        if buffer is not None:
            buffer.pins += 1  # read-ahead may look for memory
            self._read_ahead(offset, end, stalled=False)
            buffers.unpin(buffer)
            return buffers.slice(buffer, offset, end)
        answer = self._on_disk(offset, end)
        if answer is None:
            if self._failures:
                self._refuse_repetition(offset, end)
            chunk_size = self.target.chunk_size
            first, last = offset // chunk_size, (end - 1) // chunk_size
            self._fetcher.start(self.target, first, last + 1 - first, foreground=True)
        self._read_ahead(offset, end, stalled=answer is None and self._is_lacking(end))
        return answer if answer is not None else await self._gathered(offset, end)

    def start(self) -> None:
        """Begin to fetch a small object before the first read asks for it; nothing ever reads an empty one."""
        if not self.target.version.size:
            self._fetcher.look(self.target)
        elif self.target.version.size <= max(FIRST_WINDOW, self.target.chunk_size):
            self._fetcher.start(self.target, 0, self.target.chunk_count, foreground=True)

    def close(self, *, last: bool = True) -> None:
        """Give back what was fetched ahead; `last`: no other handle reads this object."""
        if not self.target.is_used:
            return
        self._ahead.rest()
        self._fetcher.reads_ahead(self, active=False)
        if last:
            self._fetcher.closed(self.target)

    def _buffer_with(self, offset: int, end: int) -> Buffer | None:
        """The buffer that has all of these bytes."""
        buffer = self._fetcher.buffers.find(self.target.digest, offset // self.target.chunk_size)
        return buffer if buffer is not None and buffer.end >= end and buffer.has(end) else None

    def _on_disk(self, offset: int, end: int) -> bytes | memoryview | None:
        """The bytes, if they are in one chunk on disk that is in no buffer."""
        index, begin = divmod(offset, self.target.chunk_size)
        size = end - offset
        if begin + size > self.target.chunk_size or self._fetcher.buffers.find(self.target.digest, index) is not None:
            return None
        return self._fetcher.read_on_disk(self.target, index, begin, begin + size)

    def _is_lacking(self, end: int) -> bool:
        """Whether the last byte of a read is not here yet: bytes arrive in order."""
        buffer = self._fetcher.buffers.find(self.target.digest, (end - 1) // self.target.chunk_size)
        return buffer is not None and not buffer.has(end)

    def _read_ahead(self, offset: int, end: int, *, stalled: bool) -> None:
        """Fetch ahead of a sequential reader."""
        fetcher, target = self._fetcher, self.target
        window = self._ahead.window(offset, end)
        if window is None or end >= target.version.size:
            return
        fetcher.reads_ahead(self, active=True)
        ahead = window.advance(end, stalled=stalled, limit=fetcher.window_limit)
        if ahead is None:
            return
        first, last = -(-ahead[0] // target.chunk_size), -(-ahead[1] // target.chunk_size)
        if last <= first:
            return
        reached = fetcher.start(target, first, last - first, foreground=False)
        if reached < min(last, target.chunk_count):
            window.refused(reached * target.chunk_size)

    async def _gathered(self, offset: int, end: int) -> bytes | memoryview:
        """The bytes from wherever they are, when the last of them has arrived."""
        begun, begin = trio.current_time(), offset
        try:
            with trio.move_on_after(self._fetcher.deadline):
                gathered = bytearray()
                while True:
                    piece = await self._piece(offset, end)
                    if not gathered and len(piece) == end - offset:
                        return piece
                    # Copied at once, so that nobody who waits for memory keeps any.
                    gathered += piece
                    offset += len(piece)
                    if offset == end:
                        return memoryview(gathered)
            raise self._fetcher.too_late(self.target)
        except StorageError as error:
            now = trio.current_time()
            if now - begun >= LONG_WAIT:
                self._failures.append(_Failure(begin, end, error, now + REPEATED_WITHIN))
            raise

    def _refuse_repetition(self, offset: int, end: int) -> None:
        now = trio.current_time()
        self._failures = [failure for failure in self._failures if now < failure.remembered_until]
        for failure in self._failures:
            if offset < failure.end and failure.offset < end:
                error = failure.error
                raise type(error)(error.message, store=error.store, key=self.target.key)

    async def _piece(self, offset: int, end: int) -> bytes | memoryview:
        """The bytes up to `end` or the end of the buffer or chunk they are in, good until the caller gives way."""
        target, buffers = self.target, self._fetcher.buffers
        index, begin = divmod(offset, target.chunk_size)
        buffer = buffers.find(target.digest, index)
        if buffer is None:
            chunk_end = min(begin + end - offset, target.chunk_size)
            data = self._fetcher.read_on_disk(target, index, begin, chunk_end)
            if data is not None:
                return data
            buffer = self._fetcher.fetch_again(target, index)
        until = min(end, buffer.end)
        buffer.pins += 1
        try:
            await self._fetcher.arrival(buffer, until)
            return buffers.slice(buffer, offset, until)
        finally:
            buffers.unpin(buffer)
