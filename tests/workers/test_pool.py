"""Worker processes: what they deliver, and what happens when they die."""

import errno
import logging
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from mscfs.cache.arena import SharedMemory
from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.errors import (
    ConfigError,
    MscfsError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.types import ByteRange, Version
from mscfs.workers import launch, worker
from mscfs.workers.pool import GroupStatistics, WorkerPool
from mscfs.workers.protocol import Arrived, decode_from_worker
from tests.workers.stores import FACTORY, PIECE, DirectoryStore, configuration

CHUNK = PIECE
CONTENT = bytes(os.urandom(3 * CHUNK + 77))
SECRET = "s3cr3t-value"


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def cache(tmp_path):
    with ChunkCache(tmp_path / "cache", 1 << 30) as cache:
        yield cache


@pytest.fixture
def memory():
    memory = SharedMemory(16 << 20)
    yield memory
    memory.close()


def make_pool(store, cache, memory, **options):
    return WorkerPool(
        configuration(root=str(store.root), secret=SECRET, **options.pop("store_options", {})),
        "test",
        cache.settings if cache else None,
        memory,
        namespace="test",
        chunk_size=CHUNK,
        store_factory=FACTORY,
        **options,
    )


@asynccontextmanager
async def running(pool):
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        yield pool
        nursery.cancel_scope.cancel()


class Fetched:
    """A fetch under way: what was announced, events to wait for it, and how it ended."""

    def __init__(self, pool, key, version, first=0, count=4, target=0, *, foreground=True, without=()):
        self.announced = []
        self.slow = []
        self.ends = []
        self._changed = trio.Event()
        self.started = pool.start_fetch(
            key,
            version,
            first,
            count,
            target,
            foreground=foreground,
            without=without,
            on_arrival=self._arrive,
            on_slow=self._slow,
            on_end=self._end,
        )

    def _arrive(self, size):
        assert not self.ends, "nothing arrives after the end"
        self.announced.append(size)
        self._change()

    def _slow(self, store, tried):
        self.slow.append((store, tuple(tried)))
        self._change()

    def _end(self, summary, error):
        self.ends.append((summary, error))
        self._change()

    def _change(self):
        self._changed.set()
        self._changed = trio.Event()

    async def reaches(self, size):
        while not self.announced or self.announced[-1] < size:
            await self._changed.wait()

    async def is_slow(self):
        while not self.slow:
            await self._changed.wait()

    async def summary(self):
        """What it came to, or its error raised, when it is over."""
        while not self.ends:
            await self._changed.wait()
        [(summary, error)] = self.ends
        if error is not None:
            assert summary is None
            raise error
        return summary


async def fetch(pool, *arguments, **options):
    return await Fetched(pool, *arguments, **options).summary()


def cached(cache, key, version, index):
    chunk = cache.open(ChunkId(object_digest("test", key, version, CHUNK), index))
    return bytes(chunk.view) if chunk else None


def whole(cache, key, version):
    return b"".join(cached(cache, key, version, index) for index in range(4))


def at(memory, target, size):
    return bytes(memory.view[target : target + size])


ROOM = 1 << 20
"""Enough for one object: the tests' fetches go to multiples of it."""


def process_of(group):
    return group.workers[0].process_id


async def test_R7_a_fetch_fills_the_memory_and_the_cache_and_announces_what_arrives(store, cache, memory):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache, memory)) as pool:
        fetched = Fetched(pool, "a", version, target=ROOM)
        summary = await fetched.summary()
        assert fetched.announced == [CHUNK, 2 * CHUNK, 3 * CHUNK, len(CONTENT)]
        assert (summary.source, summary.bytes) == ("test", len(CONTENT))
        assert at(memory, ROOM, len(CONTENT)) == CONTENT
        assert set(at(memory, 0, ROOM) + at(memory, ROOM + len(CONTENT), memory.size)) == {0}
        assert whole(cache, "a", version) == CONTENT
        assert store.readers("a") == [process_of(pool.fetchers)]


async def test_bytes_are_announced_while_the_next_are_still_awaited(store, cache, memory):
    version = store.put("a", [CONTENT]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache, memory)) as pool:
        fetched = Fetched(pool, "a", version)
        for size in (CHUNK, 2 * CHUNK, 3 * CHUNK):
            await fetched.reaches(size)
            assert fetched.announced[-1] == size
            assert at(memory, 0, size) == CONTENT[:size]
            hold.release()
        hold.release()  # the last bytes are good when the answer has ended
        assert (await fetched.summary()).bytes == len(CONTENT)


async def test_many_fetches_at_once_over_several_processes(store, cache, memory):
    versions = {f"k{number}": store.put(f"k{number}", [b"%03d" % number]).version for number in range(250)}
    async with running(make_pool(store, cache, memory, fetch_processes=2)) as pool:
        async with trio.open_nursery() as nursery:
            for number, (key, version) in enumerate(versions.items()):
                nursery.start_soon(fetch, pool, key, version, 0, 1, number << 16)
        assert [at(memory, number << 16, 3) for number in range(250)] == [b"%03d" % number for number in range(250)]
        assert all(cached(cache, key, version, 0) == b"%03d" % int(key[1:]) for key, version in versions.items())
        assert {store.readers(key)[0] for key in versions} == {one.process_id for one in pool.fetchers.workers}
        assert pool.statistics().fetch.busy == 0


async def test_W1_errors_come_home_with_store_and_key(store, cache, memory):
    async with running(make_pool(store, cache, memory)) as pool:
        with pytest.raises(NotFoundError) as caught:
            await fetch(pool, "no/such", Version(3, "x"), 0, 1)
        assert (caught.value.store, caught.value.key) == ("test", "no/such")
        with pytest.raises(NotFoundError, match="no such key"):
            await pool.download("no/such", Version(3, "x"), store.root / "target")


async def test_uploads_and_downloads_go_through_files(store, cache, memory, tmp_path):
    staged, target = tmp_path / "staged", tmp_path / "target"
    staged.write_bytes(CONTENT)
    async with running(make_pool(store, cache, memory)) as pool:
        written = await pool.upload("a/\udcff", staged, metadata={"k": "v"}, if_absent=True)
        assert (written.key, written.metadata) == ("a/\udcff", {"k": "v"})
        assert written == store.head("a/\udcff")
        target.touch()
        summary = await pool.download("a/\udcff", written.version, target)
        assert (target.read_bytes(), summary.bytes) == (CONTENT, len(CONTENT))
        with pytest.raises(VersionMismatchError):
            await pool.upload("a/\udcff", staged, expected=Version(1, "other"))


@pytest.mark.parametrize("directory", ["d/", "dies/"])
async def test_a_listing_comes_in_pages_also_when_its_worker_dies(store, cache, memory, directory):
    pages = []
    async with running(make_pool(store, cache, memory)) as pool:
        assert await pool.list_directory(directory, pages.append) == []
    names = {name for page in pages for name in page.names}
    assert names == {b"%05d" % number for number in range(2500)}
    assert max(len(page.names) for page in pages) == 1000


async def test_a_listing_nobody_waits_for_is_given_up(store, cache, memory):
    pages = []
    async with running(make_pool(store, cache, memory)) as pool:
        with trio.CancelScope() as scope:

            def first(page):
                pages.append(page)
                scope.cancel()

            await pool.list_directory("d/", first)
        assert scope.cancelled_caught
        await pool.list_directory("d/", lambda _: None)


async def test_W6_parts_of_a_file_become_an_object(store, cache, memory, tmp_path):
    staged = tmp_path / "staged"
    staged.write_bytes(CONTENT)
    async with running(make_pool(store, cache, memory)) as pool:
        upload, token = await pool.begin_parts("a/\udcff", {"k": "v"})
        assert token == f"by-{process_of(pool.transfers)}"
        async with trio.open_nursery() as nursery:
            for number, offset in enumerate(range(0, len(CONTENT), CHUNK), start=1):
                part = ByteRange(offset, CHUNK).clip(len(CONTENT))
                nursery.start_soon(pool.send_part, upload, "a/\udcff", number, staged, part)
        written = await pool.complete_parts(upload, "a/\udcff", if_absent=True, expected=None)
        assert written == store.head("a/\udcff")
        assert (store.file("a/\udcff").read_bytes(), written.metadata) == (CONTENT, {"k": "v"})
        upload, token = await pool.begin_parts("b", None)
        await pool.abort_parts(upload, "b", token)
        assert store.file("b", ".aborted").read_text() == token
        with pytest.raises(StoreUnavailableError, match="ended"):
            await pool.complete_parts(upload, "b", if_absent=False, expected=None)


async def test_W6_an_upload_in_parts_ends_with_its_worker_and_the_next_can_abort_it(store, cache, memory, tmp_path):
    staged = tmp_path / "staged"
    staged.write_bytes(CONTENT)
    async with running(make_pool(store, cache, memory)) as pool:
        upload, token = await pool.begin_parts("a", None)
        first = process_of(pool.transfers)
        store.kill("a", 1, when="part")
        with pytest.raises(StoreUnavailableError, match="ended with its worker"):
            await pool.send_part(upload, "a", 1, staged, ByteRange(0, CHUNK))
        assert process_of(pool.transfers) != first
        with pytest.raises(StoreUnavailableError):
            await pool.complete_parts(upload, "a", if_absent=False, expected=None)
        await pool.abort_parts(upload, "a", token)
        assert store.file("a", ".aborted").read_text() == f"by-{first}"
        assert not store.file("a").exists()


async def test_a_step_replicates(store, cache, memory, tmp_path):
    (tmp_path / "near").mkdir()
    store.put("a", [CONTENT])
    async with running(make_pool(store, cache, memory, store_options={"replica": str(tmp_path / "near")})) as pool:
        result = await pool.step("near", "a")
        assert (result.outcome, result.bytes) == ("copied", len(CONTENT))
        with pytest.raises(Exception, match="KeyError"):
            await pool.step("unknown", "a")
    assert DirectoryStore(tmp_path / "near").head("a").content_length == len(CONTENT)


async def test_W1_an_upload_does_not_wait_for_replication(store, cache, memory, tmp_path):
    (tmp_path / "near").mkdir()
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    holds = []
    for number in range(4):
        store.put(f"old{number}", [CONTENT])
        holds.append(store.hold(f"old{number}"))
    pool = make_pool(
        store, cache, memory, store_options={"replica": str(tmp_path / "near")}, upload_threads=1, step_threads=2
    )
    async with running(pool), trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(pool.step, "near", f"old{number}")
            await (holds[number].arrival() if number < 2 else trio.testing.wait_all_tasks_blocked())
        assert pool.statistics().transfer == GroupStatistics(1, busy=2, queued=2, restarts=0)
        await pool.upload("new", staged)
        assert store.head("new").content_length == 3
        assert pool.statistics().transfer == GroupStatistics(1, busy=2, queued=2, restarts=0)
        for hold in holds:
            hold.end()
    assert DirectoryStore(tmp_path / "near").head("old3").content_length == len(CONTENT)


@pytest.mark.parametrize("times", [1, 2])
async def test_R5_kill_9_of_a_worker_in_a_fetch_fails_no_read(store, cache, memory, times):
    version = store.put("a", [CONTENT]).version
    store.kill("a", times)
    async with running(make_pool(store, cache, memory)) as pool:
        first = process_of(pool.fetchers)
        fetched = Fetched(pool, "a", version, target=ROOM)
        summary = await fetched.summary()
        assert fetched.announced == [CHUNK, 2 * CHUNK, 3 * CHUNK, len(CONTENT)]
        assert at(memory, ROOM, len(CONTENT)) == CONTENT
        assert whole(cache, "a", version) == CONTENT
        assert summary.source == "test"
        assert process_of(pool.fetchers) != first
        assert pool.statistics().fetch.restarts == times
    # What had arrived is not asked for again.
    assert store.requests("a")[-1] == f"{times * CHUNK}+{len(CONTENT) - times * CHUNK}"


async def test_R5_kill_9_from_outside_repeats_all_that_was_under_way(store, cache, memory):
    versions = {f"k{number}": store.put(f"k{number}", [CONTENT]).version for number in range(10)}
    hold = store.hold("k0")
    async with running(make_pool(store, cache, memory)) as pool:
        fetches = [Fetched(pool, key, version, target=n * ROOM) for n, (key, version) in enumerate(versions.items())]
        await fetches[0].reaches(CHUNK)
        os.kill(process_of(pool.fetchers), signal.SIGKILL)
        hold.end()
        for number, fetched in enumerate(fetches):
            await fetched.summary()
            assert at(memory, number * ROOM, len(CONTENT)) == CONTENT
        assert all(whole(cache, key, version) == CONTENT for key, version in versions.items())


async def test_R5_a_request_that_kills_its_workers_fails_and_takes_no_other_along(store, cache, memory):
    versions = {f"k{number}": store.put(f"k{number}", [b"data"]).version for number in range(20)}
    store.kill("k7", 100)
    failed = []

    async def try_to_fetch(key):
        try:
            await fetch(pool, key, versions[key], 0, 1, int(key[1:]) << 16)
        except StoreUnavailableError as error:
            failed.append(error)

    async with running(make_pool(store, cache, memory)) as pool:
        async with trio.open_nursery() as nursery:
            for key in versions:
                nursery.start_soon(try_to_fetch, key)
        assert [error.key for error in failed] == ["k7"]
        assert failed[0].errno == 5
        assert pool.statistics().fetch == GroupStatistics(1, 0, 0, 3)
    assert len(store.requests("k7")) == 3


async def test_R5_slow_requests_survive_one_that_kills_their_worker_again_and_again(store, cache, memory):
    keys = ["poison", "slow0", "slow1", "slow2"]
    versions = {key: store.put(key, [CONTENT]).version for key in keys}
    holds = {key: store.hold(key) for key in keys}
    store.kill("poison", 100)
    async with running(make_pool(store, cache, memory)) as pool:
        fetches = {}
        for number, key in enumerate(keys):
            fetches[key] = Fetched(pool, key, versions[key], target=number * ROOM)
            await holds[key].arrival()
        holds["poison"].release()
        for _ in range(2):
            await holds["poison"].arrival()
            holds["poison"].release()
        with pytest.raises(StoreUnavailableError):
            await fetches["poison"].summary()
        for number, key in enumerate(keys[1:], start=1):
            holds[key].end()
            await fetches[key].summary()
            assert at(memory, number * ROOM, len(CONTENT)) == CONTENT
    assert all(whole(cache, key, versions[key]) == CONTENT for key in keys[1:])


async def test_R5_bytes_are_announced_once_also_when_only_the_end_of_their_fetch_was_lost(store, cache, memory):
    content = CONTENT[: 2 * CHUNK]
    version = store.put("a", [content]).version
    store.kill("a", 2)
    async with running(make_pool(store, cache, memory)) as pool:
        fetched = Fetched(pool, "a", version, 0, 2)
        await fetched.summary()
        assert fetched.announced == [CHUNK, 2 * CHUNK]
        assert at(memory, 0, len(content)) == content
    assert store.requests("a") == [f"0+{2 * CHUNK}", f"{CHUNK}+{CHUNK}", f"{CHUNK}+{CHUNK}"]


async def test_R5_a_worker_that_dies_while_it_keeps_chunks_on_disk_had_delivered_all_bytes(store, cache, memory):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache, memory)) as pool:
        for slot in (1, 2):
            # A pipe where the first chunk is to be written holds its writer up.
            os.mkfifo(cache.settings.directory / "incoming" / f"{slot}-0")
        fetched = Fetched(pool, "a", version)
        await fetched.reaches(len(CONTENT))
        assert at(memory, 0, len(CONTENT)) == CONTENT
        assert fetched.ends == []
        os.kill(process_of(pool.fetchers), signal.SIGKILL)
        assert (await fetched.summary()).source == "test"
        assert fetched.announced == [CHUNK, 2 * CHUNK, 3 * CHUNK, len(CONTENT)]
        assert at(memory, 0, len(CONTENT)) == CONTENT
        assert whole(cache, "a", version) == CONTENT
    assert store.requests("a") == [f"0+{len(CONTENT)}", f"{len(CONTENT)}+0"]


async def test_W5_an_upload_whose_worker_died_after_it_succeeded_is_a_success(store, cache, memory, tmp_path):
    staged = tmp_path / "staged"
    staged.write_bytes(CONTENT)
    base = store.put("a", [b"old"]).version
    store.kill("a", 1, when="put")
    store.kill("b", 1, when="put")
    async with running(make_pool(store, cache, memory)) as pool:
        assert await pool.upload("a", staged, expected=base) == store.head("a")
        assert await pool.upload("b", staged, if_absent=True) == store.head("b")
        assert pool.statistics().transfer.restarts == 2
        assert pool.statistics().fetch.restarts == 0


async def test_a_cancelled_fetch_is_given_up_and_answered_and_never_writes_afterwards(store, cache, memory):
    version, other = store.put("a", [CONTENT]).version, store.put("b", [b"data"]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache, memory, fetch_threads=2)) as pool:  # one of them for the background
        fetched = Fetched(pool, "a", version, foreground=False)
        await hold.arrival()
        fetched.started.cancel()
        # Messages are received in order: when this one is answered, the cancellation has arrived.
        await fetch(pool, "b", other, 0, 1, ROOM)
        assert fetched.ends == []  # its thread still waits for the store, and may write
        hold.end()
        with pytest.raises(StorageError, match="given up"):
            await fetched.summary()
        assert pool.statistics().fetch.busy == 0
        memory.view[:ROOM] = bytes(ROOM)
        # When this one is answered, the thread for the background has left the cancelled one.
        await fetch(pool, "b", other, 0, 1, ROOM, foreground=False)
        assert fetched.announced == [CHUNK]
        assert set(at(memory, 0, ROOM)) == {0}
        assert cached(cache, "a", version, 0) is None


async def test_a_fetch_cancelled_before_its_turn_is_answered_without_a_request(store, cache, memory):
    version, other = store.put("a", [CONTENT]).version, store.put("b", [b"data"]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache, memory, fetch_threads=2)) as pool:  # one of them for the background
        first = Fetched(pool, "a", version, foreground=False)
        await hold.arrival()
        second = Fetched(pool, "b", other, 0, 1, ROOM, foreground=False)
        second.started.cancel()
        hold.end()
        await first.summary()
        with pytest.raises(StorageError, match="given up"):
            await second.summary()
        assert store.requests("b") == []


async def test_a_fetch_cancelled_while_its_worker_is_away_is_answered_all_the_same(store, cache, memory):
    version, other = store.put("a", [CONTENT]).version, store.put("b", [b"data"]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache, memory)) as pool:
        fetched = Fetched(pool, "a", version)
        await fetched.reaches(CHUNK)
        os.kill(process_of(pool.fetchers), signal.SIGKILL)
        while pool.fetchers.workers[0].is_ready:
            await trio.lowlevel.checkpoint()
        fetched.started.cancel()
        await fetch(pool, "b", other, 0, 1, ROOM)  # the cancellation has arrived
        hold.end()
        with pytest.raises(StorageError, match="given up"):
            await fetched.summary()


async def test_a_cancelled_fetch_whose_worker_dies_is_not_done_again(store, cache, memory):
    version = store.put("a", [CONTENT]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache, memory)) as pool:
        fetched = Fetched(pool, "a", version)
        await hold.arrival()
        fetched.started.cancel()
        os.kill(process_of(pool.fetchers), signal.SIGKILL)
        hold.end()
        with pytest.raises(StorageError):
            await fetched.summary()
        assert len(store.requests("a")) == 1


async def test_a_fetch_cancelled_before_there_is_a_worker_is_answered(store, memory):
    version, other = store.put("a", [CONTENT]).version, store.put("b", [b"data"]).version
    hold = store.hold("a")
    pool = make_pool(store, None, memory)
    fetched = Fetched(pool, "a", version)
    fetched.started.cancel()
    async with running(pool):
        await fetch(pool, "b", other, 0, 1, ROOM)  # the cancellation has arrived
        hold.end()
        with pytest.raises(StorageError, match="given up"):
            await fetched.summary()


async def test_a_promoted_fetch_overtakes_what_is_done_in_the_background(store, cache, memory):
    slow, wanted = store.put("slow", [CONTENT]).version, store.put("wanted", [b"data"]).version
    hold = store.hold("slow")
    async with running(make_pool(store, cache, memory, fetch_threads=2)) as pool:  # one of them for the background
        first = Fetched(pool, "slow", slow, foreground=False)
        await hold.arrival()
        second = Fetched(pool, "wanted", wanted, 0, 1, ROOM, foreground=False)
        assert pool.statistics().fetch == GroupStatistics(1, busy=1, queued=1, restarts=0)
        second.started.promote()
        await second.summary()
        assert (first.ends, at(memory, ROOM, 4)) == ([], b"data")
        hold.end()
        await first.summary()


async def test_a_fetch_promoted_before_its_worker_is_ready_starts_in_the_foreground(store, cache, memory):
    slow, wanted = store.put("slow", [CONTENT]).version, store.put("wanted", [b"data"]).version
    hold = store.hold("slow")
    pool = make_pool(store, cache, memory, fetch_threads=2)
    first = Fetched(pool, "slow", slow, foreground=False)
    second = Fetched(pool, "wanted", wanted, 0, 1, ROOM, foreground=False)
    second.started.promote()
    async with running(pool):
        await second.summary()
        hold.end()
        await first.summary()


async def test_R5_a_cache_deleted_under_way_holds_up_no_reader(store, cache, memory):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache, memory)) as pool:
        await trio.run_process(["rm", "-rf", cache.settings.directory])
        await fetch(pool, "a", version)
        assert at(memory, 0, len(CONTENT)) == CONTENT


async def test_a_pool_without_a_cache_delivers_into_the_memory_alone(store, memory):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, None, memory)) as pool:
        await fetch(pool, "a", version, 1, 2, ROOM, foreground=False)
        assert at(memory, ROOM, 2 * CHUNK) == CONTENT[CHUNK : 3 * CHUNK]


async def test_L1_a_store_that_cannot_be_opened_is_said_at_the_start(store, cache, memory):
    pool = make_pool(store, cache, memory, store_options={"refuse": "no such bucket option"}, fetch_processes=2)
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConfigError, match="no such bucket option"):
            await nursery.start(pool.run)


async def test_L1_a_worker_that_ends_while_it_starts_is_said(memory):
    pool = WorkerPool(
        configuration(), "test", None, memory, namespace="", chunk_size=CHUNK, store_factory="mscfs.no_such_module:open"
    )
    async with trio.open_nursery() as nursery:
        with pytest.raises(MscfsError, match="ended while it started"):
            await nursery.start(pool.run)


@pytest.mark.parametrize(
    ("module", "name", "refusal"),
    [
        (trio.lowlevel, "open_process", OSError(errno.EAGAIN, "no more processes")),
        (launch.socket, "socketpair", OSError(errno.EMFILE, "too many open files")),
        (launch.Path, "cwd", FileNotFoundError(errno.ENOENT, "the directory was removed")),
    ],
    ids=["process", "descriptor", "directory"],
)
async def test_R5_a_process_that_cannot_be_started_again_at_once_is_tried_again(
    store, cache, memory, monkeypatch, module, name, refusal
):
    version = store.put("a", [CONTENT]).version
    start, refusals = getattr(module, name), iter([refusal])

    def refuse_once(*arguments, **options):
        for error in refusals:
            raise error
        return start(*arguments, **options)

    async with running(make_pool(store, cache, memory)) as pool:
        monkeypatch.setattr(module, name, refuse_once)
        monkeypatch.setattr(sys, "path", ["", *sys.path])
        os.kill(process_of(pool.fetchers), signal.SIGKILL)
        await fetch(pool, "a", version)
        assert whole(cache, "a", version) == CONTENT
        assert pool.statistics().fetch.restarts == 2


async def test_L1_no_process_at_all_is_said_at_the_start(store, cache, memory, monkeypatch):
    monkeypatch.setattr(launch.sys, "executable", "/no/such/python")
    async with trio.open_nursery() as nursery:
        with pytest.raises(MscfsError, match="no worker process can be started"):
            await nursery.start(make_pool(store, cache, memory).run)


async def test_L3_a_bug_in_a_receiver_ends_neither_its_fetch_nor_the_others(store, cache, memory, caplog):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache, memory)) as pool:
        fetched = Fetched(pool, "a", version)
        fetched.started.on_arrival = lambda size: [][size]
        summary = await fetched.summary()
        assert summary.bytes == len(CONTENT)
        assert len([record for record in caplog.records if "a bug in" in record.message]) == 4


async def test_L3_an_answer_that_makes_no_sense_costs_its_process_and_not_the_mount(store, cache, memory, monkeypatch):
    version = store.put("a", [CONTENT]).version
    nonsense = iter([b"\xc1"])

    def garble_one_announcement(payload):
        message = decode_from_worker(payload)
        return decode_from_worker(next(nonsense, payload)) if isinstance(message, Arrived) else message

    async with running(make_pool(store, cache, memory)) as pool:
        monkeypatch.setattr(worker, "decode_from_worker", garble_one_announcement)
        await fetch(pool, "a", version)
        assert whole(cache, "a", version) == CONTENT
        assert pool.statistics().fetch.restarts == 1


async def test_L2_signals_to_the_whole_service_do_not_end_a_worker(store, cache, memory):
    version = store.put("a", [CONTENT]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache, memory)) as pool:
        before = process_of(pool.fetchers)
        fetched = Fetched(pool, "a", version)
        await fetched.reaches(CHUNK)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(before, number)
        hold.end()
        await fetched.summary()
        assert (process_of(pool.fetchers), pool.statistics().fetch.restarts) == (before, 0)
        assert os.getsid(before) == before  # no terminal's signals either


async def test_L5_no_secret_is_on_a_command_line_or_in_the_environment(store, cache, memory):
    async with running(make_pool(store, cache, memory)) as pool:
        for group, name in ((pool.fetchers, "mscfs-fetch"), (pool.transfers, "mscfs-transfer")):
            process = Path(f"/proc/{process_of(group)}")
            assert (process / "comm").read_text() == f"{name}\n"
            shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            assert b"mscfs.workers.process" in shown
            assert SECRET.encode() not in shown


async def test_L5_a_worker_logs_as_the_mount_does(store, cache, memory, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger("mscfs"), "level", logging.DEBUG)
    pool = make_pool(store, cache, memory, store_options={"talkative": "a\x1b[2J\nkey"})
    version = store.put("a", [CONTENT]).version
    async with running(pool):
        pids = {process_of(pool.fetchers), process_of(pool.transfers)}
        await fetch(pool, "a", version)
        with pytest.raises(NotFoundError):
            await fetch(pool, "b", version)
    lines = capfd.readouterr().err.splitlines()
    told = r"\d{4}-\d\d-\d\d [\d:,]+ WARNING mscfs-\w+\[(\d+)\] mscfs.providers: a\\x1b\[2J\\nkey is odd"
    assert {int(match[1]) for line in lines if (match := re.fullmatch(told, line))} == pids
    assert [
        line for line in lines if re.search(r" DEBUG \S+ mscfs.workers.process: fetch a: from test, [\d.]+ s$", line)
    ]
    assert [line for line in lines if re.search(r" DEBUG \S+ mscfs.workers.process: fetch b: test:b: no such", line)]
    assert SECRET not in str(lines)


async def test_a_frozen_worker_is_killed_and_replaced(store, cache, memory, monkeypatch):
    monkeypatch.setattr(worker, "PING_SECONDS", 0.05)
    monkeypatch.setattr(worker, "SILENCE_SECONDS", 1.0)
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache, memory)) as pool:
        frozen = process_of(pool.fetchers)
        os.kill(frozen, signal.SIGSTOP)
        await fetch(pool, "a", version)
        assert whole(cache, "a", version) == CONTENT
        assert process_of(pool.fetchers) != frozen


async def test_workers_are_not_killed_for_the_time_in_which_the_daemon_itself_was_stopped(memory, mock_clock):
    alive = worker.Worker(SimpleNamespace(name="a"), memory, on_finished=None, on_death=None, on_trouble=None)
    killed, answers = [], True

    def send(message):
        if answers:
            alive._last_heard = trio.current_time() + 0.001

    async def pass_by(seconds):
        mock_clock.jump(seconds)
        await trio.testing.wait_all_tasks_blocked()

    alive._send = send
    alive._up.set()
    process = SimpleNamespace(kill=lambda: killed.append(trio.current_time()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(alive._watch, process)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            await pass_by(10 * worker.SILENCE_SECONDS)
        assert not killed
        answers, began = False, trio.current_time()
        while not killed:
            await pass_by(worker.PING_SECONDS)
        assert killed[0] - began <= worker.SILENCE_SECONDS + worker.PING_SECONDS
        nursery.cancel_scope.cancel()


async def test_leaving_the_pool_closes_the_stores_and_ends_the_processes(store, cache, memory, monkeypatch):
    monkeypatch.setattr("mscfs.workers.worker.STOP_SECONDS", 30.0)  # a busy machine is no reason to kill
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache, memory)) as pool:
        await fetch(pool, "a", version)
        processes = [process_of(pool.fetchers), process_of(pool.transfers)]
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
        assert (store.root / f"closed-by-{process}").exists()


DAEMON = """
import sys
import trio
from pathlib import Path
from tests.workers.stores import DirectoryStore
from mscfs.cache.arena import SharedMemory
from tests.workers.test_pool import Fetched, make_pool, process_of

async def main():
    store = DirectoryStore(Path(sys.argv[1]))
    pool = make_pool(store, None, SharedMemory(1 << 20))
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        Fetched(pool, "a", store.head("a").version)
        print(process_of(pool.fetchers), process_of(pool.transfers), flush=True)

trio.run(main)
"""


async def test_workers_end_with_their_daemon_even_when_their_store_does_not_answer(store):
    store.put("a", [CONTENT])
    hold = store.hold("a")
    daemon = subprocess.Popen(  # noqa: ASYNC220 - a starting process holds up nobody here
        [sys.executable, "-c", DAEMON, store.root],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        handles = [os.pidfd_open(int(number)) for number in daemon.stdout.readline().split()]
        await hold.arrival()
        assert select.select(handles, [], [], 0)[0] == []
        daemon.kill()
        for handle in handles:
            with trio.fail_after(30):
                await trio.lowlevel.wait_readable(handle)
            os.close(handle)
    finally:
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
