"""Fetches: one for each chunk at a time, whoever asks, and a wake-up for each waiter as soon as its bytes are there.

A fetch belongs to the mount, not to the request that caused it: a request that gives up does not take the others' bytes
along, and an error is told to everyone who waits.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

import trio

from mscfs.cache.arena import Arena
from mscfs.cache.chunks import ChunkCache
from mscfs.cache.opened import OpenChunks
from mscfs.errors import StorageError, StoreTimeoutError
from mscfs.types import Version
from mscfs.vfs.buffers import Buffer, BufferPool
from mscfs.vfs.hedging import Hedging
from mscfs.vfs.pinned import PinnedObject
from mscfs.vfs.race import Race
from mscfs.vfs.readahead import LARGEST_WINDOW
from mscfs.vfs.transport import Transport
from mscfs.workers.protocol import FetchSummary

log = logging.getLogger(__name__)

FETCH_BYTES = 8 << 20
"""The longest range of one GET: larger ones gain nothing and make others wait."""
SWEEP_SECONDS = 5.0
"""How often memory that nobody used meanwhile goes back to the system."""


class Fetcher:
    """Single flight for chunks. `on_summary` is told of each finished fetch; `deadline` is in seconds (R5).

    `lacking` tells which replicas are not worth asking for a key, and `hedging` which fetch is worth a second attempt.
    `cache` is the chunk cache on disk, or None when nothing is kept there.
    """

    def __init__(
        self,
        arena: Arena,
        cache: ChunkCache | None,
        transport: Transport,
        *,
        namespace: str,
        chunk_size: int,
        deadline: float,
        lacking: Callable[[str], tuple[str, ...]],
        hedging: Hedging,
        on_summary: Callable[[PinnedObject, FetchSummary], None],
    ) -> None:
        self.buffers = BufferPool(arena, self._begin)
        self.buffers.on_room = hedging.has_room
        self.deadline = deadline
        self._opened = OpenChunks(cache) if cache is not None else None
        self._cache = cache
        self._transport = transport
        self._namespace = namespace
        self._chunk_size = chunk_size
        self._lacking = lacking
        self._hedging = hedging
        self._on_summary = on_summary
        self._serial = itertools.count()
        self._running: set[int] = set()
        self._one_ended: trio.Event | None = None
        """Set when somebody waits for the end of fetches."""
        self._streams: set[object] = set()
        self._at_once = max(1, min(FETCH_BYTES, arena.size // 4) // chunk_size)

    def pin(self, key: str, version: Version) -> PinnedObject:
        """The object a new handle reads."""
        return PinnedObject(self._namespace, key, version, self._chunk_size)

    def read_on_disk(self, target: PinnedObject, index: int, begin: int, end: int) -> bytes | memoryview | None:
        """Bytes of a chunk that is in the cache on disk; None is a miss. Never waits for more than the disk."""
        return self._opened.read(target.chunk_id(index), begin, end) if self._opened is not None else None

    def start(self, target: PinnedObject, first: int, count: int, *, foreground: bool) -> int:
        """Begin to fetch those of the chunks that are neither here nor on their way.

        In the foreground all of them are, as soon as there is memory. Returns the index before which everything is
        here or on its way: read-ahead ends where memory does.
        """
        index, last = first, min(first + count, target.chunk_count)
        while index < last:
            buffer = self.buffers.find(target.digest, index)
            if buffer is not None:
                if foreground and buffer.fetch is not None:
                    buffer.fetch.promote()
                index = buffer.first + buffer.count
                continue
            run = 0
            while (
                run < self._at_once
                and index + run < last
                and self.buffers.find(target.digest, index + run) is None
                and not (self._cache is not None and self._cache.contains(target.chunk_id(index + run)))
            ):
                run += 1
            if run and self.buffers.add(target, index, run, foreground=foreground) is None:
                return index
            index += run or 1
        return last

    def fetch_again(self, target: PinnedObject, index: int) -> Buffer:
        """Begin to fetch a chunk that is in no buffer, whatever the cache on disk seems to have.

        It made room for others since it was looked for, or what is on disk is no good.
        """
        buffer = self.buffers.add(target, index, 1, foreground=True)
        assert buffer is not None
        return buffer

    async def arrival(self, buffer: Buffer, end: int) -> None:
        """Return when a buffer has everything up to that offset of its object. It must be pinned.

        Raises the store's error when every source failed.
        """
        while not (buffer.has(end) or buffer.over):
            arrived = trio.Event()
            buffer.waiting.append((end, arrived))
            await arrived.wait()
        if buffer.error is not None:
            error = buffer.error
            raise error.__class__(error.message, store=error.store, key=buffer.target.key) from error

    def too_late(self, target: PinnedObject) -> StoreTimeoutError:
        """The error of a read that took longer than `deadline`."""
        return StoreTimeoutError(f"no store delivered within {self.deadline:g} s", key=target.key)

    def look(self, target: PinnedObject) -> None:
        """Find out which replicas lack an object that has no chunk to fetch: an empty one."""
        serial = self._track()

        def end(summary: FetchSummary | None, _: StorageError | None) -> None:
            self._told(target, summary, serial)

        self._transport.start_fetch(
            target.key,
            target.version,
            0,
            0,
            0,
            foreground=False,
            lacking=self._lacking(target.key),
            on_arrival=lambda _: None,
            on_slow=lambda _, __: None,
            on_end=end,
        )

    # -- streams --------------------------------------------------------------------------------------------------

    def reads_ahead(self, stream: object, *, active: bool) -> None:
        """A stream of reads began or ended: all that are active share the memory."""
        (self._streams.add if active else self._streams.discard)(stream)

    @property
    def window_limit(self) -> int:
        """The largest read-ahead of one stream, in bytes."""
        share = self.buffers.arena.size // (2 * max(1, len(self._streams)))
        return max(self._chunk_size, min(LARGEST_WINDOW, share))

    def closed(self, target: PinnedObject) -> None:
        """No handle reads this object any more."""
        self.buffers.discard_object(target.digest)

    # -- life -----------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Give memory back that is not used any more, until cancelled."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            self.buffers.drop_idle()
            self.buffers.arena.give_back()

    async def settled(self) -> None:
        """Return when the fetches that are under way now have ended and what they found out is told."""
        now = frozenset(self._running)
        while not now.isdisjoint(self._running):
            self._one_ended = self._one_ended or trio.Event()
            await self._one_ended.wait()

    def close(self) -> None:
        """Let go of chunks that are open."""
        if self._opened is not None:
            self._opened.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _begin(self, buffer: Buffer, foreground: bool) -> None:
        serial = self._track()
        target = buffer.target

        def end(summary: FetchSummary | None, error: StorageError | None) -> None:
            if summary is None and error is None:
                error = StorageError("the fetch was given up", key=target.key)
            try:
                self.buffers.ended(buffer, error)
            finally:
                self._told(target, summary, serial)

        self._hedging.begins()
        race = Race(
            buffer,
            self.buffers,
            self._transport,
            self._hedging,
            lacking=self._lacking(target.key),
            foreground=foreground,
            on_end=end,
        )
        buffer.fetch = race
        try:
            race.start()
        except Exception:
            log.exception("a bug in a fetch of %r: its readers get EIO, the mount goes on", target.key)
            end(None, None)

    def _track(self) -> int:
        serial = next(self._serial)
        self._running.add(serial)
        return serial

    def _told(self, target: PinnedObject, summary: FetchSummary | None, serial: int) -> None:
        self._running.discard(serial)
        try:
            if summary is not None:
                self._on_summary(target, summary)
        except Exception:
            log.exception("a bug after a fetch of %r: the mount goes on", target.key)
        finally:
            if self._one_ended is not None:
                self._one_ended.set()
                self._one_ended = None
