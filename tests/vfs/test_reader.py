"""Reads through one handle: contract R1, R5, R7, L4, with a transport that writes as late as it may."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest
import trio
import trio.testing

from mscfs.cache.chunks import ChunkCache
from mscfs.errors import StoreTimeoutError, StoreUnavailableError, VersionMismatchError
from mscfs.vfs.buffers import CONSUMED_AT_LEAST
from mscfs.vfs.readahead import FIRST_WINDOW
from tests.vfs.fetching import CHUNK, Reads, content, reading, unavailable

SIZE = 3 << 20
"""Larger than what is fetched whole at open()."""


def settle():
    return trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def world():
    """Enough memory for everything a test reads."""
    world = reading(256)
    yield world
    world.memory.close()


@pytest.fixture
def disk(tmp_path):
    with ChunkCache(tmp_path / "cache", 64 << 20) as disk:
        yield disk


def put_on_disk(disk, pinned, *indices):
    data = content(pinned.key, pinned.version.size)
    for index in indices:
        assert disk.insert(pinned.chunk_id(index), data[index * CHUNK : (index + 1) * CHUNK])


async def answer(world, reader, offset, size):
    """One read, with everything that it starts ended for it."""
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        reads.start(reader, offset, size)
        await settle()
        while world.transport.under_way:
            world.transport.end_all()
            await settle()
    [got] = reads.answers.values()
    if isinstance(got, BaseException):
        raise got
    return got


# -- what is answered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size"),
    [
        (0, 10),
        (CHUNK - 1, 1),
        (CHUNK, 1),
        (SIZE - 5, 100),
        (SIZE - 5, 5),
        (10, CHUNK),
        (0, SIZE),
        (CHUNK - 7, 5 * CHUNK),
    ],
)
async def test_R1_a_read_is_exactly_the_bytes_asked_for_short_only_at_the_end(world, offset, size):
    reader = world.open("a", SIZE)
    assert await answer(world, reader, offset, size) == content("a", SIZE)[offset : offset + size]
    assert await answer(world, reader, offset, size) == content("a", SIZE)[offset : offset + size]


@pytest.mark.parametrize("offset", [SIZE, SIZE + 1, 10 * SIZE])
async def test_a_read_behind_the_end_is_empty_and_asks_nobody(world, offset):
    assert await world.open("a", SIZE).read(offset, 100) == b""
    assert world.transport.fetches == []


async def test_R7_a_read_fetches_the_chunks_it_touches_with_one_range(world):
    reader = world.open("a", SIZE)
    await answer(world, reader, 3 * CHUNK + 10, 10)
    await answer(world, world.open("a", SIZE), 20 * CHUNK + 10, 3 * CHUNK)
    assert world.transport.asked == [(3, 1), (20, 4)]
    assert all(fetch.foreground for fetch in world.transport.fetches)


async def test_a_read_is_answered_when_its_bytes_are_there_and_not_when_the_chunk_is(world):
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        first = reads.start(world.open("a", SIZE), 0, 1000)
        second = reads.start(world.open("a", SIZE), 1000, 1000)
        await settle()
        [fetch] = world.transport.under_way
        fetch.arrive(999)
        await settle()
        assert reads.answers == {}
        fetch.arrive(1500)
        fetch.scribble()
        await settle()
        assert reads.answers == {first: content("a", SIZE)[:1000]}
        fetch.end()
        await settle()
        assert reads.answers[second] == content("a", SIZE)[1000:2000]


async def test_what_is_here_is_answered_without_giving_way_and_without_a_copy(world):
    reader = world.open("a", SIZE)
    await answer(world, reader, 0, 10)
    with trio.CancelScope() as scope:
        scope.cancel()  # any checkpoint would end it
        got = await reader.read(100, 1000)
    assert not scope.cancelled_caught
    assert isinstance(got, memoryview)
    assert got.obj is world.memory.view.obj
    assert got == content("a", SIZE)[100:1100]


@pytest.mark.parametrize("here", range(8))
async def test_R1_a_read_over_several_buffers_and_chunks_on_disk_is_whole(disk, here):
    """Of three chunks each is on disk, in memory, or nowhere yet."""
    kinds = [("disk", "memory", "nowhere")[here // 3**n % 3] for n in range(3)]
    world = reading(64, disk=disk)
    reader = world.open("a", SIZE)
    pinned = reader.target
    for index, kind in enumerate(kinds, start=4):
        if kind == "disk":
            put_on_disk(disk, pinned, index)
        elif kind == "memory":
            await answer(world, world.open("a", SIZE), index * CHUNK, 10)
    fetched = len(world.transport.fetches)
    offset, size = 4 * CHUNK + 100, 3 * CHUNK - 200
    assert await answer(world, reader, offset, size) == content("a", SIZE)[offset : offset + size]
    asked = [index for first, count in world.transport.asked[fetched:] for index in range(first, first + count)]
    assert asked == [index for index, kind in enumerate(kinds, start=4) if kind == "nowhere"]
    world.fetcher.close()
    world.memory.close()


async def test_one_fetch_serves_all_who_wait(world):
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        numbers = [reads.start(world.open("a", SIZE), 100 * number, 100) for number in range(10)]
        await settle()
        assert world.transport.asked == [(0, 1)]
        world.transport.end_all()
    assert b"".join(reads.answers[number] for number in numbers) == content("a", SIZE)[:1000]


async def test_other_objects_and_versions_have_bytes_of_their_own(world):
    one, two = world.open("a", SIZE), world.open("b", SIZE)
    shorter = world.open("a", SIZE - 1)  # another version of the same key
    for reader, name, size in ((one, "a", SIZE), (two, "b", SIZE), (shorter, "a", SIZE - 1)):
        assert await answer(world, reader, 0, 100) == content(name, size)[:100]
    assert len(world.transport.fetches) == 3


# -- open and close -------------------------------------------------------------------------------------------------


async def test_a_small_object_is_one_get_that_begins_at_open(world):
    reader = world.open("a", FIRST_WINDOW)
    reader.start()
    assert world.transport.asked == [(0, FIRST_WINDOW // CHUNK)]
    assert world.transport.fetches[0].foreground
    for offset in range(0, FIRST_WINDOW, CHUNK // 2):
        assert await answer(world, reader, offset, CHUNK // 2) == content("a", FIRST_WINDOW)[offset:][: CHUNK // 2]
    assert len(world.transport.fetches) == 1


async def test_R7_a_large_object_is_not_fetched_at_open(world):
    world.open("a", FIRST_WINDOW + 1).start()
    assert world.transport.fetches == []


async def test_R6_an_empty_object_is_looked_at_at_open_and_read_without_a_store(world):
    reader = world.open("a", 0)
    reader.start()
    assert world.transport.asked == [(0, 0)]
    assert await reader.read(0, 100) == b""
    world.transport.end_all()
    assert world.summaries == [("a", world.summaries[0][1])]
    assert world.arena.used == 0


async def test_the_last_handle_gives_back_what_was_fetched(world):
    one, two = world.open("a", SIZE), world.open("a", SIZE)
    await answer(world, one, 0, 10)
    one.close(last=False)
    assert world.arena.used == CHUNK
    assert await answer(world, two, 0, 10) == content("a", SIZE)[:10]
    two.close(last=True)
    assert world.arena.used == 0
    assert len(world.transport.fetches) == 1


async def test_L4_closing_while_read_ahead_is_under_way_frees_its_memory_only_when_it_is_over(world):
    reader = world.open("a", SIZE)
    await answer(world, reader, 0, CHUNK)
    async with trio.open_nursery() as nursery:
        Reads(nursery).start(reader, CHUNK, CHUNK)
        await settle()
        foreground, *ahead = world.transport.under_way
        foreground.end()
    assert ahead
    assert not any(fetch.foreground for fetch in ahead)
    reader.close()
    assert all(fetch.cancelled for fetch in ahead)
    other = world.open("b", SIZE)
    assert await answer(world, other, 0, CHUNK) == content("b", SIZE)[:CHUNK]  # and the rude ones did no harm
    other.close()
    assert world.arena.used == 0


# -- read-ahead -----------------------------------------------------------------------------------------------------


async def test_R7_a_random_reader_fetches_nothing_but_the_chunks_it_touches():
    size = 640 << 20
    world = reading(256)
    reader = world.open("huge", size)
    world.transport.contents["huge", size] = bytes(size)  # costs no memory: nobody writes to it
    places = [number * (20 << 20) + 100 for number in range(32)]
    random.Random(1).shuffle(places)
    for offset in places:
        assert await answer(world, reader, offset, 4096) == bytes(4096)
    assert world.transport.asked == [(offset // CHUNK, 1) for offset in places]
    world.memory.close()


async def test_a_sequential_reader_has_its_next_bytes_asked_for_in_the_background(world):
    reader = world.open("a", SIZE)
    await answer(world, reader, 0, CHUNK)
    assert world.transport.asked == [(0, 1)]
    await answer(world, reader, CHUNK, CHUNK)
    [own, ahead] = world.transport.fetches[1:]
    assert (own.first, own.foreground) == (1, True)
    assert (ahead.first, ahead.foreground) == (2, False)
    assert ahead.count == FIRST_WINDOW // CHUNK
    for index in range(2, 2 + ahead.count):
        assert await answer(world, reader, index * CHUNK, CHUNK) == content("a", SIZE)[index * CHUNK :][:CHUNK]
    assert not any(fetch.foreground for fetch in world.transport.fetches[2:])


async def test_a_reader_that_catches_up_with_read_ahead_has_it_promoted(world):
    reader = world.open("a", SIZE)
    await answer(world, reader, 0, CHUNK)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        reads.start(reader, CHUNK, CHUNK)
        await settle()
        own, ahead = world.transport.under_way
        assert not ahead.promoted
        own.end()
        await settle()
        reads.start(reader, 2 * CHUNK, CHUNK)
        await settle()
        assert ahead.promoted
        world.transport.end_all()


async def test_a_whole_file_read_in_order_is_fetched_once(world):
    reader = world.open("a", SIZE)
    got = [await answer(world, reader, offset, 20_000) for offset in range(0, SIZE, 20_000)]
    assert b"".join(got) == content("a", SIZE)
    asked = [index for first, count in world.transport.asked for index in range(first, first + count)]
    assert sorted(asked) == list(range(SIZE // CHUNK))


@pytest.mark.parametrize("units", [2, 3, 4, 5, 8, 16, 40])
@pytest.mark.parametrize("size", [20_000, CHUNK, 3 * CHUNK])
async def test_L4_a_file_far_larger_than_the_memory_is_read_through_it_and_fetched_once(units, size):
    world = reading(units)
    reader = world.open("a", SIZE)
    got = []
    for offset in range(0, SIZE, size):
        got.append(await answer(world, reader, offset, size))
        assert world.arena.used <= units * CHUNK
    assert b"".join(got) == content("a", SIZE)
    asked = [index for first, count in world.transport.asked for index in range(first, first + count)]
    if size < units * CHUNK:
        assert sorted(asked) == list(range(SIZE // CHUNK))
    reader.close()
    assert world.arena.used == 0
    world.memory.close()


async def test_R7_a_range_larger_than_what_is_kept_of_the_past_is_not_fetched_twice():
    """A buffer that was just read to its end may be dropped at once, but not before its last bytes were answered."""
    size = 3 * CONSUMED_AT_LEAST
    world = reading(size // CHUNK, chunk_size=CONSUMED_AT_LEAST // 2)
    reader = world.open("a", 10 * size)
    step = 1 << 20
    for offset in range(0, 2 * size, step):
        assert await answer(world, reader, offset, step) == content("a", 10 * size)[offset : offset + step]
    asked = [index for first, count in world.transport.asked for index in range(first, first + count)]
    assert len(asked) == len(set(asked))
    world.memory.close()


# -- what goes wrong ------------------------------------------------------------------------------------------------


async def test_R5_an_error_reaches_all_who_wait_and_the_next_read_fetches_anew(world):
    reader = world.open("a", SIZE)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        for number in range(3):
            reads.start(world.open("a", SIZE), 100 * number, 100)
        await settle()
        [fetch] = world.transport.under_way
        fetch.end(unavailable())
    assert [type(error) for error in reads.answers.values()] == [StoreUnavailableError] * 3
    assert {(error.errno, error.store, error.key) for error in reads.answers.values()} == {(errno.EIO, "primary", "a")}
    assert len({id(error) for error in reads.answers.values()}) == 3  # each raises one of its own
    assert world.arena.used == 0
    assert await answer(world, reader, 0, 300) == content("a", SIZE)[:300]


async def test_R5_an_error_after_some_bytes_spoils_only_what_had_not_arrived(world):
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        early = reads.start(world.open("a", SIZE), 0, 100)
        late = reads.start(world.open("a", SIZE), 1000, 100)
        await settle()
        [fetch] = world.transport.under_way
        fetch.arrive(500)
        await settle()
        fetch.end(unavailable())
    assert reads.answers[early] == content("a", SIZE)[:100]
    assert isinstance(reads.answers[late], StoreUnavailableError)


async def test_R1_an_error_in_one_of_several_ranges_is_no_short_read(world):
    reader = world.open("a", SIZE)
    await answer(world, world.open("a", SIZE), 5 * CHUNK, 10)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        number = reads.start(reader, 4 * CHUNK, 3 * CHUNK)
        await settle()
        before, behind = world.transport.under_way
        before.end()
        await settle()
        behind.end(unavailable())
    assert isinstance(reads.answers[number], StoreUnavailableError)


async def test_R1_a_version_that_is_gone_is_told_as_such(world):
    reader = world.open("a", SIZE)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        number = reads.start(reader, 0, 100)
        await settle()
        world.transport.under_way[0].end(VersionMismatchError("another version"))
    assert isinstance(reads.answers[number], VersionMismatchError)
    assert reads.answers[number].errno == errno.ESTALE


async def test_R5_an_error_of_read_ahead_fails_no_read(world):
    reader = world.open("a", SIZE)
    await answer(world, reader, 0, CHUNK)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        number = reads.start(reader, CHUNK, CHUNK)
        await settle()
        own, ahead = world.transport.under_way
        ahead.end(unavailable())
        own.end()
    assert reads.answers[number] == content("a", SIZE)[CHUNK : 2 * CHUNK]
    assert await answer(world, reader, 2 * CHUNK, CHUNK) == content("a", SIZE)[2 * CHUNK : 3 * CHUNK]


async def test_R5_one_deadline_bounds_a_read_over_several_chunks(autojump_clock):
    world = reading(64, deadline=30.0)
    reader = world.open("a", SIZE)
    for index in (5, 7):  # so that several ranges are asked for
        await answer(world, world.open("a", SIZE), index * CHUNK, 10)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        number = reads.start(reader, 4 * CHUNK, 6 * CHUNK)
        await settle()
        assert len(world.transport.under_way) >= 3
        for fetch in list(world.transport.under_way)[:-1]:
            await trio.sleep(14.0)
            fetch.end()
        await settle()
        assert reads.answers == {}
        await trio.sleep(began + 29.9 - trio.current_time())
        assert reads.answers == {}
        await trio.sleep(0.2)
        assert isinstance(reads.answers[number], StoreTimeoutError)
        assert reads.answers[number].errno == errno.EIO
        world.transport.end_all()
    reader.close()
    assert world.arena.used == 0
    world.memory.close()


async def test_R5_what_the_kernel_asks_again_after_a_long_wait_fails_at_once_and_is_tried_anew_a_moment_later(
    autojump_clock,
):
    world = reading(64, deadline=30.0)
    reader = world.open("a", SIZE)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        lost = reads.start(reader, 0, 8 * CHUNK)
        await trio.sleep(30.1)
        assert isinstance(reads.answers[lost], StoreTimeoutError)
        for offset in (0, 8 * CHUNK - 10):
            again = reads.start(reader, offset, 10)
            await settle()
            assert isinstance(reads.answers[again], StoreTimeoutError)
        elsewhere = reads.start(reader, 2 << 20, 10)
        await trio.sleep(1.0)
        anew = reads.start(reader, 0, 10)
        await settle()
        assert not {elsewhere, anew} & reads.answers.keys()
        world.transport.end_all()
    assert reads.answers[anew] == content("a", SIZE)[:10]
    reader.close()
    world.memory.close()


async def test_R5_a_read_that_fails_soon_may_be_tried_again_at_once(autojump_clock):
    world = reading(64)
    reader = world.open("a", SIZE)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        failed = reads.start(reader, 0, 10)
        await settle()
        world.transport.under_way[0].end(unavailable())
        await settle()
        assert isinstance(reads.answers[failed], StoreUnavailableError)
        again = reads.start(reader, 0, 10)
        await settle()
        world.transport.end_all()
        await settle()
        assert reads.answers[again] == content("a", SIZE)[:10]
    reader.close()
    world.memory.close()


async def test_R5_a_read_that_gets_no_memory_ends_at_the_deadline_too(autojump_clock):
    world = reading(2, deadline=30.0)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        reads.start(world.open("a", SIZE), 0, 10)
        reads.start(world.open("b", SIZE), 0, 10)
        await settle()
        assert len(world.transport.under_way) == 2
        began = trio.current_time()
        waiting = reads.start(world.open("c", SIZE), 0, 10)
        await trio.sleep(29.9)
        assert waiting not in reads.answers
        await trio.sleep(0.2)
        assert isinstance(reads.answers[waiting], StoreTimeoutError)
        assert trio.current_time() - began < 30.5
        world.transport.end_all()
    world.memory.close()


async def test_a_read_that_is_given_up_takes_nobodys_bytes_along(world):
    one, two = world.open("a", SIZE), world.open("a", SIZE)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        number = reads.start(two, 0, 100)
        with trio.move_on_after(0):
            await one.read(0, 100)
        await settle()
        assert world.transport.asked == [(0, 1)]
        world.transport.end_all()
    assert reads.answers[number] == content("a", SIZE)[:100]
    assert all(not buffer.pins for buffer in [world.buffers.find(one.target.digest, 0)])


# -- chunks on disk -------------------------------------------------------------------------------------------------


def damage(disk, pinned, index):
    path = Path(disk._path(pinned.chunk_id(index)))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)


async def test_a_chunk_on_disk_is_read_without_a_store_and_without_memory(disk):
    world = reading(16, disk=disk)
    reader = world.open("a", SIZE)
    put_on_disk(disk, reader.target, 0)
    with trio.CancelScope() as scope:
        scope.cancel()
        assert await reader.read(100, 1000) == content("a", SIZE)[100:1100]
    assert not scope.cancelled_caught
    assert world.transport.fetches == []
    assert world.arena.used == 0
    world.memory.close()


@pytest.mark.parametrize("counter", ["free", "locked"])
@pytest.mark.parametrize(("offset", "size"), [(0, 100), (CHUNK - 50, 100)], ids=["within", "over its end"])
async def test_R1_a_damaged_chunk_on_disk_is_a_miss_and_is_fetched_again(disk, counter, offset, size):
    """Also when it cannot be removed at once, because another process holds the lock of the cache."""
    world = reading(16, disk=disk)
    reader = world.open("a", SIZE)
    put_on_disk(disk, reader.target, 0, 1)
    damage(disk, reader.target, 0)
    with trio.fail_after(20):
        if counter == "locked":
            with disk._counter.changing():
                assert await answer(world, reader, offset, size) == content("a", SIZE)[offset : offset + size]
        else:
            assert await answer(world, reader, offset, size) == content("a", SIZE)[offset : offset + size]
    assert world.transport.asked == [(0, 1)]
    world.fetcher.close()
    world.memory.close()


async def test_R7_read_ahead_leaves_out_what_is_on_disk(disk):
    world = reading(256, disk=disk)
    reader = world.open("a", SIZE)
    put_on_disk(disk, reader.target, 0, 1, 2, 5, 6)
    for offset in (0, CHUNK):
        assert await answer(world, reader, offset, CHUNK) == content("a", SIZE)[offset : offset + CHUNK]
    assert world.transport.asked[:2] == [(3, 2), (7, 2 + FIRST_WINDOW // CHUNK - 7)]
    world.fetcher.close()
    world.memory.close()


# -- many readers, little memory ------------------------------------------------------------------------------------


async def hurry(world, readers, *, seed, sizes, steps, latency):
    """Many readers at once, whose fetches take `latency` seconds each; returns how long it took."""
    chance = random.Random(seed)
    wrong = []

    async def read(reader, key):
        for _ in range(steps):
            size = chance.choice(sizes)
            offset = chance.randrange(SIZE - size)
            if bytes(await reader.read(offset, size)) != content(key, SIZE)[offset : offset + size]:
                wrong.append((key, offset, size))
            await trio.sleep(chance.choice((0, latency / 3)))
        reader.close()

    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def end_later(fetch):
            await trio.sleep(latency / 2)
            fetch.arrive(len(fetch.data) // 2)
            await trio.sleep(latency / 2)
            fetch.end()

        world.transport.automatic = lambda fetch: nursery.start_soon(end_later, fetch)
        for number in range(readers):
            nursery.start_soon(read, world.open(f"object {number}", SIZE), f"object {number}")
    assert wrong == []
    assert world.arena.used == 0
    return trio.current_time() - began


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sizes", [[1000], [CHUNK], [CHUNK + 1, 2 * CHUNK], [10, CHUNK, 3 * CHUNK]], ids=str)
async def test_L4_64_readers_over_a_small_arena_all_make_progress(autojump_clock, sizes, seed):
    world = reading(16, deadline=30.0)
    steps, latency = 4, 0.01
    took = await hurry(world, 64, seed=seed, sizes=sizes, steps=steps, latency=latency)
    # Were everything fetched one after another, with four ranges for each read, it would take so long.
    assert took < 64 * steps * 4 * latency
    world.memory.close()


async def test_L4_nobody_who_waits_for_memory_keeps_any(autojump_clock):
    """Four readers fill the memory with the first part of what they read; none is left for their second parts."""
    world = reading(16, deadline=30.0)
    readers = [world.open(f"object {number}", SIZE) for number in range(4)]
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)
        for reader in readers:
            reads.start(reader, 0, 4 * CHUNK)
        await settle()
        numbers = [reads.start(world.open(reader.target.key, SIZE), 0, 5 * CHUNK) for reader in readers]
        await settle()
        assert world.arena.used == world.arena.size
        assert world.buffers.hungry == 4
        began = trio.current_time()
        while world.transport.under_way:
            for fetch in list(world.transport.under_way):
                fetch.end()
            await settle()
    assert trio.current_time() == began
    for number, reader in zip(numbers, readers, strict=True):
        assert reads.answers[number] == content(reader.target.key, SIZE)[: 5 * CHUNK]
    world.memory.close()
