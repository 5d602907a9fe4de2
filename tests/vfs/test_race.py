"""Second requests for what a store keeps waiting (R9), with the rudest workers there can be.

All bytes of a fetch's memory that were not announced are noise until it is over, also those of the attempt that lost.
"""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from mscfs.cache.arena import UNIT
from mscfs.errors import StoreUnavailableError
from mscfs.replicas.health import Health
from mscfs.replicas.source import Replica, Source
from mscfs.vfs.hedging import BURST, SHARE
from tests.doubles import Clock
from tests.replicas.stores import memory
from tests.vfs.fetching import CHUNK, Reads, content, reading, unavailable

SIZE = 3 * CHUNK + 5


@asynccontextmanager
async def racing(units=64, **options):
    """One object read through a mount with two replicas and a primary."""
    clock = Clock()
    near, far = (Replica(name, memory(name), health=Health(clock=clock)) for name in ("near", "far"))
    sources = [Source("primary", memory("primary"), health=Health(clock=clock)), near, far]
    for source in sources:
        source.health.on_change = lambda: None
    world = reading(units, sources=sources, **options)
    async with trio.open_nursery() as nursery:
        reads = Reads(nursery)

        async def read(key="k", offset=0, size=CHUNK):
            number = reads.start(world.open(key, SIZE), offset, size)
            await trio.testing.wait_all_tasks_blocked()
            return number

        yield SimpleNamespace(
            **vars(world), reads=reads, read=read, near=near, far=far, primary=sources[0], sources=sources, clock=clock
        )
        while world.transport.under_way:
            world.transport.under_way[0].end()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    for buffer in {id(buffer): buffer for buffer in world.buffers._found.values()}.values():
        world.buffers.discard_object(buffer.target.digest)
    assert world.arena.used == 0, "memory that nobody gave back"


async def settle():
    await trio.testing.wait_all_tasks_blocked()


def expected(key="k", offset=0, size=CHUNK):
    return content(key, SIZE)[offset : offset + size]


async def test_R9_a_slow_store_is_left_and_the_second_answer_wins():
    async with racing() as r:
        number = await r.read()
        first = r.transport.fetches[0]
        first.slow("near", ())
        second = r.transport.fetches[1]
        assert (second.without, second.lacking, second.foreground) == (("near",), (), True)
        assert (second.first, second.count) == (first.first, first.count)
        second.end()
        await settle()
        assert r.reads.answers[number] == expected()
        assert first.cancelled
        assert (r.hedging.started, r.hedging.won) == (1, 1)
        assert len(r.summaries) == 1
        first.give_up()
        assert len(r.summaries) == 1


async def test_R9_the_first_answer_may_still_win_and_the_second_is_cancelled():
    async with racing() as r:
        number = await r.read()
        first = r.transport.fetches[0]
        first.slow("near", ())
        second = r.transport.fetches[1]
        first.end()
        await settle()
        assert r.reads.answers[number] == expected()
        assert second.cancelled
        assert (r.hedging.started, r.hedging.won) == (1, 0)
        second.give_up()


async def test_R9_bytes_of_the_loser_are_never_seen():
    async with racing() as r:
        await r.read(size=SIZE)
        first = r.transport.fetches[0]
        first.slow("near", ())
        r.transport.fetches[1].end()
        first.scribble()
        first.arrive(2 * CHUNK)  # as if it had been whole
        number = await r.read(offset=CHUNK, size=CHUNK)
        assert r.reads.answers[number] == expected(offset=CHUNK)
        first.end()
        number = await r.read(offset=2 * CHUNK, size=CHUNK)
        assert r.reads.answers[number] == expected(offset=2 * CHUNK)


async def test_R5_R9_a_stream_that_stalls_in_the_middle_is_gone_on_with_elsewhere():
    async with racing() as r:
        number = await r.read(size=SIZE)
        first = r.transport.fetches[0]
        begin = r.transport.fetches[0].first
        assert begin == 0
        first.arrive(CHUNK + 7)
        first.slow("near", ())
        second = r.transport.fetches[1]
        assert second.arrived == CHUNK + 7  # it goes on there, in memory that has what came before
        second.arrive(2 * CHUNK)
        first.arrive(CHUNK + 9)
        second.end()
        await settle()
        assert r.reads.answers[number] == expected(size=SIZE)
        first.give_up()


async def test_R9_whoever_is_ahead_is_read_and_readers_never_see_both_mixed_up():
    async with racing() as r:
        numbers = [await r.read(offset=at, size=CHUNK) for at in (0, CHUNK, 2 * CHUNK)]
        await r.read(size=SIZE)
        big = next(fetch for fetch in r.transport.fetches)
        big.slow("near", ())
        other = r.transport.fetches[-1]
        for size in range(1000, len(big.data), 7919):
            (big if size % 2 else other).arrive(max(size, big.arrived, other.arrived))
            await settle()
        other.end()
        big.give_up()
        while r.transport.under_way:
            r.transport.under_way[0].end()
        await settle()
        for number, at in zip(numbers, (0, CHUNK, 2 * CHUNK), strict=True):
            assert r.reads.answers[number] == expected(offset=at)


@pytest.mark.parametrize("which", [0, 1])
async def test_R5_one_attempt_that_fails_leaves_the_other(which):
    async with racing() as r:
        number = await r.read(size=SIZE)
        first = r.transport.fetches[0]
        first.arrive(CHUNK)
        first.slow("near", ())
        both = [first, r.transport.fetches[1]]
        both[which].arrive(2 * CHUNK)  # further than the other
        await settle()
        both[which].end(unavailable())
        await settle()
        assert number not in r.reads.answers
        both[1 - which].end()
        await settle()
        assert r.reads.answers[number] == expected(size=SIZE)


async def test_R5_both_attempts_fail():
    async with racing() as r:
        number = await r.read()
        r.transport.fetches[0].slow("near", ())
        r.transport.fetches[1].end(unavailable("one"))
        await settle()
        assert number not in r.reads.answers
        r.transport.fetches[0].end(unavailable("two"))
        await settle()
        assert isinstance(r.reads.answers[number], StoreUnavailableError)
        assert r.hedging.won == 0


async def test_a_reader_that_leaves_cancels_both():
    async with racing() as r:
        reader = r.open("k", SIZE)
        reader.start()
        r.fetcher.start(reader.target, 0, 1, foreground=True)
        first = r.transport.fetches[0]
        first.slow("near", ())
        reader.close()
        assert [fetch.cancelled for fetch in r.transport.fetches] == [True, True]
        r.transport.fetches[1].give_up()
        first.give_up()


async def test_R9_what_nobody_waits_for_is_asked_twice_when_somebody_does():
    async with racing() as r:
        reader = r.open("k", SIZE)
        assert r.fetcher.start(reader.target, 0, 1, foreground=False)
        r.transport.fetches[0].slow("near", ())
        assert len(r.transport.fetches) == 1
        r.fetcher.start(reader.target, 0, 1, foreground=True)
        assert [fetch.without for fetch in r.transport.fetches] == [(), ("near",)]
        assert r.transport.fetches[0].promoted


async def test_R9_only_stores_that_are_of_use_get_a_second_request():
    async with racing() as r:
        await r.read()
        first = r.transport.fetches[0]
        first.slow("far", ("near",))
        assert r.transport.fetches[1].lacking == ("near",)
        assert r.transport.fetches[1].without == ("far",)


@pytest.mark.parametrize("others", ["down", "lacking"])
async def test_R9_there_is_no_second_request_when_no_other_store_is_of_use(others):
    async with racing() as r:
        await r.read()
        if others == "down":
            for source in (r.far, r.primary):
                source.health.open("a test")
            r.transport.fetches[0].slow("near", ())
        else:
            r.transport.fetches[0].slow("primary", ("near", "far"))
        assert len(r.transport.fetches) == 1


async def test_R9_hedging_can_be_turned_off():
    async with racing() as r:
        r.hedging._enabled = False
        await r.read()
        r.transport.fetches[0].slow("near", ())
        assert len(r.transport.fetches) == 1


async def test_R5_without_hedging_a_read_that_a_silent_directory_holds_up_goes_on_elsewhere():
    """No time-out ends it: the store has to be found silent, which somebody must look for."""
    async with racing() as r:
        r.hedging._enabled = False
        suspects = []
        r.hedging.suspect = suspects.append
        number = await r.read()
        first = r.transport.fetches[0]
        first.slow("near", ())
        assert suspects == ["near"]
        assert len(r.transport.fetches) == 1
        r.near.health.open("silent")
        r.hedging.store_is_down("near")
        assert r.transport.fetches[1].without == ("near",)
        r.transport.fetches[1].end()
        await settle()
        assert r.reads.answers[number] == expected()
        first.give_up()


async def test_R9_without_memory_there_is_no_second_request():
    async with racing(units=4) as r:
        await r.read(size=SIZE)
        fetches = len(r.transport.fetches)
        r.transport.fetches[0].slow("near", ())
        assert len(r.transport.fetches) == fetches
        assert r.hedging.started == 0


async def test_R9_L4_there_is_room_for_second_requests_when_all_memory_waits_for_a_stalled_store():
    """Three reads fill what is for reads, more wait for memory, and one reserved place serves the three in turn."""
    async with racing(units=4, reserve=1) as r:
        assert (r.arena.size, r.memory.size) == (4 * CHUNK, 4 * CHUNK)
        numbers = [await r.read(key) for key in ("a", "b", "c")]
        hungry = [await r.read(key) for key in ("d", "e")]
        stalled = list(r.transport.fetches)
        assert [fetch.key for fetch in stalled] == ["a", "b", "c"]
        assert r.buffers.hungry == 2
        for fetch in stalled:
            fetch.slow("near", ())
        for position, (number, first) in enumerate(zip(numbers, stalled, strict=True)):
            assert r.arena.used == r.arena.size, "the budget is used up, and kept"
            second = r.transport.fetches[-1]
            assert len(r.transport.fetches) == 3 + position + 1, "one second request at a time"
            assert (second.key, second.without, r.arena.is_reserved(second.target)) == (first.key, ("near",), True)
            second.end()
            await settle()
            assert r.reads.answers[number] == expected(first.key)
        assert (r.hedging.started, r.hedging.won) == (3, 3)
        assert r.buffers.hungry == 2, "the memory of the losers is theirs until their workers let go of it"
        for fetch in stalled:
            fetch.scribble()
            fetch.give_up()
        await settle()
        for fetch in list(r.transport.under_way):
            fetch.end()
        await settle()
        assert [r.reads.answers[number] for number in hungry] == [expected("d"), expected("e")]


async def test_R9_L4_second_requests_take_no_memory_from_reads_that_wait_for_it():
    async with racing(units=5, reserve=1) as r:
        await r.read("a", size=2 * CHUNK)
        await r.read("b")
        large = await r.read("c", size=2 * CHUNK)  # one unit is free
        assert r.buffers.hungry > 0
        one = next(fetch for fetch in r.transport.fetches if fetch.key == "b")
        one.slow("near", ())
        assert r.arena.is_reserved(r.transport.fetches[-1].target)
        r.transport.end_all()
        await settle()
        while r.transport.under_way:
            r.transport.end_all()
            await settle()
        assert r.reads.answers[large] == expected("c", size=2 * CHUNK)


async def test_R9_a_second_request_that_is_too_large_for_the_reserve_begins_when_there_is_room():
    async with racing(units=16, reserve=1) as r:
        for key in "abc":
            await r.read(key, size=SIZE)
        for key in "def":
            await r.read(key)
        assert r.arena.used == r.arena.size - UNIT
        asked = {fetch.key: fetch for fetch in r.transport.fetches}
        assert len(asked["a"].data) > UNIT
        asked["a"].slow("near", ())
        assert r.hedging.started == 0
        asked["b"].end()
        await settle()
        assert (r.hedging.started, r.transport.fetches[-1].key) == (1, "a"), "what b has read gives way"


@pytest.mark.parametrize("seed", range(20))
async def test_R1_R9_L4_with_little_memory_all_orders_of_events_give_every_reader_its_bytes(seed):
    chance = random.Random(seed)
    async with racing(units=6, reserve=1) as r:
        r.hedging._allowance = BURST
        wanted = {}
        for step in range(120):
            if step < 60 and chance.random() < 0.5:
                key, at = chance.choice("abcdefgh"), chance.randrange(3) * CHUNK
                wanted[await r.read(key, offset=at)] = expected(key, offset=at)
            if r.transport.under_way:
                fetch = chance.choice(r.transport.under_way)
                match chance.randrange(4):
                    case 0 if not fetch.cancelled and not fetch.without:
                        fetch.slow("near", ())
                    case 1:
                        fetch.arrive(chance.randrange(1, len(fetch.data)))
                    case 2:
                        fetch.give_up() if fetch.cancelled else fetch.end()
                    case 3:
                        fetch.scribble()
            assert r.arena.used <= r.arena.size
            if chance.random() < 0.7:
                await settle()
        for _ in range(1000):
            if not r.transport.under_way:
                break
            fetch = r.transport.under_way[0]
            fetch.give_up() if fetch.cancelled else fetch.end()
            await settle()
        assert {number: r.reads.answers[number] for number in wanted} == wanted
        assert r.hedging.started > 0


async def test_R9_second_requests_are_few_among_many():
    async with racing(units=2000) as r:
        for number in range(int(BURST) + 5):
            await r.read(f"{number}")
        asked = list(r.transport.fetches)
        for fetch in asked:
            fetch.slow("near", ())
        assert r.hedging.started == BURST
        for fetch in list(r.transport.under_way):
            fetch.end()
        # From now on one for so many fetches.
        for number in range(100):
            await r.read(f"later {number}")
            fetch = r.transport.fetches[-1]
            fetch.slow("near", ())
            for each in reversed(list(r.transport.under_way)):
                each.end()
            r.near.health.succeeded()
        assert r.hedging.started <= BURST + (100 + BURST) * SHARE + 1


async def test_R9_a_store_that_loses_three_times_is_down_and_all_who_wait_for_it_are_helped():
    async with racing(units=2000) as r:
        r.near.health.on_change = lambda: r.hedging.store_is_down("near")
        for number in range(40):
            await r.read(f"{number}")
        first = list(r.transport.fetches)
        for fetch in first:
            fetch.slow("near", ())
        seconds = r.transport.fetches[40:]
        assert len(seconds) == BURST
        for fetch in seconds[:3]:
            fetch.end()
        assert not r.near.health.healthy
        assert len(r.transport.fetches) == 80, "each has a second attempt by now"
        await settle()


async def test_R9_a_store_that_was_down_a_moment_ago_gets_no_patience():
    async with racing(units=2000) as r:
        r.hedging._allowance = 0
        await r.read("one")
        r.transport.fetches[0].slow("near", ())
        assert len(r.transport.fetches) == 1
        r.near.health.open("a test")
        r.near.health.succeeded()
        assert r.near.health.healthy
        await r.read("two")
        r.transport.fetches[1].slow("near", ())
        assert r.transport.fetches[2].without == ("near",)
        r.transport.fetches[2].end()
        assert not r.near.health.healthy, "it failed again: that is enough"


async def test_L3_a_second_request_that_cannot_be_made_when_a_store_is_down_is_not_the_end_of_the_mount(monkeypatch):
    """It would be raised in trio itself, where `Outlook.refresh` is called."""
    async with racing() as r:
        numbers = [await r.read(key) for key in ("one", "two")]
        first, second = r.transport.fetches
        r.hedging._allowance = 0
        for fetch in (first, second):
            fetch.slow("near", ())
        real = r.transport.start_fetch
        monkeypatch.setattr(
            r.transport, "start_fetch", lambda key, *_, **how: 1 / (key != "one") and real(key, *_, **how)
        )
        r.near.health.open("a test")
        r.hedging.store_is_down("near")
        [third] = r.transport.fetches[2:]
        assert third.key == "two"
        for fetch in (first, third):
            fetch.end()
        await settle()
        assert [r.reads.answers[number] for number in numbers] == [expected("one"), expected("two")]
        second.give_up()


async def test_a_second_request_that_cannot_be_made_leaves_the_first(monkeypatch):
    async with racing() as r:
        number = await r.read()
        used = r.arena.used
        real = r.transport.start_fetch
        monkeypatch.setattr(r.transport, "start_fetch", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            r.transport.fetches[0].slow("near", ())
        monkeypatch.setattr(r.transport, "start_fetch", real)
        assert r.arena.used == used
        r.transport.fetches[0].end()
        await settle()
        assert r.reads.answers[number] == expected()
    assert CHUNK == UNIT
