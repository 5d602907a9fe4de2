"""Random readers, closings, workers and second requests against the objects' contents: contract R1, R5, R9, L4.

Whatever order things happen in, every byte a reader gets is the object's, memory is never used by two at once, a fetch
that is under way keeps its memory until it is over, and in the end everything that was asked for was answered and all
memory is free.
"""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from mscfs.cache.chunks import ChunkCache
from mscfs.errors import StorageError
from mscfs.replicas.source import Replica, Source
from mscfs.vfs.reader import ChunkReader
from tests.replicas.stores import memory
from tests.vfs.fetching import CHUNK, Reads, content, reading, unavailable

OBJECTS = {"small": 10, "one": CHUNK, "some": 3 * CHUNK + 5, "large": 40 * CHUNK - 1}
NAMES = sorted(OBJECTS)

numbers = st.integers(0, 1000)
steps = st.one_of(
    st.tuples(st.just("open"), numbers, st.booleans()),
    st.tuples(st.just("read"), numbers, st.integers(0, 41 * CHUNK), st.integers(1, 6 * CHUNK)),
    st.tuples(st.just("read on"), numbers, st.integers(1, 2 * CHUNK)),
    st.tuples(st.just("close"), numbers),
    st.tuples(st.just("arrive"), numbers, st.integers(1, 5 * CHUNK)),
    st.tuples(st.just("end"), numbers),
    st.tuples(st.just("fail"), numbers),
    st.tuples(st.just("scribble"), numbers),
    st.tuples(st.just("slow"), numbers),
    st.tuples(st.just("turn")),
    st.tuples(st.just("sweep")),
)


class Model:
    """Carries out steps, and checks all answers."""

    def __init__(self, world, nursery, disk):
        self.world = world
        self.disk = disk
        self.reads = Reads(nursery)
        self.expected = {}
        """What each read must answer, and whether it may fail."""
        self.handles: list[tuple[str, ChunkReader, list[int]]] = []
        self.answered = set()
        self.failed = 0

    # -- steps --------------------------------------------------------------------------------------------------------

    def open(self, number, start):
        name = NAMES[number % len(NAMES)]
        reader = self.world.open(name, OBJECTS[name])
        if start:
            reader.start()
        self.handles.append((name, reader, [0]))

    def read(self, number, offset, size):
        if self.handles:
            self._read(self.handles[number % len(self.handles)], offset, size)

    def read_on(self, number, size):
        if self.handles:
            handle = self.handles[number % len(self.handles)]
            self._read(handle, handle[2][0], size)

    def close(self, number):
        if self.handles:
            name, reader, _ = self.handles.pop(number % len(self.handles))
            reader.close(last=all(other != name for other, _, _ in self.handles))

    def arrive(self, number, more):
        if fetch := self._fetch(number):
            fetch.arrive(fetch.arrived + more)

    def end(self, number):
        if fetch := self._fetch(number):
            self._end(fetch)

    def fail(self, number):
        if fetch := self._fetch(number):
            self.failed += 1
            fetch.end(unavailable())

    def scribble(self, number):
        if fetch := self._fetch(number):
            fetch.scribble()

    def slow(self, number):
        if fetch := self._fetch(number):
            fetch.slow("near", ())

    def sweep(self):
        self.world.arena.give_back()

    async def turn(self):
        await trio.testing.wait_all_tasks_blocked()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _fetch(self, number):
        under_way = self.world.transport.under_way
        return under_way[number % len(under_way)] if under_way else None

    def _end(self, fetch):
        if fetch.cancelled and len(fetch.data) % 2:
            fetch.give_up()
            return
        if self.disk is not None:
            pinned = self.world.pin(fetch.key, OBJECTS[fetch.key])
            for index in range(fetch.first, fetch.first + fetch.count):
                at = (index - fetch.first) * CHUNK
                self.disk.insert(pinned.chunk_id(index), fetch.data[at : at + CHUNK])
        fetch.end()

    def _read(self, handle, offset, size):
        name, reader, position = handle
        number = self.reads.start(reader, offset, size)
        self.expected[number] = content(name, OBJECTS[name])[offset : offset + size]
        position[0] = offset + size

    def check(self):
        arena, buffers = self.world.arena, self.world.buffers
        assert arena.used <= arena.size
        over = [buffer for buffer in set(buffers._found.values()) if buffer.over]
        taken = [fetch.memory for fetch in self.world.transport.under_way]
        taken += [range(buffer.offset, buffer.offset + buffer.size) for buffer in over]
        taken.sort(key=lambda run: run.start)
        for one, two in itertools.pairwise(taken):
            assert one.stop <= two.start
        for number, got in self.reads.answers.items():
            if isinstance(got, BaseException):
                assert isinstance(got, StorageError)
                assert self.failed
            else:
                assert got == self.expected[number]
            self.answered.add(number)
        self.reads.answers.clear()

    async def finish(self):
        """Answer everything, close everything."""
        await self.turn()
        while self.world.transport.under_way:
            self._end(self.world.transport.under_way[0])
            await self.turn()
        self.check()
        assert self.answered == self.expected.keys()
        while self.handles:
            self.close(0)
        for name, size in OBJECTS.items():  # a read that outlived its handle had kept what it waited for
            self.world.fetcher.closed(self.world.pin(name, size))
        while self.world.transport.under_way:
            self._end(self.world.transport.under_way[0])
        assert self.world.arena.used == 0
        assert self.world.buffers.hungry == len(self.world.buffers) == 0


async def play(script, units, disk):
    sources = [Source("primary", memory("primary")), Replica("near", memory("near"))]
    world = reading(units, deadline=1e9, disk=disk, sources=sources)
    async with trio.open_nursery() as nursery:
        model = Model(world, nursery, disk)
        for name, *arguments in script:
            did = getattr(model, name.replace(" ", "_"))(*arguments)
            if did is not None:
                await did
            model.check()
        await model.finish()
    world.fetcher.close()
    world.memory.close()


WEIGHTS = {
    "open": 8, "read": 12, "read on": 30, "close": 5, "arrive": 20, "end": 30, "fail": 2, "scribble": 10, "slow": 10,
    "turn": 40, "sweep": 2,
}  # fmt: skip


def long_script(seed, length):
    """Mostly sequential readers and workers that get along."""
    chance = random.Random(seed)
    for name in chance.choices(list(WEIGHTS), WEIGHTS.values(), k=length):
        number = chance.randrange(1000)
        match name:
            case "open":
                yield name, number, chance.random() < 0.5
            case "read":
                yield name, number, chance.randrange(41 * CHUNK), chance.choice((100, CHUNK, 3 * CHUNK))
            case "read on":
                yield name, number, chance.choice((CHUNK // 3, CHUNK // 2, CHUNK, CHUNK + 7))
            case "arrive":
                yield name, number, chance.randrange(1, 2 * CHUNK)
            case "turn" | "sweep":
                yield (name,)
            case _:
                yield name, number


@pytest.mark.parametrize("units", [3, 8, 16, 48])
@pytest.mark.parametrize("seed", range(6))
def test_R1_R5_L4_every_byte_is_right_in_a_long_run(seed, units):
    trio.run(play, long_script(seed, 600), units, None)


@pytest.mark.parametrize("seed", range(3))
def test_R1_R5_L4_every_byte_is_right_in_a_long_run_with_a_cache_on_disk_that_forgets(seed, tmp_path):
    with ChunkCache(tmp_path / "cache", 20 * (CHUNK + 4096)) as disk:
        trio.run(play, long_script(seed, 600), 12, disk)


@given(st.lists(steps, min_size=10, max_size=60), st.integers(1, 24))
@settings(max_examples=150)
def test_R1_R5_L4_every_byte_is_right_whatever_the_order(script, units):
    trio.run(play, script, units, None)


@given(st.lists(steps, max_size=40), st.integers(4, 24), st.integers(4, 40))
@settings(max_examples=40)
def test_R1_R5_L4_every_byte_is_right_with_a_cache_on_disk_that_forgets(script, units, kept):
    with (
        tempfile.TemporaryDirectory() as directory,
        ChunkCache(Path(directory) / "cache", kept * (CHUNK + 4096)) as disk,
    ):
        trio.run(play, script, units, disk)
