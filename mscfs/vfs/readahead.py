"""Read-ahead: how far in front of a sequential reader to fetch.

The window starts small, doubles whenever the reader catches up with it (a stall), and is refilled when half of it is
used. A reader that jumps gets nothing ahead until it reads on from where it is: random readers pay for no byte they
did not ask for, except the rest of a chunk. Idea: the flow-control window of mountpoint-s3.
"""

from __future__ import annotations

from mscfs.types import ByteRange

FIRST_WINDOW = 1 << 20
LARGEST_WINDOW = 64 << 20
FORWARD_TOLERANCE = 16 << 20
BACKWARD_TOLERANCE = 1 << 20


class Window:
    """The read-ahead of one stream of reads. Offsets and sizes in bytes; answers in chunks."""

    def __init__(self, chunk_size: int) -> None:
        self._chunk_size = chunk_size
        self._size = 0
        self._position = -1
        """Where a sequential reader would read next; -1 before the first read."""
        self._requested = 0
        """Everything before this offset was asked for."""

    def advance(self, read: ByteRange, *, stalled: bool) -> tuple[int, int] | None:
        """Tell of a read; returns (first chunk, number of chunks) to fetch ahead, or None."""
        sequential = self._position >= 0 and (-BACKWARD_TOLERANCE <= read.offset - self._position <= FORWARD_TOLERANCE)
        first = self._position < 0
        self._position = max(self._position, read.end) if sequential else read.end
        if not sequential:
            self._size = 0
            self._requested = read.end
            return None
        if self._size == 0:
            self._size = FIRST_WINDOW
            self._requested = max(self._requested, read.end)
        elif stalled and not first:
            self._size = min(self._size * 2, LARGEST_WINDOW)
        ahead = self._requested - self._position
        if ahead >= self._size // 2:
            return None
        begin = max(self._requested, read.end)
        end = self._position + self._size
        self._requested = end
        first_chunk = -(-begin // self._chunk_size)
        last_chunk = -(-end // self._chunk_size)
        return (first_chunk, last_chunk - first_chunk) if last_chunk > first_chunk else None
