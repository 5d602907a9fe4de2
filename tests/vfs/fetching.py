"""Fetches whose workers are as rude as they may be: they write late, and over all memory that is theirs meanwhile.

A `RudeTransport` has a fetch do something only when its test says so. From the moment a fetch is started until it is
over, all bytes of its memory that were not announced are noise. Whoever hands out memory too early, or answers with
memory that somebody else has by now, is found by comparing what was read with what the object holds.
"""

from __future__ import annotations

import itertools
import random
from functools import cache
from types import SimpleNamespace

import trio

from mscfs.cache.arena import UNIT, Arena, SharedMemory
from mscfs.errors import StorageError, StoreUnavailableError
from mscfs.types import Version
from mscfs.vfs.fetcher import Fetcher
from mscfs.vfs.hedging import Hedging
from mscfs.vfs.reader import ChunkReader
from mscfs.workers.protocol import FetchSummary

CHUNK = UNIT


@cache
def content(key: str, size: int) -> bytes:
    """What an object holds."""
    return random.Random(f"{key} {size}").randbytes(size)


class RudeFetch:
    """A fetch under way, driven by its test."""

    def __init__(
        self,
        transport,
        key,
        version,
        first,
        count,
        target,
        *,
        foreground,
        present=0,
        lacking=(),
        without=(),
        on_arrival,
        on_slow=None,
        on_end,
    ):
        self.transport = transport
        self.key, self.first, self.count, self.target = key, first, count, target
        self.begin = first * transport.chunk_size
        whole = transport.contents.get((key, version.size)) or content(key, version.size)
        self.data = whole[self.begin : self.begin + count * transport.chunk_size]
        self.foreground = foreground
        self.promoted = self.cancelled = self.over = False
        self.arrived = present
        self.lacking, self.without = lacking, without
        assert transport.memory.view[target : target + present] == self.data[:present]
        self.slow, self._on_arrival, self._on_end = on_slow, on_arrival, on_end
        self.scribble()

    @property
    def memory(self) -> range:
        """What it may write to."""
        return range(self.target, self.target + len(self.data))

    def promote(self) -> None:
        self.promoted = True

    def cancel(self) -> None:
        self.cancelled = True

    def scribble(self) -> None:
        """Write noise wherever a worker may write now: nobody may use a byte that was not announced."""
        start = 0 if self.cancelled else self.arrived
        self._write(start, bytes([next(self.transport.noise) % 256]) * (len(self.data) - start))

    def arrive(self, size: int) -> None:
        """Announce bytes up to `size`, written a moment before."""
        assert not self.over
        if self.arrived < size < len(self.data):
            self._write(self.arrived, self.data[self.arrived : size])
            self.arrived = size
            self._on_arrival(size)

    def end(self, error: StorageError | None = None) -> None:
        """Be over: complete, or with an error."""
        assert not self.over
        self.scribble()
        if error is None:
            self._write(0, self.data)
        self.over = True
        self.transport.under_way.remove(self)
        summary = None if error else FetchSummary("primary", len(self.data))
        self._on_end(summary, error)

    def give_up(self) -> None:
        """End as a worker ends what was cancelled."""
        self.end(StorageError("given up: nobody waits for it"))

    def _write(self, at: int, data: bytes) -> None:
        self.transport.memory.view[self.target + at : self.target + at + len(data)] = data


class RudeTransport:
    """Starts fetches and leaves them to the test. `automatic`: called with each fetch as soon as it is started."""

    def __init__(self, memory, chunk_size=CHUNK, automatic=None):
        self.memory = memory
        self.chunk_size = chunk_size
        self.automatic = automatic
        self.contents: dict[tuple[str, int], bytes] = {}
        """What objects hold, by key and size, unless it is `content`."""
        self.fetches: list[RudeFetch] = []
        self.under_way: list[RudeFetch] = []
        self.noise = itertools.count(1)

    def start_fetch(self, key, version, first, count, target, **how):
        fetch = RudeFetch(self, key, version, first, count, target, **how)
        for other in self.under_way:
            assert fetch.memory.start >= other.memory.stop or other.memory.start >= fetch.memory.stop
        assert fetch.memory.stop <= self.memory.size
        self.fetches.append(fetch)
        self.under_way.append(fetch)
        if self.automatic is not None:
            self.automatic(fetch)
        return fetch

    @property
    def asked(self) -> list[tuple[int, int]]:
        """First chunk and number of chunks of each fetch, in order."""
        return [(fetch.first, fetch.count) for fetch in self.fetches]

    def end_all(self) -> None:
        """End everything that is under way, and what that starts."""
        while self.under_way:
            self.under_way[0].end()


def reading(
    units=16, *, chunk_size=CHUNK, disk=None, deadline=30.0, automatic=None, memory=None, sources=(), reserve=0
):
    """A fetcher over so many units of memory, with a rude transport. It hedges when there are `sources`.

    `reserve` units are for second requests alone.
    """
    hedging = Hedging(sources, enabled=True)
    memory = memory or SharedMemory(units * UNIT)
    transport = RudeTransport(memory, chunk_size, automatic)
    summaries = []
    fetcher = Fetcher(
        Arena(memory, reserve=reserve * UNIT),
        disk,
        transport,
        namespace="test",
        chunk_size=chunk_size,
        deadline=deadline,
        lacking=lambda _: (),
        hedging=hedging,
        on_summary=lambda target, summary: summaries.append((target.key, summary)),
    )

    def pin(key, size):
        return fetcher.pin(key, Version(size, "one"))

    def open_reader(key, size):
        return ChunkReader(fetcher, pin(key, size))

    return SimpleNamespace(
        memory=memory,
        transport=transport,
        fetcher=fetcher,
        hedging=hedging,
        buffers=fetcher.buffers,
        arena=fetcher.buffers.arena,
        summaries=summaries,
        pin=pin,
        open=open_reader,
    )


class Reads:
    """Reads under way in tasks of a nursery; `answers` are copies of what came, made before anybody else may run."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.answers: dict[int, bytes | BaseException] = {}
        self._numbers = itertools.count()

    def start(self, reader: ChunkReader, offset: int, size: int) -> int:
        number = next(self._numbers)
        self._nursery.start_soon(self._read, number, reader, offset, size)
        return number

    async def _read(self, number, reader, offset, size):
        try:
            self.answers[number] = bytes(await reader.read(offset, size))
        except OSError as error:
            self.answers[number] = error


def unavailable(text="no store answers") -> StoreUnavailableError:
    return StoreUnavailableError(text, store="primary")
