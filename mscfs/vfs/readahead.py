"""Read-ahead: how far in front of a sequential reader to fetch.

A window starts small, doubles whenever the reader catches up with it (a stall), is refilled when half of it is used,
and is halved when there is no memory for it. Small steps forward and back do not end it, but a reader that goes on
passing over more than it reads gets nothing ahead. A reader that jumps gets nothing ahead until it reads on from where
it is: random readers pay for no byte they did not ask for, except the rest of a chunk. A handle has two windows, for
programs that read two parts of a file in turn. Idea: the flow-control window of mountpoint-s3.
"""

from __future__ import annotations

FIRST_WINDOW = (1 << 20) + (128 << 10)
"""The kernel's own read-ahead asks for somewhat more than the first MiB: it must not wait for a second request."""
SMALLEST_WINDOW = FIRST_WINDOW >> 3
"""No shortage makes a window smaller: it must be able to grow again within a few stalls."""
LARGEST_WINDOW = 64 << 20
FORWARD_TOLERANCE = 16 << 20
BACKWARD_TOLERANCE = 1 << 20
STREAMS = 2
MEMORY = 8 * FORWARD_TOLERANCE
"""Bytes read and passed over after which what was before counts half."""


class Window:
    """The read-ahead of one stream of reads. All offsets and sizes in bytes."""

    __slots__ = ("_read", "_requested", "_size", "_skipped", "position")

    def __init__(self, end: int) -> None:
        self.position = end
        """Where a sequential reader would read next."""
        self._size = 0
        self._requested = end
        """Everything before this offset was asked for."""
        self._read = self._skipped = 0
        """Bytes that were read, and that were passed over, of late."""

    @property
    def is_sparse(self) -> bool:
        """Whether more is passed over than read, as when the kernel lacks some pages of a file here and there."""
        return self._skipped > max(self._read, FORWARD_TOLERANCE)

    def note(self, offset: int, end: int) -> None:
        """A read of this stream, before `advance`."""
        self._read += end - offset
        self._skipped += max(0, offset - self.position)
        if self._read + self._skipped > MEMORY:
            self._read //= 2
            self._skipped //= 2

    def follows(self, offset: int) -> bool:
        """Whether a read there belongs to this stream."""
        return -BACKWARD_TOLERANCE <= offset - self.position <= FORWARD_TOLERANCE

    def advance(self, end: int, *, stalled: bool, limit: int) -> tuple[int, int] | None:
        """Tell of a read of this stream up to `end`; returns the bytes to fetch ahead, from and to, or None.

        `limit` is the largest window that memory allows now.
        """
        self.position = max(self.position, end)
        if self.is_sparse:
            return None
        if not self._size:
            self._size = min(FIRST_WINDOW, limit)
        elif stalled:
            self._size = min(self._size * 2, limit)
        begin = max(self._requested, self.position)
        if begin - self.position >= self._size // 2:
            return None
        self._requested = self.position + self._size
        return begin, self._requested

    def refused(self, begin: int) -> None:
        """There was no memory for what lies behind `begin`: it is asked for again when half of the rest is used."""
        self._requested = begin
        self._size = max(self._size // 2, min(self._size, SMALLEST_WINDOW))


class ReadAhead:
    """The streams of one handle, the one read last in front."""

    __slots__ = ("_windows",)

    def __init__(self) -> None:
        self._windows: list[Window] = []

    def window(self, offset: int, end: int) -> Window | None:
        """The window of the stream that a read from `offset` to `end` goes on with; None for the first of a stream."""
        windows = self._windows
        for number, window in enumerate(windows):
            if window.follows(offset):
                window.note(offset, end)
                if number:
                    windows.insert(0, windows.pop(number))
                return window
        windows.insert(0, Window(end))
        del windows[STREAMS:]
        return None

    def rest(self) -> None:
        """Begin anew with the next read."""
        self._windows.clear()
