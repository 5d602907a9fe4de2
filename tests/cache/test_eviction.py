"""The limit and the order in which chunks go."""

import os

import pytest

from mscfs.cache.chunks import ChunkCache, ChunkId
from mscfs.cache.files import BLOCK

DIGEST = "00000000000000000000000000000000"


def opened(tmp_path, policy, limit=4, **options):
    return ChunkCache(tmp_path / "cache", limit * BLOCK, policy=policy, **options)


def fill(cache, count):
    """Chunks 0, 1, 2…, each one block and older than the next."""
    for index in range(count):
        assert cache.insert(ChunkId(DIGEST, index), b"x")
        age(cache, index, index)


def age(cache, index, seconds):
    os.utime(cache._path(ChunkId(DIGEST, index)), ns=(seconds * 10**9,) * 2)


def use(cache, index):
    cache.open(ChunkId(DIGEST, index)).close()


def present(cache, count=20):
    return [index for index in range(count) if cache.contains(ChunkId(DIGEST, index))]


def test_L4_lru_evicts_what_was_used_longest_ago(tmp_path):
    with opened(tmp_path, "lru") as cache:
        fill(cache, 4)
        use(cache, 0)
        cache.insert(ChunkId(DIGEST, 10), b"x")
        assert present(cache) == [0, 2, 3, 10]
        use(cache, 2)
        cache.insert(ChunkId(DIGEST, 11), b"x")
        assert present(cache) == [0, 2, 10, 11]
        assert cache.statistics().evictions == 2


def test_a_victim_that_is_used_after_it_was_chosen_stays(tmp_path):
    with opened(tmp_path, "lru", limit=20) as cache:
        fill(cache, 20)
        cache.insert(ChunkId(DIGEST, 30), b"x")  # chooses five victims and takes one
        use(cache, 1)
        cache.insert(ChunkId(DIGEST, 31), b"x")
        assert present(cache) == [1, *range(3, 20)]


def test_fifo_evicts_the_oldest_however_it_is_used(tmp_path):
    with opened(tmp_path, "fifo") as cache:
        fill(cache, 4)
        use(cache, 0)
        cache.insert(ChunkId(DIGEST, 10), b"x")
        assert present(cache) == [1, 2, 3, 10]


def test_mru_evicts_what_was_used_last(tmp_path):
    with opened(tmp_path, "mru") as cache:
        fill(cache, 4)
        use(cache, 1)
        cache.insert(ChunkId(DIGEST, 10), b"x")
        assert present(cache) == [0, 2, 3, 10]


def test_random_evicts_something(tmp_path):
    with opened(tmp_path, "random") as cache:
        fill(cache, 4)
        cache.insert(ChunkId(DIGEST, 10), b"x")
        assert 10 in present(cache)
        assert len(present(cache)) == 4


def test_no_eviction_refuses_when_full_and_counts_nothing_anew(tmp_path, monkeypatch):
    with opened(tmp_path, "no_eviction") as cache:
        fill(cache, 4)
        monkeypatch.setattr(cache, "_recount", None)
        assert not cache.insert(ChunkId(DIGEST, 10), b"x")
        assert present(cache) == [0, 1, 2, 3]


def test_a_purge_factor_empties_that_part_of_a_full_cache(tmp_path):
    with opened(tmp_path, "lru", limit=100, purge_factor=50) as cache:
        fill(cache, 100)
        cache.insert(ChunkId(DIGEST, 200), b"x")
        assert cache.statistics().bytes == 50 * BLOCK
        assert present(cache, 300) == [*range(51, 100), 200]


def test_a_purge_factor_of_100_leaves_the_newcomer_alone(tmp_path):
    with opened(tmp_path, "lru", purge_factor=100) as cache:
        fill(cache, 4)
        assert cache.insert(ChunkId(DIGEST, 10), b"x")
        assert present(cache) == [10]


def test_L4_a_chunk_larger_than_the_limit_is_refused_and_evicts_nothing(tmp_path):
    with opened(tmp_path, "lru") as cache:
        fill(cache, 4)
        assert not cache.insert(ChunkId(DIGEST, 10), b"x" * 4 * BLOCK)
        assert present(cache) == [0, 1, 2, 3]


def test_a_smaller_limit_holds_from_the_first_insertion(tmp_path):
    with opened(tmp_path, "lru", limit=600) as cache:
        fill(cache, 600)
    with opened(tmp_path, "lru", limit=3) as cache:
        assert cache.insert(ChunkId(DIGEST, 1000), b"x")
        assert cache.statistics().bytes <= 3 * BLOCK
        assert cache.contains(ChunkId(DIGEST, 1000))


@pytest.mark.parametrize("policy", ["lru", "fifo", "mru", "random"])
def test_L4_the_limit_holds_whatever_the_policy(tmp_path, policy):
    with opened(tmp_path, policy, limit=10) as cache:
        for index in range(100):
            assert cache.insert(ChunkId(DIGEST, index), b"x" * (index % 3) * BLOCK)
            on_disk = sum(path.stat().st_blocks * 512 for path in cache._shards.rglob("*-*"))
            assert on_disk <= cache.statistics().bytes <= 10 * BLOCK


def test_a_large_cache_is_not_searched_whole_for_a_victim(tmp_path, monkeypatch):
    with opened(tmp_path, "lru", limit=2048) as cache:
        fill(cache, 2048)
        searched = []
        scandir = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: searched.append(path) or scandir(path))
        assert cache.insert(ChunkId(DIGEST, 5000), b"x")
        # Eight chunks in each of 256 shards: a sample of 512 needs 64 of them, and the list of shards.
        assert len(searched) == 65
        searched.clear()
        for index in range(100):
            assert cache.insert(ChunkId(DIGEST, 6000 + index), b"x")
        assert searched == []
        assert cache.statistics().bytes == 2048 * BLOCK
