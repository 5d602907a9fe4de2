"""The blocking core of the workers, without processes."""

import os
import tracemalloc
from dataclasses import replace

import pytest

from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.errors import AlreadyExistsError, IntegrityError, NoSpaceError, NotFoundError, VersionMismatchError
from mscfs.providers.base import ObjectReader
from mscfs.types import STAMP_KEY, Version
from mscfs.workers.protocol import ChunkData, ChunkDone, Download, Fetch, FetchSummary, Step, Upload, pack_text
from mscfs.workers.tasks import AbandonedError, Tasks
from tests.workers.stores import DirectoryStore, configuration, open_store

CHUNK = 100_000
CONTENT = bytes(os.urandom(3 * CHUNK + 77))


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return DirectoryStore(tmp_path / "store")


@pytest.fixture
def cache(tmp_path):
    with ChunkCache(tmp_path / "cache", 1 << 30) as cache:
        yield cache


@pytest.fixture
def tasks(store, cache):
    return Tasks(store, cache, namespace="test", chunk_size=CHUNK)


def never():
    return False


def fetch(tasks, request, is_abandoned=never):
    chunks = []
    return chunks, tasks.perform(request, chunks.append, is_abandoned)


def cached(cache, key, version, index):
    chunk = cache.open(ChunkId(object_digest("test", key, version, CHUNK), index))
    return bytes(chunk.view)


@pytest.mark.parametrize(("first", "count"), [(0, 4), (1, 2), (3, 1), (2, 100)])
def test_R7_a_fetch_is_one_ranged_get_cut_into_chunks(store, cache, tasks, first, count):
    version = store.put("a/b", [CONTENT]).version
    chunks, done = fetch(tasks, Fetch(1, b"a/b", version, first, count, True))
    expected = CONTENT[first * CHUNK : (first + count) * CHUNK]
    assert store.requests("a/b") == [f"{first * CHUNK}+{len(expected)}"]
    assert chunks == [
        ChunkDone(1, first + number, "test", len(expected[number * CHUNK :][:CHUNK])) for number in range(len(chunks))
    ]
    assert b"".join(cached(cache, "a/b", version, chunk.index) for chunk in chunks) == expected
    assert done.summary == FetchSummary("test", len(expected))


def test_each_chunk_is_in_the_cache_before_the_next_piece_is_asked_for(store, cache, tasks, monkeypatch):
    version = store.put("a", [CONTENT]).version
    monkeypatch.setattr("tests.workers.stores.PIECE", CHUNK)
    pieces, seen = [], []

    def emit(chunk):
        seen.append((len(pieces), cached(cache, "a", version, chunk.index)))

    def count_piece():
        pieces.append(1)
        return False

    tasks.perform(Fetch(1, b"a", version, 0, 4, True), emit, count_piece)
    assert [number for number, _ in seen] == [1, 2, 3, 4]
    assert b"".join(data for _, data in seen) == CONTENT


class Pieces(ObjectReader):
    """An answer that comes in given pieces, all in one buffer that is used again."""

    def __init__(self, metadata, byte_range, sizes):
        super().__init__(metadata, byte_range, source="test")
        self.sizes = sizes

    def _pieces(self):
        buffer, offset = bytearray(len(CONTENT)), self.byte_range.offset
        for size in self.sizes:
            buffer[:size] = CONTENT[offset : offset + size]
            yield memoryview(buffer)[:size]
            offset += size


@pytest.mark.parametrize(
    "sizes",
    [[len(CONTENT)], [1] * 10 + [len(CONTENT) - 10], [CHUNK - 1, 2, 2 * CHUNK - 2, 78], [0, CHUNK, 0, 2 * CHUNK + 77]],
    ids=str,
)
def test_R1_pieces_of_any_size_make_the_same_chunks(store, cache, tasks, monkeypatch, sizes):
    metadata = store.put("a", [CONTENT])
    monkeypatch.setattr(store, "get", lambda key, wanted, expected: Pieces(metadata, wanted, sizes))
    fetch(tasks, Fetch(1, b"a", metadata.version, 0, 4, True))
    assert b"".join(cached(cache, "a", metadata.version, index) for index in range(4)) == CONTENT


def test_R1_an_answer_about_another_range_is_no_chunk(store, cache, tasks, monkeypatch):
    metadata = store.put("a", [CONTENT])
    whole = store.get
    monkeypatch.setattr(store, "get", lambda key, wanted, expected: whole(key))
    with pytest.raises(IntegrityError, match="wanted"):
        fetch(tasks, Fetch(1, b"a", metadata.version, 1, 1, True))
    assert cache.statistics().bytes == 0


def test_R1_another_version_is_no_answer(store, tasks):
    store.put("a", [CONTENT])
    with pytest.raises(VersionMismatchError):
        fetch(tasks, Fetch(1, b"a", Version(len(CONTENT), "old"), 0, 4, True))


@pytest.mark.parametrize("why", ["no cache", "a refusing one"])
def test_R5_without_a_cache_the_bytes_come_in_the_answer(store, tmp_path, why):
    version = store.put("a", [CONTENT]).version
    cache = None if why == "no cache" else ChunkCache(tmp_path / "cache", 1)
    tasks = Tasks(store, cache, namespace="test", chunk_size=CHUNK)
    chunks, done = fetch(tasks, Fetch(1, b"a", version, 1, 3, True))
    assert chunks == [ChunkData(1, index, "test", CONTENT[index * CHUNK :][:CHUNK]) for index in (1, 2, 3)]
    assert done.summary.bytes == len(CONTENT) - CHUNK
    tasks.close()


def test_an_abandoned_fetch_stops_and_keeps_what_it_has(store, cache, tasks):
    version = store.put("a", [CONTENT]).version
    looks = iter([False, True])
    with pytest.raises(AbandonedError):
        fetch(tasks, Fetch(1, b"a", version, 0, 4, True), lambda: next(looks))
    # One piece of 300,000 bytes was taken, the second was not.
    assert cache.statistics().bytes > 2 * CHUNK
    assert not cache.contains(ChunkId(object_digest("test", "a", version, CHUNK), 3))


def test_N3_a_key_that_is_not_utf8_is_fetched(store, cache, tasks):
    version = store.put("a/\udcff", [b"data"]).version
    fetch(tasks, Fetch(1, pack_text("a/\udcff"), version, 0, 1, True))
    assert cached(cache, "a/\udcff", version, 0) == b"data"


@pytest.mark.parametrize("content", [CONTENT, b""], ids=["some", "empty"])
def test_a_download_replaces_the_file(store, tasks, tmp_path, content):
    version = store.put("a", [content]).version
    target = tmp_path / "staging"
    target.touch()
    _, done = fetch(tasks, Download(1, b"a", version, pack_text(str(target))))
    assert target.read_bytes() == content
    assert done.summary == FetchSummary("test", len(content))
    target.write_bytes(b"x" * 10**6)
    fetch(tasks, Download(2, b"a", version, pack_text(str(target))))
    assert target.read_bytes() == content


def test_a_download_does_not_bring_a_removed_file_back(store, tasks, tmp_path):
    version = store.put("a", [CONTENT]).version
    with pytest.raises(NotFoundError):
        fetch(tasks, Download(1, b"a", version, pack_text(str(tmp_path / "removed"))))
    assert not (tmp_path / "removed").exists()


def test_W1_a_full_disk_is_ENOSPC_for_a_download(store, tasks):
    version = store.put("a", [CONTENT]).version
    with pytest.raises(NoSpaceError):
        fetch(tasks, Download(1, b"a", version, b"/dev/full"))


def upload(tasks, path, **options):
    options = {"metadata": None, "content_type": None, "if_absent": False, "expected": None} | options
    return fetch(tasks, Upload(1, b"a", pack_text(str(path)), **options))[1].metadata


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


@pytest.fixture
def replicated(tmp_path, cache):
    for name in ("far", "near"):
        (tmp_path / name).mkdir()
    wishes = []
    manager = open_store(
        configuration(root=str(tmp_path / "far"), replica=str(tmp_path / "near")),
        "test",
        record_back_fill=wishes.extend,
    )
    yield manager, Tasks(manager, cache, namespace="test", chunk_size=CHUNK)
    manager.close()


def test_a_step_brings_the_replica_to_the_primarys_state(replicated):
    manager, tasks = replicated
    version = manager.primary.put("a", [CONTENT]).version
    _, done = fetch(tasks, Step(1, "near", b"a", False))
    assert (done.result.outcome, done.result.bytes) == ("copied", len(CONTENT))
    copy = manager.replica("near").provider.head("a")
    assert copy.metadata[STAMP_KEY] == version.stamp()
    manager.primary.delete("a")
    _, done = fetch(tasks, Step(2, "near", b"a", True))
    assert done.result.outcome == "deleted"


def test_R6_a_fetch_tells_which_replicas_were_missing_or_stale(replicated):
    manager, tasks = replicated
    version = manager.primary.put("a", [CONTENT]).version
    _, done = fetch(tasks, Fetch(1, b"a", version, 0, 1, True))
    assert (done.summary.source, done.summary.missing, done.summary.stale) == ("test", ("near",), ())
    manager.replica("near").provider.put("a", [b"old"])
    _, done = fetch(tasks, Fetch(1, b"a", version, 0, 1, True))
    assert (done.summary.source, done.summary.missing, done.summary.stale) == ("test", (), ("near",))
    fetch(tasks, Step(1, "near", b"a", False))
    chunks, done = fetch(tasks, Fetch(1, b"a", version, 0, 1, True))
    assert (done.summary.source, done.summary.missing, done.summary.stale) == ("near", (), ())
    assert chunks[0].source == "near"


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


def test_L4_a_fetch_holds_about_one_chunk_in_memory(store, cache, monkeypatch):
    tasks = Tasks(store, cache, namespace="test", chunk_size=1 << 20)
    metadata = replace(store.put("large", [b""]), content_length=64 << 20)
    monkeypatch.setattr(store, "get", lambda key, wanted, expected: Endless(metadata, wanted, source="test"))
    tracemalloc.start()
    try:
        fetch(tasks, Fetch(1, b"large", metadata.version, 0, 64, True))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 1 << 20 < most < 3 << 20
    assert cache.statistics().bytes > 64 << 20
