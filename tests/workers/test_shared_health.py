"""Slow and failing stores, seen by worker processes and told to all of them (R9)."""

from __future__ import annotations

import os
import signal

import pytest
import trio

from mscfs.cache.arena import Arena, SharedMemory
from mscfs.errors import StoreUnavailableError
from mscfs.replicas.latency import Waits
from mscfs.replicas.source import Replica, Source
from mscfs.types import STAMP_KEY
from mscfs.vfs.fetcher import Fetcher
from mscfs.vfs.hedging import Hedging
from mscfs.vfs.outlook import Outlook
from mscfs.vfs.reader import ChunkReader
from mscfs.workers.pool import WorkerPool
from mscfs.workers.protocol import Stores
from tests.workers.stores import FACTORY, PIECE, DirectoryStore, configuration
from tests.workers.test_pool import Fetched, fetch, running

CONTENT = os.urandom(3 * PIECE + 77)
CHUNKS = 4
ROOM = 1 << 20
AT_ONCE = Waits(0.001, (0.001, 0.001, 0.001))


class Pair:
    """A primary and its replica `near`, in directories, and a pool that reads through them with few threads."""

    def __init__(self, root):
        for name in ("far", "near"):
            (root / name).mkdir()
        self.far, self.near = DirectoryStore(root / "far", "test"), DirectoryStore(root / "near", "near")
        self.memory = SharedMemory(64 << 20)

    def pool(self, **options):
        return WorkerPool(
            configuration(root=str(self.far.root), replica=str(self.near.root)),
            "test",
            None,
            self.memory,
            namespace="test",
            chunk_size=PIECE,
            store_factory=FACTORY,
            **options,
        )

    def put(self, key):
        version = self.far.put(key, [CONTENT]).version
        self.near.put(key, [CONTENT], metadata={STAMP_KEY: version.stamp()})
        return version

    def read(self, slot=0):
        return bytes(self.memory.view[slot * ROOM : slot * ROOM + len(CONTENT)])


@pytest.fixture
def pair(tmp_path):
    pair = Pair(tmp_path)
    yield pair
    pair.memory.close()


async def test_R9_a_stalled_store_holds_up_neither_the_second_request_nor_those_after_it(pair):
    version, other = pair.put("k"), pair.put("other")
    hold = pair.near.hold("k")
    async with running(pair.pool(fetch_threads=1)) as pool:
        pool.tell(Stores((), {"near": AT_ONCE}))
        stalled = Fetched(pool, "k", version, 0, CHUNKS)
        await stalled.is_slow()
        assert stalled.slow[0] == ("near", ())
        # The only thread waits for the replica.
        summary = await fetch(pool, "k", version, 0, CHUNKS, ROOM, without=("near",))
        assert (summary.source, pair.read(1)) == ("test", CONTENT)
        stalled.started.cancel()
        summary = await fetch(pool, "other", other, 0, CHUNKS, 2 * ROOM)
        assert (summary.source, pair.read(2)) == ("near", CONTENT)
        assert not stalled.ends
        hold.end()
        with pytest.raises(Exception, match="given up"):
            await stalled.summary()
        # The thread that was held up has ended, the one in its place works.
        assert (await fetch(pool, "other", other, 0, CHUNKS)).seconds > 0


async def test_R9_what_was_given_up_before_it_was_slow_holds_up_those_after_it_no_longer_than_that(pair):
    """Of a directory that is silent it would hold them up for ever, and each of them could do so."""
    version, other = pair.put("k"), pair.put("other")
    hold = pair.near.hold("k")
    async with running(pair.pool(fetch_threads=1)) as pool:
        pool.tell(Stores((), {"near": Waits(0.5, (0.5, 0.5, 0.5))}))
        stalled = Fetched(pool, "k", version, 0, CHUNKS)
        await hold.arrival()
        stalled.started.cancel()
        with trio.fail_after(60):
            assert (await fetch(pool, "other", other, 0, CHUNKS, ROOM)).source == "near"
        assert not stalled.ends
        hold.end()
        with pytest.raises(Exception, match="given up"):
            await stalled.summary()


async def test_R9_what_a_store_did_is_told_at_once_and_a_store_that_is_down_is_asked_by_no_worker(pair):
    versions = {key: pair.put(key) for key in "abcd"}
    pair.near.fail("a")
    troubles = []
    async with running(pair.pool(fetch_processes=2)) as pool:
        pool.on_trouble = lambda store, error: troubles.append((store, error))
        summary = await fetch(pool, "a", versions["a"], 0, CHUNKS)
        assert (summary.source, dict(summary.errors), summary.seconds) == ("test", {"near": 1}, 0)
        [(store, error)] = troubles
        assert store == "near"
        assert isinstance(error, StoreUnavailableError)
        assert error.message == "as it was told"
        pool.tell(Stores(("near",), {}))
        async with trio.open_nursery() as nursery:
            for number, key in enumerate("bcd"):
                nursery.start_soon(fetch, pool, key, versions[key], 0, CHUNKS, number * ROOM)
        assert [pair.near.requests(key) for key in "bcd"] == [[], [], []]
        pool.tell(Stores((), {}))
        assert (await fetch(pool, "b", versions["b"], 0, CHUNKS)).source == "near"


async def test_R9_a_worker_that_is_started_later_is_told_too(pair):
    version = pair.put("a")
    async with running(pair.pool()) as pool:
        pool.tell(Stores(("near",), {}))
        os.kill(pool.fetchers.workers[0].process_id, signal.SIGKILL)
        assert (await fetch(pool, "a", version, 0, CHUNKS)).source == "test"
        assert (await fetch(pool, "a", version, 0, CHUNKS)).source == "test"
        assert pair.near.requests("a") == []


async def test_R9_a_store_that_fails_for_nobody_is_not_blamed(pair):
    """Who was given up may fail long after the store is back."""
    version = pair.put("k")
    hold = pair.near.hold("k")
    troubles = []
    async with running(pair.pool()) as pool:
        pool.on_trouble = lambda store, error: troubles.append(store)
        pool.tell(Stores((), {"near": AT_ONCE}))
        stalled = Fetched(pool, "k", version, 0, CHUNKS)
        await stalled.is_slow()
        stalled.started.cancel()
        pair.near.file("k").write_bytes(b"")  # the answer will end early
        hold.end()
        with pytest.raises(Exception, match="given up"):
            await stalled.summary()
        assert troubles == []
        assert pair.far.requests("k") == [], "nor is another store asked"


async def test_R5_R9_a_replica_that_stalls_costs_its_first_readers_a_moment_and_the_others_nothing(pair):
    """Everything but the kernel: readers, second requests, worker processes."""
    versions = {f"{number}": pair.put(f"{number}") for number in range(40)}
    holds = [pair.near.hold(key) for key in versions]
    sources = [Source("test", pair.far), Replica("near", pair.near)]
    answers = {}
    async with running(pair.pool(fetch_processes=2, fetch_threads=4)) as pool:
        hedging = Hedging(sources, enabled=True)
        outlook = Outlook(sources, pool.tell, watches=True, on_down=hedging.store_is_down)
        pool.on_trouble = outlook.failed
        fetcher = Fetcher(
            Arena(pair.memory),
            None,
            pool,
            namespace="test",
            chunk_size=PIECE,
            deadline=60,
            lacking=lambda _: (),
            hedging=hedging,
            on_summary=lambda target, summary: outlook.read(target.key, summary),
        )

        async def read(key):
            reader = ChunkReader(fetcher, fetcher.pin(key, versions[key]))
            answers[key] = bytes(await reader.read(0, PIECE))
            reader.close()

        async with trio.open_nursery() as readers:
            for key in versions:
                readers.start_soon(read, key)
        assert answers == dict.fromkeys(versions, CONTENT[:PIECE])
        assert outlook.latencies["test"].median is not None
        assert not sources[1].health.healthy
        asked = sum(len(pair.near.requests(key)) for key in versions)
        assert asked <= 20
        assert hedging.won >= 3
        for hold in holds:
            hold.end()
        await fetcher.settled()


async def test_failures_of_a_second_request_and_of_reads_that_fail_everywhere_are_counted_and_a_loser_is_none(pair):
    versions = {key: pair.put(key) for key in ("lost", "won", "other", "nowhere")}
    sources = [Source("test", pair.far), Replica("near", pair.near)]
    async with running(pair.pool()) as pool:
        outlook = Outlook(sources, pool.tell, watches=True, on_down=lambda _: None)
        pool.on_trouble = outlook.failed

        def errors():
            return {source.profile: source.statistics.errors for source in sources}

        hold = pair.near.hold("lost")
        pool.tell(Stores((), {"near": AT_ONCE}))
        first = Fetched(pool, "lost", versions["lost"], 0, CHUNKS)
        await first.is_slow()
        pair.far.fail("lost")
        with pytest.raises(StoreUnavailableError):
            await fetch(pool, "lost", versions["lost"], 0, CHUNKS, ROOM, without=("near",))
        assert errors()["test"] > 0
        assert errors()["near"] == 0
        hold.end()
        await first.summary()

        counted = errors()
        pool.tell(Stores((), {"near": AT_ONCE}))
        hold = pair.near.hold("won")
        first = Fetched(pool, "won", versions["won"], 0, CHUNKS)
        await first.is_slow()
        await fetch(pool, "won", versions["won"], 0, CHUNKS, ROOM, without=("near",))
        first.started.cancel()
        await fetch(pool, "other", versions["other"], 0, CHUNKS, 2 * ROOM)  # the worker has heard of both
        hold.end()
        with pytest.raises(Exception, match="given up"):
            await first.summary()
        assert errors() == counted

        for store in (pair.near, pair.far):
            store.fail("nowhere")
        with pytest.raises(StoreUnavailableError):
            await fetch(pool, "nowhere", versions["nowhere"], 0, CHUNKS)
        assert all(errors()[name] > counted[name] for name in counted)
