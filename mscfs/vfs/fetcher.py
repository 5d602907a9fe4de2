"""Fetches: one for each chunk at a time, whoever asks, and a wake-up for each waiter as soon as its chunk is there.

A fetch belongs to the file system's nursery, not to the request that caused it: a request that gives up does not take
the others' bytes along, and an error is told to everyone who waits.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import trio

from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import Chunk, ChunkId
from mscfs.errors import StorageError, StoreTimeoutError
from mscfs.types import Version
from mscfs.vfs.transport import Transport
from mscfs.workers.protocol import FetchSummary

log = logging.getLogger(__name__)

FETCH_BYTES = 8 << 20
"""The longest range of one GET: larger ones gain nothing and make others wait."""


@dataclass(frozen=True, slots=True)
class PinnedObject:
    """One version of one key: what a handle reads."""

    key: str
    version: Version
    digest: str
    chunk_size: int

    @property
    def chunk_count(self) -> int:
        """Number of chunks; none for an empty object."""
        return math.ceil(self.version.size / self.chunk_size)

    def chunk_id(self, index: int) -> ChunkId:
        """The name of a chunk in the cache."""
        return ChunkId(self.digest, index)


@dataclass(slots=True)
class _Flight:
    """One chunk on its way."""

    arrived: trio.Event = field(default_factory=trio.Event)
    data: bytes | None = None
    error: StorageError | None = None


class Fetcher:
    """Single flight for chunks. `on_summary` is told of each finished fetch; `deadline` is in seconds (R5)."""

    def __init__(
        self,
        cache: ChunkCache,
        transport: Transport,
        nursery: trio.Nursery,
        *,
        namespace: str,
        chunk_size: int,
        deadline: float,
        on_summary: Callable[[PinnedObject, FetchSummary], None],
    ) -> None:
        self._cache = cache
        self._transport = transport
        self._nursery = nursery
        self._namespace = namespace
        self._chunk_size = chunk_size
        self._deadline = deadline
        self._on_summary = on_summary
        self._flights: dict[ChunkId, _Flight] = {}
        self._running: set[trio.Event] = set()

    def pin(self, key: str, version: Version) -> PinnedObject:
        """The object a new handle reads."""
        return PinnedObject(
            key, version, object_digest(self._namespace, key, version, self._chunk_size), self._chunk_size
        )

    def cached(self, target: PinnedObject, index: int) -> Chunk | None:
        """A chunk that is on this node; None is a miss. Never waits."""
        return self._cache.open(target.chunk_id(index))

    async def chunk(self, target: PinnedObject, index: int) -> Chunk | bytes:
        """A chunk, fetched if need be.

        Raises the store's error when every source failed, StoreTimeoutError when `deadline` passed first.
        """
        with trio.move_on_after(self._deadline):
            # A chunk may be evicted between its arrival and its opening: then it is fetched again.
            while True:
                self.start(target, index, 1, foreground=True)
                flight = self._flights.get(target.chunk_id(index))
                if flight is not None:
                    await flight.arrived.wait()
                    if flight.error is not None:
                        raise flight.error.__class__(
                            flight.error.message, store=flight.error.store, key=target.key
                        ) from flight.error
                    if flight.data is not None:
                        return flight.data
                chunk = self.cached(target, index)
                if chunk is not None:
                    return chunk
                await trio.lowlevel.checkpoint()
        raise StoreTimeoutError(f"no store delivered within {self._deadline:g} s", key=target.key)

    def start(self, target: PinnedObject, first: int, count: int, *, foreground: bool) -> None:
        """Begin to fetch those of the chunks that are neither here nor on their way."""
        last = min(first + count, target.chunk_count)
        wanted = [
            index
            for index in range(first, last)
            if target.chunk_id(index) not in self._flights and not self._cache.contains(target.chunk_id(index))
        ]
        for index in wanted:
            self._flights[target.chunk_id(index)] = _Flight()
        at_once = max(1, FETCH_BYTES // self._chunk_size)
        for run in _runs(wanted, at_once):
            self._nursery.start_soon(self._fetch, target, run[0], len(run), foreground)

    def look(self, target: PinnedObject) -> None:
        """Find out which replicas lack an object that has no chunk to fetch: an empty one."""
        self._nursery.start_soon(self._fetch, target, 0, 0, False)

    async def settled(self) -> None:
        """Return when the fetches that are under way now have ended and what they found out is told."""
        for ended in list(self._running):
            await ended.wait()

    async def _fetch(self, target: PinnedObject, first: int, count: int, foreground: bool) -> None:
        flights = {index: self._flights[target.chunk_id(index)] for index in range(first, first + count)}

        def on_chunk(index: int, data: bytes | None) -> None:
            flight = flights.pop(index)
            flight.data = data
            self._land(target.chunk_id(index), flight)

        error: StorageError | None = None
        ended = trio.Event()
        self._running.add(ended)
        try:
            summary = await self._transport.fetch(
                target.key, target.version, first, count, foreground=foreground, on_chunk=on_chunk
            )
            self._on_summary(target, summary)
        except StorageError as failure:
            error = failure
        except Exception:
            log.exception("a bug in a fetch of %r: its readers get EIO, the mount goes on", target.key)
        finally:
            self._running.discard(ended)
            ended.set()
            for index, flight in flights.items():
                flight.error = error or StorageError("the fetch was given up", key=target.key)
                self._land(target.chunk_id(index), flight)

    def _land(self, chunk: ChunkId, flight: _Flight) -> None:
        self._flights.pop(chunk, None)
        flight.arrived.set()


def _runs(indices: list[int], longest: int) -> list[list[int]]:
    """Consecutive indices, in pieces of at most `longest`."""
    if not indices:
        return []
    runs = [[indices[0]]]
    for before, index in pairwise(indices):
        if index == before + 1 and len(runs[-1]) < longest:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs
