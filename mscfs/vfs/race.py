"""One fetch by two attempts: when the first waits too long for its store, a second asks another one (contract R9).

Each attempt has memory of its own. Whichever is ahead is what readers see; the first that is complete wins, and the
other is cancelled and its memory freed when its worker says that it is over: nobody looks at its bytes any more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mscfs.errors import StorageError
from mscfs.vfs.buffers import Buffer, BufferPool
from mscfs.vfs.transport import Transport
from mscfs.workers.calls import StartedFetch
from mscfs.workers.protocol import FetchSummary


class Referee(Protocol):
    """Decides whether there is a second attempt."""

    def slow(self, race: Race, /) -> None:
        """The first attempt waits too long for its store, or a program waits now for one that does."""

    def over(self, race: Race, /, *, second_won: bool) -> None:
        """The race is over."""


@dataclass(eq=False, slots=True)
class Attempt:
    """One of the two."""

    offset: int
    """Where its memory is."""
    arrived: int = 0
    fetch: StartedFetch | None = None
    is_over: bool = False


class Race:
    """A `StartedFetch` for a buffer that has its memory. `on_end` is told once how it ended, then nobody writes."""

    def __init__(
        self,
        buffer: Buffer,
        buffers: BufferPool,
        transport: Transport,
        referee: Referee,
        *,
        lacking: tuple[str, ...],
        foreground: bool,
        on_end: Callable[[FetchSummary | None, StorageError | None], None],
    ) -> None:
        assert buffer.offset is not None
        self._buffer = buffer
        self._buffers = buffers
        self._transport = transport
        self._referee = referee
        self._lacking = lacking
        self._on_end = on_end
        self._first = Attempt(buffer.offset)
        self._second: Attempt | None = None
        self._is_decided = False
        self._is_cancelled = False
        self.is_awaited = foreground
        """A program waits for it."""
        self.slow_store = ""
        """The store that keeps the first attempt waiting."""
        self._tried: tuple[str, ...] = ()

    def start(self) -> None:
        """Begin the first attempt."""
        self._start(self._first, 0, ())

    def promote(self) -> None:
        """A program waits for it now."""
        self.is_awaited = True
        for attempt in self._attempts():
            if attempt.fetch is not None:
                attempt.fetch.promote()
        if self.slow_store:
            self._referee.slow(self)

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self._is_cancelled = True
        for attempt in self._attempts():
            if attempt.fetch is not None:
                attempt.fetch.cancel()

    @property
    def may_hedge(self) -> bool:
        """Whether a second attempt would be of use."""
        return self._second is None and not (self._is_decided or self._is_cancelled)

    @property
    def lacking(self) -> tuple[str, ...]:
        """The stores that are said to lack the object, or that the first attempt turned away from."""
        return (*self._lacking, *(store for store in self._tried if store not in self._lacking))

    def hedge(self) -> bool:
        """Begin the second attempt where the first stands; False when there is no memory for it."""
        buffer = self._buffer
        offset = self._buffers.borrow(buffer.size)
        if offset is None:
            return False
        self._second = Attempt(offset, arrived=self._first.arrived)
        view = self._buffers.arena.memory.view
        begin = self._first.offset
        view[offset : offset + self._first.arrived] = view[begin : begin + self._first.arrived]
        try:
            self._start(self._second, self._first.arrived, (self.slow_store,))
        except BaseException:
            self._second = None
            self._buffers.give_back(offset, buffer.size)
            raise
        return True

    # -- inside ---------------------------------------------------------------------------------------------------

    def _attempts(self) -> list[Attempt]:
        both = [self._first] if self._second is None else [self._first, self._second]
        return [attempt for attempt in both if not attempt.is_over]

    def _start(self, attempt: Attempt, present: int, without: tuple[str, ...]) -> None:
        def arrive(size: int) -> None:
            self._arrived(attempt, size)

        def end(summary: FetchSummary | None, error: StorageError | None) -> None:
            self._ended(attempt, summary, error)

        def be_slow(store: str, tried: Sequence[str]) -> None:
            self._slow(attempt, store, tried)

        buffer = self._buffer
        attempt.fetch = self._transport.start_fetch(
            buffer.target.key,
            buffer.target.version,
            buffer.first,
            buffer.count,
            attempt.offset,
            # A second attempt is late: it must not wait behind others.
            foreground=self.is_awaited or bool(without),
            present=present,
            lacking=self.lacking,
            without=without,
            on_arrival=arrive,
            on_slow=be_slow,
            on_end=end,
        )

    def _arrived(self, attempt: Attempt, size: int) -> None:
        attempt.arrived = size
        buffer = self._buffer
        if size > buffer.arrived and not self._is_decided:
            buffer.offset, buffer.arrived = attempt.offset, size
            if buffer.waiting:
                buffer.wake()

    def _slow(self, attempt: Attempt, store: str, tried: Sequence[str]) -> None:
        if attempt is self._first:
            self.slow_store, self._tried = store, tuple(tried)
            self._referee.slow(self)

    def _ended(self, attempt: Attempt, summary: FetchSummary | None, error: StorageError | None) -> None:
        attempt.is_over = True
        attempt.fetch = None
        if self._is_decided:
            self._buffers.give_back(attempt.offset, self._buffer.size)
            return
        buffer, others = self._buffer, self._attempts()
        if summary is None and others:
            # The other goes on. It may be behind: whoever was about to read more waits for it.
            buffer.offset, buffer.arrived = others[0].offset, others[0].arrived
            self._buffers.give_back(attempt.offset, buffer.size)
            return
        self._is_decided = True
        self._referee.over(self, second_won=attempt is self._second and summary is not None)
        buffer.offset = attempt.offset
        for other in others:
            if other.fetch is not None:
                other.fetch.cancel()
        self._on_end(summary, error)
