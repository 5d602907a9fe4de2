"""The blocking core of the workers, without processes."""

import os
import tracemalloc
from dataclasses import replace

import pytest
from msgspec.structs import replace as replace_struct

from mscfs.cache.arena import SharedMemory
from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.errors import (
    AlreadyExistsError,
    IntegrityError,
    NoSpaceError,
    NotFoundError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import ObjectReader
from mscfs.types import STAMP_KEY, Version
from mscfs.workers.protocol import Arrived, Download, Fetch, FetchSummary, List, Step, Upload, pack_text
from mscfs.workers.tasks import PROGRESS, AbandonedError, Tasks
from tests.workers.stores import DirectoryStore, configuration, open_store

CHUNK = 300_000
CONTENT = bytes(os.urandom(3 * CHUNK + 77))
MEMORY = 2 << 20
TARGET = 128 << 10
"""Where in the memory the tests have their fetches go."""
UNTOUCHED = 0xEE


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
    memory = SharedMemory(MEMORY)
    memory.view[:] = bytes([UNTOUCHED]) * MEMORY
    yield memory
    memory.close()


@pytest.fixture
def tasks(store, cache, memory):
    return Tasks(store, cache, memory, namespace="test", chunk_size=CHUNK)


def never():
    return False


def fetch_of(version, first, count, *, key="a", present=0):
    return Fetch(1, pack_text(key), version, first, count, TARGET, True, present)


def perform(tasks, request, is_abandoned=never):
    told = []
    return told, tasks.perform(request, told.append, is_abandoned)


def fetched(memory, size):
    """The bytes at the target; nothing around them was written to."""
    assert set(memory.view[:TARGET]) == {UNTOUCHED}
    assert set(memory.view[TARGET + size :]) <= {UNTOUCHED}
    return bytes(memory.view[TARGET : TARGET + size])


def cached(cache, key, version, index):
    chunk = cache.open(ChunkId(object_digest("test", key, version, CHUNK), index))
    return bytes(chunk.view)


@pytest.mark.parametrize(("first", "count"), [(0, 4), (1, 2), (3, 1), (2, 100)])
def test_R7_a_fetch_is_one_ranged_get_into_the_memory_and_then_into_the_cache(
    store, cache, memory, tasks, first, count
):
    version = store.put("a/b", [CONTENT]).version
    told, done = perform(tasks, fetch_of(version, first, count, key="a/b"))
    expected = CONTENT[first * CHUNK : (first + count) * CHUNK]
    assert store.requests("a/b") == [f"{first * CHUNK}+{len(expected)}"]
    assert fetched(memory, len(expected)) == expected
    assert told[-1] == Arrived(1, len(expected))
    indices = range(first, min(first + count, 4))
    assert b"".join(cached(cache, "a/b", version, index) for index in indices) == expected
    assert done.summary == FetchSummary("test", len(expected))


def test_bytes_are_in_the_memory_when_they_are_told_and_before_the_next_piece_is_asked_for(
    store, memory, tasks, monkeypatch
):
    version = store.put("a", [CONTENT]).version
    monkeypatch.setattr("tests.workers.stores.PIECE", PROGRESS)
    pieces, seen = [], []

    def emit(arrived):
        seen.append((len(pieces), arrived.size))
        assert memory.view[TARGET : TARGET + arrived.size] == CONTENT[: arrived.size]

    def count_piece():
        pieces.append(1)
        return False

    tasks.perform(fetch_of(version, 0, 4), emit, count_piece)
    assert seen == [(1, PROGRESS), (2, 2 * PROGRESS), (3, 3 * PROGRESS), (4, len(CONTENT))]


def test_those_who_wait_have_all_bytes_before_the_cache_is_written(store, cache, memory, tasks, monkeypatch):
    version = store.put("a", [CONTENT]).version
    order = []
    monkeypatch.setattr(cache, "insert", lambda chunk, data: order.append(chunk.index) or True)
    tasks.perform(fetch_of(version, 0, 4), lambda arrived: order.append(f"{arrived.size} bytes"), never)
    assert order[-5:] == [f"{len(CONTENT)} bytes", 0, 1, 2, 3]


def test_small_pieces_are_told_together(store, tasks, monkeypatch):
    version = store.put("a", [CONTENT]).version
    monkeypatch.setattr("tests.workers.stores.PIECE", 10_000)
    told, _ = perform(tasks, fetch_of(version, 0, 4))
    assert [arrived.size for arrived in told] == [270_000, 540_000, 810_000, len(CONTENT)]


class Pieces(ObjectReader):
    """An answer that comes in given pieces, all in one buffer that is used again."""

    def __init__(self, metadata, byte_range, sizes):
        super().__init__(metadata, byte_range, source="test")
        self.sizes = sizes

    def _pieces(self):
        buffer, offset = bytearray(2 * len(CONTENT)), self.byte_range.offset
        for size in self.sizes:
            buffer[:size] = CONTENT[offset : offset + size].ljust(size, b"+")
            yield memoryview(buffer)[:size]
            offset += size


@pytest.mark.parametrize(
    "sizes",
    [[len(CONTENT)], [1] * 10 + [len(CONTENT) - 10], [CHUNK - 1, 2, 2 * CHUNK - 2, 78], [0, CHUNK, 0, 2 * CHUNK + 77]],
    ids=str,
)
def test_R1_pieces_of_any_size_make_the_same_bytes(store, cache, memory, tasks, monkeypatch, sizes):
    metadata = store.put("a", [CONTENT])
    monkeypatch.setattr(store, "get", lambda key, wanted, expected: Pieces(metadata, wanted, sizes))
    perform(tasks, fetch_of(metadata.version, 0, 4))
    assert fetched(memory, len(CONTENT)) == CONTENT
    assert b"".join(cached(cache, "a", metadata.version, index) for index in range(4)) == CONTENT


@pytest.mark.parametrize("sizes", [[CHUNK - 1], [CHUNK + 1], [CHUNK, 1], [CHUNK - 1, 2]], ids=str)
def test_R1_an_answer_of_another_length_fails_and_writes_nowhere_else(store, cache, memory, tasks, monkeypatch, sizes):
    metadata = store.put("a", [CONTENT])
    monkeypatch.setattr(store, "get", lambda key, wanted, expected: Pieces(metadata, wanted, sizes))
    with pytest.raises(IntegrityError):
        perform(tasks, fetch_of(metadata.version, 1, 1))
    fetched(memory, CHUNK)
    assert cache.statistics().bytes == 0


def test_R1_an_answer_about_another_range_is_no_answer(store, cache, memory, tasks, monkeypatch):
    metadata = store.put("a", [CONTENT])
    whole = store.get
    monkeypatch.setattr(store, "get", lambda key, wanted, expected: whole(key))
    with pytest.raises(IntegrityError, match="wanted"):
        perform(tasks, fetch_of(metadata.version, 1, 1))
    assert cache.statistics().bytes == 0
    assert fetched(memory, 0) == b""


def test_R1_another_version_is_no_answer(store, memory, tasks):
    store.put("a", [CONTENT])
    with pytest.raises(VersionMismatchError):
        perform(tasks, fetch_of(Version(len(CONTENT), "old"), 0, 4))
    assert fetched(memory, 0) == b""


@pytest.mark.parametrize("why", ["no cache", "a refusing one"])
def test_R5_without_a_cache_the_bytes_come_all_the_same(store, memory, tmp_path, why):
    version = store.put("a", [CONTENT]).version
    cache = None if why == "no cache" else ChunkCache(tmp_path / "cache", 1)
    tasks = Tasks(store, cache, memory, namespace="test", chunk_size=CHUNK)
    _, done = perform(tasks, fetch_of(version, 1, 3))
    assert fetched(memory, len(CONTENT) - CHUNK) == CONTENT[CHUNK:]
    assert done.summary.bytes == len(CONTENT) - CHUNK
    tasks.close()


def test_without_a_cache_the_answer_itself_tells_of_the_last_bytes(store, memory):
    version = store.put("a", [CONTENT]).version
    told, _ = perform(Tasks(store, None, memory, namespace="test", chunk_size=CHUNK), fetch_of(version, 0, 4))
    assert [arrived.size for arrived in told] == [CHUNK, 2 * CHUNK, 3 * CHUNK]


@pytest.mark.parametrize("present", [1, CHUNK, len(CONTENT) - 1, len(CONTENT)])
def test_R5_a_repeated_fetch_asks_only_for_what_had_not_arrived(store, cache, memory, tasks, present):
    version = store.put("a", [CONTENT]).version
    memory.view[TARGET : TARGET + present] = CONTENT[:present]
    told, done = perform(tasks, fetch_of(version, 0, 4, present=present))
    assert fetched(memory, len(CONTENT)) == CONTENT
    assert store.requests("a") == [f"{present}+{len(CONTENT) - present}"]
    assert all(arrived.size > present for arrived in told)
    assert done.summary.bytes == len(CONTENT) - present
    assert b"".join(cached(cache, "a", version, index) for index in range(4)) == CONTENT


def test_an_abandoned_fetch_stops_and_writes_no_more(store, cache, memory, tasks):
    version = store.put("a", [CONTENT]).version
    looks = iter([False, True])
    with pytest.raises(AbandonedError):
        perform(tasks, fetch_of(version, 0, 4), lambda: next(looks))
    # One piece of 300,000 bytes was taken, the second was not.
    assert fetched(memory, CHUNK) == CONTENT[:CHUNK]
    assert cache.statistics().bytes == 0


def test_N3_a_key_that_is_not_utf8_is_fetched(store, cache, memory, tasks):
    version = store.put("a/\udcff", [b"data"]).version
    perform(tasks, fetch_of(version, 0, 1, key="a/\udcff"))
    assert fetched(memory, 4) == b"data"
    assert cached(cache, "a/\udcff", version, 0) == b"data"


def test_R6_a_fetch_of_an_empty_object_asks_for_nothing_but_an_answer(store, memory, tasks):
    version = store.put("a", [b""]).version
    told, done = perform(tasks, fetch_of(version, 0, 0))
    assert told == []
    assert done.summary == FetchSummary("test", 0)
    assert fetched(memory, 0) == b""


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["some", "empty"])
def test_a_download_replaces_the_file(store, tasks, tmp_path, content):
    version = store.put("a", [content]).version
    target = tmp_path / "staging"
    target.touch()
    _, done = perform(tasks, Download(1, b"a", version, pack_text(str(target))))
    assert target.read_bytes() == content
    assert done.summary == FetchSummary("test", len(content))
    target.write_bytes(b"x" * 10**6)
    perform(tasks, Download(2, b"a", version, pack_text(str(target))))
    assert target.read_bytes() == content


def test_a_download_does_not_bring_a_removed_file_back(store, tasks, tmp_path):
    version = store.put("a", [CONTENT]).version
    with pytest.raises(NotFoundError):
        perform(tasks, Download(1, b"a", version, pack_text(str(tmp_path / "removed"))))
    assert not (tmp_path / "removed").exists()


def test_W1_a_full_disk_is_ENOSPC_for_a_download(store, tasks):
    version = store.put("a", [CONTENT]).version
    with pytest.raises(NoSpaceError):
        perform(tasks, Download(1, b"a", version, b"/dev/full"))


def upload(tasks, path, **options):
    options = {"metadata": None, "content_type": None, "if_absent": False, "expected": None} | options
    return perform(tasks, Upload(1, b"a", pack_text(str(path)), **options))[1].metadata


def test_W1_an_upload_puts_the_file_with_its_conditions(store, tasks, tmp_path):
    path = tmp_path / "staged"
    path.write_bytes(b"new")
    written = upload(tasks, path, metadata={"k": "v"}, if_absent=True)
    assert written.version == store.head("a").version
    assert written.metadata == {"k": "v"}
    assert written.key == ""
    with pytest.raises(AlreadyExistsError):
        upload(tasks, path, if_absent=True)
    with pytest.raises(VersionMismatchError):
        upload(tasks, path, expected=Version(3, "other"))


@pytest.mark.parametrize("condition", [{"if_absent": True}, {"expected": Version(3, "before")}], ids=str)
def test_W5_a_repeated_upload_finds_that_it_had_succeeded(store, tasks, tmp_path, condition):
    path = tmp_path / "staged"
    path.write_bytes(CONTENT)
    earlier = store.put("a", [CONTENT])
    assert upload(tasks, path, **condition, repeated=True).version == earlier.version


@pytest.mark.parametrize("present", [b"short", CONTENT[:-1] + b"\x00"], ids=["of another size", "of the same size"])
def test_W5_a_repeated_upload_never_takes_another_object_for_its_own(store, tasks, tmp_path, present):
    path = tmp_path / "staged"
    path.write_bytes(CONTENT[:-1] + b"\x01")
    store.put("a", [present])
    with pytest.raises(VersionMismatchError):
        upload(tasks, path, expected=Version(3, "before"), repeated=True)
    with pytest.raises(AlreadyExistsError):
        upload(tasks, path, if_absent=True, repeated=True)
    store.delete("a")
    with pytest.raises(VersionMismatchError):
        upload(tasks, path, expected=Version(3, "before"), repeated=True)


def test_W5_a_repeated_creation_of_an_empty_object_cannot_tell_who_was_first(store, tasks, tmp_path):
    path = tmp_path / "staged"
    path.touch()
    store.put("a", [b""])
    with pytest.raises(StoreUnavailableError, match="whether it was us"):
        upload(tasks, path, if_absent=True, repeated=True)


@pytest.fixture
def replicated(tmp_path, cache, memory):
    for name in ("far", "near"):
        (tmp_path / name).mkdir()
    wishes = []
    manager = open_store(
        configuration(root=str(tmp_path / "far"), replica=str(tmp_path / "near")),
        "test",
        record_back_fill=wishes.extend,
    )
    yield manager, Tasks(manager, cache, memory, namespace="test", chunk_size=CHUNK)
    manager.close()


def test_a_step_brings_the_replica_to_the_primarys_state(replicated):
    manager, tasks = replicated
    version = manager.primary.put("a", [CONTENT]).version
    _, done = perform(tasks, Step(1, "near", b"a", False))
    assert (done.result.outcome, done.result.bytes) == ("copied", len(CONTENT))
    copy = manager.replica("near").provider.head("a")
    assert copy.metadata[STAMP_KEY] == version.stamp()
    manager.primary.delete("a")
    _, done = perform(tasks, Step(2, "near", b"a", True))
    assert done.result.outcome == "deleted"


def test_R6_a_fetch_tells_which_replicas_were_missing_or_stale(replicated):
    manager, tasks = replicated
    version = manager.primary.put("a", [CONTENT]).version
    _, done = perform(tasks, fetch_of(version, 0, 1))
    assert (done.summary.source, done.summary.missing, done.summary.stale) == ("test", ("near",), ())
    manager.replica("near").provider.put("a", [b"old"])
    _, done = perform(tasks, fetch_of(version, 0, 1))
    assert (done.summary.source, done.summary.missing, done.summary.stale) == ("test", (), ("near",))
    perform(tasks, Step(1, "near", b"a", False))
    _, done = perform(tasks, fetch_of(version, 0, 1))
    assert (done.summary.source, done.summary.missing, done.summary.stale) == ("near", (), ())


def test_a_replica_said_to_lack_an_object_is_not_asked_by_a_fetch_and_still_told_of(replicated):
    manager, tasks = replicated
    version = manager.primary.put("a", [CONTENT]).version
    _, done = perform(tasks, replace_struct(fetch_of(version, 0, 1), lacking=("near",)))
    assert (done.summary.source, done.summary.missing, done.summary.skipped) == ("test", (), ("near",))
    assert manager.replica("near").provider.requests("a") == []


def test_a_listing_may_be_a_replicas_own(replicated, monkeypatch):
    manager, tasks = replicated
    monkeypatch.setattr(manager.primary, "list_pages", None)
    told, done = perform(tasks, List(7, b"d/", "near"))
    assert [len(part.page.names) for part in told] == [1000, 1000, 500]
    assert done.suspects == []


def test_W1_an_upload_goes_to_the_primary_and_leaves_the_journal_to_the_daemon(replicated, tmp_path):
    manager, tasks = replicated
    path = tmp_path / "staged"
    path.write_bytes(CONTENT)
    upload(tasks, path)
    assert manager.primary.head("a").content_length == len(CONTENT)
    assert manager.journal.pending() == 0
    with pytest.raises(NotFoundError):
        manager.replica("near").provider.head("a")


class Endless(ObjectReader):
    def _pieces(self):
        for _ in range(self.byte_range.size >> 18):
            yield bytes(1 << 18)


@pytest.mark.parametrize("keeps", [False, True], ids=["memory only", "with a cache"])
def test_L4_a_fetch_holds_about_one_piece_beside_the_shared_memory(store, cache, monkeypatch, keeps):
    memory = SharedMemory(64 << 20)
    tasks = Tasks(store, cache if keeps else None, memory, namespace="test", chunk_size=1 << 20)
    metadata = replace(store.put("large", [b""]), content_length=64 << 20)
    monkeypatch.setattr(store, "get", lambda key, wanted, expected: Endless(metadata, wanted, source="test"))
    tracemalloc.start()
    try:
        tasks.perform(Fetch(1, b"large", metadata.version, 0, 64, 0, True), lambda _: None, never)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        memory.close()
    assert 1 << 18 < most < 3 << 20
    assert (cache.statistics().bytes > 64 << 20) == keeps
