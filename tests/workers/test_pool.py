"""Worker processes: what they deliver, and what happens when they die."""

import errno
import os
import select
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.errors import ConfigError, MscfsError, NotFoundError, StoreUnavailableError, VersionMismatchError
from mscfs.types import Version
from mscfs.workers import worker
from mscfs.workers.pool import GroupStatistics, WorkerPool
from mscfs.workers.protocol import ChunkDone, decode_from_worker
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


def make_pool(store, cache, **options):
    return WorkerPool(
        configuration(root=str(store.root), secret=SECRET, **options.pop("store_options", {})),
        "test",
        cache.settings if cache else None,
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


class Chunks:
    """What was announced, and events to wait for it."""

    def __init__(self):
        self.announced = []
        self.data = {}
        self._more = trio.Event()

    def __call__(self, index, data):
        self.announced.append(index)
        self.data[index] = data
        self._more.set()
        self._more = trio.Event()

    async def wait_for(self, index):
        while index not in self.data:
            await self._more.wait()


def cached(cache, key, version, index):
    chunk = cache.open(ChunkId(object_digest("test", key, version, CHUNK), index))
    return bytes(chunk.view) if chunk else None


def whole(cache, key, version):
    return b"".join(cached(cache, key, version, index) for index in range(4))


def process_of(group):
    return group.workers[0].process_id


async def test_R7_a_fetch_fills_the_cache_and_announces_each_chunk(store, cache):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache)) as pool:
        chunks = Chunks()
        summary = await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=chunks)
        assert chunks.announced == [0, 1, 2, 3]
        assert set(chunks.data.values()) == {None}
        assert (summary.source, summary.bytes) == ("test", len(CONTENT))
        assert whole(cache, "a", version) == CONTENT
        assert store.readers("a") == [process_of(pool.fetchers)]


async def test_a_chunk_is_announced_while_the_next_is_still_awaited(store, cache):
    version = store.put("a", [CONTENT]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache)) as pool, trio.open_nursery() as nursery:
        chunks = Chunks()
        nursery.start_soon(lambda: pool.fetch("a", version, 0, 4, foreground=True, on_chunk=chunks))
        for index in range(3):
            await chunks.wait_for(index)
            assert chunks.announced == list(range(index + 1))
            assert cached(cache, "a", version, index) == CONTENT[index * CHUNK :][:CHUNK]
            hold.release()
        hold.release()  # the last chunk is whole when the answer has ended


async def test_many_fetches_at_once_over_several_processes(store, cache):
    versions = {f"k{number}": store.put(f"k{number}", [b"%d" % number]).version for number in range(300)}
    async with running(make_pool(store, cache, fetch_processes=2)) as pool:
        async with trio.open_nursery() as nursery:
            for key, version in versions.items():
                nursery.start_soon(lambda key=key, version=version: pool.fetch(
                    key, version, 0, 1, foreground=True, on_chunk=Chunks()
                ))  # fmt: skip
        assert all(cached(cache, key, version, 0) == key[1:].encode() for key, version in versions.items())
        assert {store.readers(key)[0] for key in versions} == {one.process_id for one in pool.fetchers.workers}
        assert pool.statistics().fetch.busy == 0


async def test_W1_errors_come_home_with_store_and_key(store, cache):
    async with running(make_pool(store, cache)) as pool:
        with pytest.raises(NotFoundError) as caught:
            await pool.fetch("no/such", Version(3, "x"), 0, 1, foreground=True, on_chunk=Chunks())
        assert (caught.value.store, caught.value.key) == ("test", "no/such")
        with pytest.raises(NotFoundError, match="no such key"):
            await pool.download("no/such", Version(3, "x"), store.root / "target")


async def test_uploads_and_downloads_go_through_files(store, cache, tmp_path):
    staged, target = tmp_path / "staged", tmp_path / "target"
    staged.write_bytes(CONTENT)
    async with running(make_pool(store, cache)) as pool:
        written = await pool.upload("a/\udcff", staged, metadata={"k": "v"}, if_absent=True)
        assert (written.key, written.metadata) == ("a/\udcff", {"k": "v"})
        assert written == store.head("a/\udcff")
        target.touch()
        summary = await pool.download("a/\udcff", written.version, target)
        assert (target.read_bytes(), summary.bytes) == (CONTENT, len(CONTENT))
        with pytest.raises(VersionMismatchError):
            await pool.upload("a/\udcff", staged, expected=Version(1, "other"))


async def test_a_step_replicates(store, cache, tmp_path):
    (tmp_path / "near").mkdir()
    store.put("a", [CONTENT])
    async with running(make_pool(store, cache, store_options={"replica": str(tmp_path / "near")})) as pool:
        result = await pool.step("near", "a")
        assert (result.outcome, result.bytes) == ("copied", len(CONTENT))
        with pytest.raises(Exception, match="KeyError"):
            await pool.step("unknown", "a")
    assert DirectoryStore(tmp_path / "near").head("a").content_length == len(CONTENT)


async def test_W1_an_upload_does_not_wait_for_replication(store, cache, tmp_path):
    (tmp_path / "near").mkdir()
    staged = tmp_path / "staged"
    staged.write_bytes(b"new")
    holds = []
    for number in range(4):
        store.put(f"old{number}", [CONTENT])
        holds.append(store.hold(f"old{number}"))
    pool = make_pool(store, cache, store_options={"replica": str(tmp_path / "near")}, upload_threads=1, step_threads=2)
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
async def test_R5_kill_9_of_a_worker_in_a_fetch_fails_no_read(store, cache, times):
    version = store.put("a", [CONTENT]).version
    store.kill("a", times)
    async with running(make_pool(store, cache)) as pool:
        first = process_of(pool.fetchers)
        chunks = Chunks()
        summary = await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=chunks)
        assert chunks.announced == [0, 1, 2, 3]
        assert whole(cache, "a", version) == CONTENT
        assert summary.source == "test"
        assert process_of(pool.fetchers) != first
        assert pool.statistics().fetch.restarts == times
    # What had arrived is not asked for again.
    assert store.requests("a")[-1] == f"{times * CHUNK}+{len(CONTENT) - times * CHUNK}"


async def test_R5_kill_9_from_outside_repeats_all_that_was_under_way(store, cache):
    versions = {f"k{number}": store.put(f"k{number}", [CONTENT]).version for number in range(10)}
    hold = store.hold("k0")
    async with running(make_pool(store, cache)) as pool:
        chunks = Chunks()
        async with trio.open_nursery() as nursery:
            for key, version in versions.items():
                on_chunk = chunks if key == "k0" else Chunks()
                nursery.start_soon(lambda key=key, version=version, on_chunk=on_chunk: pool.fetch(
                    key, version, 0, 4, foreground=True, on_chunk=on_chunk
                ))  # fmt: skip
            await chunks.wait_for(0)
            os.kill(process_of(pool.fetchers), signal.SIGKILL)
            hold.end()
        assert all(whole(cache, key, version) == CONTENT for key, version in versions.items())


async def test_R5_a_request_that_kills_its_workers_fails_and_takes_no_other_along(store, cache):
    versions = {f"k{number}": store.put(f"k{number}", [b"data"]).version for number in range(20)}
    store.kill("k7", 100)
    failed = []

    async def fetch(key):
        try:
            await pool.fetch(key, versions[key], 0, 1, foreground=True, on_chunk=Chunks())
        except StoreUnavailableError as error:
            failed.append(error)

    async with running(make_pool(store, cache)) as pool:
        async with trio.open_nursery() as nursery:
            for key in versions:
                nursery.start_soon(fetch, key)
        assert [error.key for error in failed] == ["k7"]
        assert failed[0].errno == 5
        assert pool.statistics().fetch == GroupStatistics(1, 0, 0, 3)
    assert len(store.requests("k7")) == 3


async def test_R5_slow_requests_survive_one_that_kills_their_worker_again_and_again(store, cache):
    keys = ["poison", "slow0", "slow1", "slow2"]
    versions = {key: store.put(key, [CONTENT]).version for key in keys}
    holds = {key: store.hold(key) for key in keys}
    store.kill("poison", 100)
    failed = []

    async def fetch(key):
        try:
            await pool.fetch(key, versions[key], 0, 4, foreground=True, on_chunk=Chunks())
        except StoreUnavailableError as error:
            failed.append(error.key)

    async with running(make_pool(store, cache)) as pool, trio.open_nursery() as nursery:
        for key in keys:
            nursery.start_soon(fetch, key)
            await holds[key].arrival()
        holds["poison"].release()
        for _ in range(2):
            await holds["poison"].arrival()
            holds["poison"].release()
        while not failed:
            await trio.testing.wait_all_tasks_blocked(0.01)
        for key in keys[1:]:
            holds[key].end()
    assert failed == ["poison"]
    assert all(whole(cache, key, versions[key]) == CONTENT for key in keys[1:])


async def test_R5_a_chunk_is_announced_once_also_when_only_the_end_of_its_fetch_was_lost(store, cache):
    version = store.put("a", [CONTENT[: 2 * CHUNK]]).version
    store.kill("a", 2)
    async with running(make_pool(store, cache)) as pool:
        chunks = Chunks()
        await pool.fetch("a", version, 0, 2, foreground=True, on_chunk=chunks)
        assert chunks.announced == [0, 1]
    assert store.requests("a") == [f"0+{2 * CHUNK}", f"{CHUNK}+{CHUNK}", f"{CHUNK}+{CHUNK}"]


async def test_W5_an_upload_whose_worker_died_after_it_succeeded_is_a_success(store, cache, tmp_path):
    staged = tmp_path / "staged"
    staged.write_bytes(CONTENT)
    base = store.put("a", [b"old"]).version
    store.kill("a", 1, when="put")
    store.kill("b", 1, when="put")
    async with running(make_pool(store, cache)) as pool:
        assert await pool.upload("a", staged, expected=base) == store.head("a")
        assert await pool.upload("b", staged, if_absent=True) == store.head("b")
        assert pool.statistics().transfer.restarts == 2
        assert pool.statistics().fetch.restarts == 0


async def test_a_cancelled_call_is_given_up_by_the_worker(store, cache):
    version, other = store.put("a", [CONTENT]).version, store.put("b", [b"data"]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache, fetch_threads=2)) as pool:  # one of them for the background
        chunks = Chunks()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pool.fetch("a", version, 0, 4, foreground=False, on_chunk=chunks))
            await chunks.wait_for(0)
            nursery.cancel_scope.cancel()
        assert pool.statistics().fetch.busy == 0
        # Messages are received in order: when this one is answered, the cancellation has arrived.
        await pool.fetch("b", other, 0, 1, foreground=True, on_chunk=Chunks())
        hold.end()
        # And when this one is, the thread for the background has left the cancelled one.
        await pool.fetch("b", other, 0, 1, foreground=False, on_chunk=Chunks())
        assert chunks.announced == [0]
        assert cached(cache, "a", version, 1) is None


async def test_a_call_cancelled_while_its_worker_is_away_is_forgotten(store, cache):
    version = store.put("a", [CONTENT]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache)) as pool:
        chunks = Chunks()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: pool.fetch("a", version, 0, 4, foreground=True, on_chunk=chunks))
            await chunks.wait_for(0)
            os.kill(process_of(pool.fetchers), signal.SIGKILL)
            while pool.fetchers.workers[0].is_ready:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        hold.end()
        other = store.put("b", [b"data"]).version
        await pool.fetch("b", other, 0, 1, foreground=True, on_chunk=Chunks())
        assert len(store.requests("a")) == 1


async def test_R5_a_cache_deleted_under_way_turns_into_bytes_in_the_answer(store, cache):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache)) as pool:
        await trio.run_process(["rm", "-rf", cache.settings.directory])
        chunks = Chunks()
        await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=chunks)
        assert b"".join(chunks.data[index] for index in range(4)) == CONTENT


async def test_a_pool_without_a_cache_hands_over_the_bytes(store):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, None)) as pool:
        chunks = Chunks()
        await pool.fetch("a", version, 1, 2, foreground=False, on_chunk=chunks)
        assert chunks.data == {1: CONTENT[CHUNK : 2 * CHUNK], 2: CONTENT[2 * CHUNK : 3 * CHUNK]}


async def test_L1_a_store_that_cannot_be_opened_is_said_at_the_start(store, cache):
    pool = make_pool(store, cache, store_options={"refuse": "no such bucket option"}, fetch_processes=2)
    async with trio.open_nursery() as nursery:
        with pytest.raises(ConfigError, match="no such bucket option"):
            await nursery.start(pool.run)


async def test_L1_a_worker_that_ends_while_it_starts_is_said(store, cache):
    pool = WorkerPool(
        configuration(), "test", None, namespace="", chunk_size=CHUNK, store_factory="mscfs.no_such_module:open"
    )
    async with trio.open_nursery() as nursery:
        with pytest.raises(MscfsError, match="ended while it started"):
            await nursery.start(pool.run)


async def test_R5_a_process_that_cannot_be_started_again_at_once_is_tried_again(store, cache, monkeypatch):
    version = store.put("a", [CONTENT]).version
    start, refusals = trio.lowlevel.open_process, iter([OSError(errno.EAGAIN, "no more processes")])

    async def refuse_once(*arguments, **options):
        for refusal in refusals:
            raise refusal
        return await start(*arguments, **options)

    async with running(make_pool(store, cache)) as pool:
        monkeypatch.setattr(trio.lowlevel, "open_process", refuse_once)
        os.kill(process_of(pool.fetchers), signal.SIGKILL)
        await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=Chunks())
        assert whole(cache, "a", version) == CONTENT
        assert pool.statistics().fetch.restarts == 2


async def test_L1_no_process_at_all_is_said_at_the_start(store, cache, monkeypatch):
    monkeypatch.setattr(worker.sys, "executable", "/no/such/python")
    async with trio.open_nursery() as nursery:
        with pytest.raises(MscfsError, match="no worker process can be started"):
            await nursery.start(make_pool(store, cache).run)


async def test_L3_a_bug_in_a_receiver_ends_neither_its_fetch_nor_the_others(store, cache, caplog):
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache)) as pool:
        summary = await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=lambda index, data: [][index])
        assert summary.bytes == len(CONTENT)
        assert len([record for record in caplog.records if "a bug in" in record.message]) == 4


async def test_L3_an_answer_that_makes_no_sense_costs_its_process_and_not_the_mount(store, cache, monkeypatch):
    version = store.put("a", [CONTENT]).version
    nonsense = iter([b"\xc1"])

    def garble_one_chunk(payload):
        message = decode_from_worker(payload)
        return decode_from_worker(next(nonsense, payload)) if isinstance(message, ChunkDone) else message

    async with running(make_pool(store, cache)) as pool:
        monkeypatch.setattr(worker, "decode_from_worker", garble_one_chunk)
        await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=Chunks())
        assert whole(cache, "a", version) == CONTENT
        assert pool.statistics().fetch.restarts == 1


async def test_L2_signals_to_the_whole_service_do_not_end_a_worker(store, cache):
    version = store.put("a", [CONTENT]).version
    hold = store.hold("a")
    async with running(make_pool(store, cache)) as pool, trio.open_nursery() as nursery:
        before = process_of(pool.fetchers)
        chunks = Chunks()
        nursery.start_soon(lambda: pool.fetch("a", version, 0, 1, foreground=True, on_chunk=chunks))
        await chunks.wait_for(0)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(before, number)
        hold.release()
        assert (process_of(pool.fetchers), pool.statistics().fetch.restarts) == (before, 0)
        assert os.getsid(before) == before  # no terminal's signals either


async def test_L5_no_secret_is_on_a_command_line_or_in_the_environment(store, cache):
    async with running(make_pool(store, cache)) as pool:
        for group, name in ((pool.fetchers, "mscfs-fetch"), (pool.transfers, "mscfs-transfer")):
            process = Path(f"/proc/{process_of(group)}")
            assert (process / "comm").read_text() == f"{name}\n"
            shown = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            assert b"mscfs.workers.process" in shown
            assert SECRET.encode() not in shown


async def test_a_frozen_worker_is_killed_and_replaced(store, cache, monkeypatch):
    monkeypatch.setattr(worker, "PING_SECONDS", 0.05)
    monkeypatch.setattr(worker, "SILENCE_SECONDS", 1.0)
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache)) as pool:
        frozen = process_of(pool.fetchers)
        os.kill(frozen, signal.SIGSTOP)
        await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=Chunks())
        assert whole(cache, "a", version) == CONTENT
        assert process_of(pool.fetchers) != frozen


async def test_leaving_the_pool_closes_the_stores_and_ends_the_processes(store, cache, monkeypatch):
    monkeypatch.setattr("mscfs.workers.worker.STOP_SECONDS", 30.0)  # a busy machine is no reason to kill
    version = store.put("a", [CONTENT]).version
    async with running(make_pool(store, cache)) as pool:
        await pool.fetch("a", version, 0, 4, foreground=True, on_chunk=Chunks())
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
from tests.workers.test_pool import Chunks, make_pool, process_of

async def main():
    store = DirectoryStore(Path(sys.argv[1]))
    pool = make_pool(store, None)
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        nursery.start_soon(lambda: pool.fetch("a", store.head("a").version, 0, 1, foreground=True, on_chunk=Chunks()))
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
