"""Chunks that stay open for random readers."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from mscfs.cache import chunks, files, opened
from mscfs.cache.chunks import ChunkCache, ChunkId
from mscfs.cache.opened import OpenChunks

DIGEST = "00000000000000000000000000000000"
LARGE = 1 << 20
LIMIT = 8 * LARGE * opened.DISK_SHARE


@pytest.fixture
def cache(tmp_path):
    with ChunkCache(tmp_path / "cache", LIMIT) as cache:
        for index in range(8):
            assert cache.insert(ChunkId(DIGEST, index), bytes([index]) * LARGE)
        yield cache


@pytest.fixture
def verified(monkeypatch):
    """The indices of chunks that were verified, in order."""
    indices = []
    verify = chunks.verified_size

    def count(descriptor, chunk):
        indices.append(chunk.index)
        return verify(descriptor, chunk)

    monkeypatch.setattr(chunks, "verified_size", count)
    return indices


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def read(opened_chunks, index, begin=0, end=10):
    return bytes(opened_chunks.read(ChunkId(DIGEST, index), begin, end))


def test_a_chunk_is_verified_once_however_often_it_is_read(cache, verified):
    kept = OpenChunks(cache, 4)
    for _ in range(10):
        assert read(kept, 1) == b"\x01" * 10
        assert read(kept, 2) == b"\x02" * 10
    assert verified == [1, 2]
    kept.close()


def test_L4_a_bounded_number_stays_open_those_used_last(cache, verified):
    before = descriptors()
    kept = OpenChunks(cache, 3)
    for index in (0, 1, 2, 0, 3):  # 1 is the one used longest ago
        read(kept, index)
        assert descriptors() <= before + 3
    for index in (0, 2, 3):
        read(kept, index)
    assert verified == [0, 1, 2, 3]
    read(kept, 1)
    assert verified == [0, 1, 2, 3, 1]
    kept.close()
    assert descriptors() == before


def test_L4_what_stays_open_takes_a_bounded_part_of_the_disk_also_when_it_was_evicted(tmp_path):
    """A file that is open takes room until it is closed, and eviction counts it no more."""
    limit = 3 * LARGE * opened.DISK_SHARE
    with ChunkCache(tmp_path / "cache", limit) as cache:
        kept = OpenChunks(cache)
        before = descriptors()
        for index in range(20):
            cache.insert(ChunkId(DIGEST, index), bytes([index]) * LARGE)
            read(kept, index, end=10 if index % 2 else LARGE)
            assert descriptors() <= before + 3
        for index in range(20):
            assert read(kept, index) == bytes([index]) * 10
        kept.close()
        assert descriptors() == before


def test_the_chunk_that_is_read_stays_open_however_small_the_cache(tmp_path, verified):
    with ChunkCache(tmp_path / "cache", 2 * LARGE) as cache:
        cache.insert(ChunkId(DIGEST, 1), b"\x01" * LARGE)
        kept = OpenChunks(cache)
        for _ in range(3):
            assert read(kept, 1) == b"\x01" * 10
        assert verified == [1]
        kept.close()


def test_a_miss_is_looked_for_again_the_next_time(cache):
    kept = OpenChunks(cache, 3)
    assert kept.read(ChunkId(DIGEST, 9), 0, 1) is None
    cache.insert(ChunkId(DIGEST, 9), b"here now!!")
    assert read(kept, 9) == b"here now!!"
    kept.close()


def test_R1_a_damaged_chunk_is_a_miss_and_is_not_kept(cache):
    path = Path(cache._path(ChunkId(DIGEST, 1)))
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    kept = OpenChunks(cache, 3)
    assert kept.read(ChunkId(DIGEST, 1), 0, 1) is None
    cache.insert(ChunkId(DIGEST, 1), b"good again")
    assert read(kept, 1) == b"good again"
    kept.close()


@pytest.mark.parametrize("end", [100_000, LARGE], ids=["read by copy", "mapped"])
def test_R1_a_chunk_that_was_cut_off_while_it_is_open_is_a_miss_and_no_short_read(cache, end):
    before = descriptors()
    kept = OpenChunks(cache, 3)
    read(kept, 1)
    os.truncate(cache._path(ChunkId(DIGEST, 1)), 5000)
    assert kept.read(ChunkId(DIGEST, 1), 0, end) is None
    assert descriptors() == before
    cache.insert(ChunkId(DIGEST, 1), b"\x01" * LARGE)
    assert read(kept, 1, 0, end) == b"\x01" * end
    kept.close()


def test_a_slice_of_a_chunk_that_had_to_make_room_stays_good(cache):
    kept = OpenChunks(cache, 1)
    mapped = kept.read(ChunkId(DIGEST, 1), 0, LARGE)
    assert isinstance(mapped, memoryview)
    read(kept, 2)
    assert mapped == b"\x01" * LARGE
    mapped.release()
    kept.close()


def test_L4_a_mapped_chunk_is_let_go_at_its_end_and_its_last_slice_stays_good(cache, verified):
    before = descriptors()
    kept = OpenChunks(cache, 4)
    read(kept, 1, end=LARGE // 2)
    assert descriptors() == before + 1
    last = kept.read(ChunkId(DIGEST, 1), LARGE // 2, LARGE)
    assert last == b"\x01" * (LARGE // 2)
    last.release()
    assert descriptors() == before
    assert verified == [1]
    kept.close()


@pytest.mark.parametrize("size", [10, LARGE - 1], ids=["read by copy", "mapped"])
def test_a_chunk_evicted_from_the_disk_while_it_is_open_stays_readable(cache, size):
    kept = OpenChunks(cache, 4)
    read(kept, 1, end=size)
    Path(cache._path(ChunkId(DIGEST, 1))).unlink()
    assert read(kept, 1, end=size) == b"\x01" * size
    kept.close()


def test_R5_a_disk_that_fails_is_a_miss_and_the_chunk_is_opened_anew_the_next_time(cache, verified, monkeypatch):
    before = descriptors()
    kept = OpenChunks(cache, 4)
    read(kept, 1)

    def fail(self, begin, end):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as failing:
        failing.setattr(files.Chunk, "read", fail)
        assert kept.read(ChunkId(DIGEST, 1), 0, 10) is None
    assert descriptors() == before
    assert read(kept, 1) == b"\x01" * 10
    assert verified == [1, 1]
    kept.close()


def test_the_system_decides_how_many_stay_open(cache, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (12, 12))
    before = descriptors()
    kept = OpenChunks(cache)
    for index in range(8):
        read(kept, index)
    assert descriptors() == before + 12 // opened.DESCRIPTOR_SHARE
    kept.close()


def test_closing_gives_everything_back_and_does_no_harm_twice(cache):
    before = descriptors()
    kept = OpenChunks(cache, 8)
    for index in range(8):
        read(kept, index, end=10 if index % 2 else LARGE - 1)
    assert descriptors() == before + 8
    kept.close()
    kept.close()
    assert descriptors() == before
