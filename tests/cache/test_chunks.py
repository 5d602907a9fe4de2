"""One process and its chunk cache: what goes in comes out, or is a miss."""

import errno
import mmap
import os
import stat
import subprocess
from pathlib import Path

import pytest

from mscfs.cache import files
from mscfs.cache.chunks import ChunkCache, ChunkId, object_digest
from mscfs.cache.files import BLOCK, SMALL_READ, TRAILER_SIZE, charge
from mscfs.types import Version

MIB = 1 << 20
DIGEST = object_digest("memory://test", "a/b", Version(3 * MIB, "one"), MIB)
OTHER = object_digest("memory://test", "a/c", Version(3 * MIB, "one"), MIB)


@pytest.fixture
def cache(tmp_path):
    with ChunkCache(tmp_path / "cache", 64 * MIB) as cache:
        yield cache


def read(cache, chunk):
    found = cache.open(chunk)
    if found is None:
        return None
    data = bytes(found.view)
    found.close()
    return data


def file_of(cache, chunk):
    return Path(cache._path(chunk))


def bytes_on_disk(directory):
    return sum(charge(path.stat().st_size) for path in directory.glob("*/**/*") if path.is_file())


def reasons(caplog):
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "data",
    [
        b"some bytes",
        memoryview(b"x" * MIB),
        [b"a" * 300_000, memoryview(bytearray(b"b" * 700_000)), b"", b"c"],
        [bytes([number % 256]) for number in range(3000)],
        b"",
        [],
    ],
    ids=["bytes", "memoryview", "pieces", "more pieces than one writev takes", "empty", "no pieces"],
)
def test_a_chunk_comes_out_as_it_went_in(cache, data):
    assert cache.insert(ChunkId(DIGEST, 0), data)
    whole = bytes(data) if isinstance(data, bytes | memoryview) else b"".join(data)
    assert read(cache, ChunkId(DIGEST, 0)) == whole
    assert cache.contains(ChunkId(DIGEST, 0))
    assert cache.statistics().bytes == charge(len(whole) + TRAILER_SIZE) == bytes_on_disk(cache.settings.directory)


def test_the_view_is_read_only(cache):
    cache.insert(ChunkId(DIGEST, 0), b"data")
    chunk = cache.open(ChunkId(DIGEST, 0))
    assert chunk.view.readonly
    chunk.close()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("first", [(0, 10), (0, MIB)], ids=["a small read first", "a large read first"])
def test_a_chunk_gives_any_part_of_its_data_by_copy_or_mapping(cache, first):
    data = os.urandom(MIB)
    cache.insert(ChunkId(DIGEST, 0), data)
    before = descriptors()
    chunk = cache.open(ChunkId(DIGEST, 0))
    parts = [first, (0, 0), (5, 9), (MIB - 1, MIB), (1, MIB - 1), (7, 7 + SMALL_READ), (7, 8 + SMALL_READ), (3, 4)]
    for begin, end in parts:
        assert bytes(chunk.read(begin, end)) == data[begin:end]
        assert descriptors() == before + 1
    chunk.close()
    assert descriptors() == before


def test_a_small_read_maps_nothing_and_a_large_one_copies_nothing(cache):
    cache.insert(ChunkId(DIGEST, 0), bytes(MIB))
    chunk = cache.open(ChunkId(DIGEST, 0))
    assert isinstance(chunk.read(0, SMALL_READ), bytes)
    large = chunk.read(0, SMALL_READ + 1)
    assert isinstance(large, memoryview)
    assert isinstance(large.obj, mmap.mmap)
    chunk.close()


@pytest.mark.parametrize("size", [10, MIB])
def test_a_chunk_closed_twice_or_unread_costs_nothing(cache, size):
    cache.insert(ChunkId(DIGEST, 0), bytes(size))
    before = descriptors()
    unread, twice = cache.open(ChunkId(DIGEST, 0)), cache.open(ChunkId(DIGEST, 0))
    twice.read(0, size)
    for chunk in (unread, twice, twice):
        chunk.close()
    assert descriptors() == before


def test_a_partial_write_is_continued(cache, monkeypatch):
    whole_write = os.writev

    def short_write(descriptor, buffers):
        return whole_write(descriptor, [memoryview(buffers[0])[:7]])

    monkeypatch.setattr(files.os, "writev", short_write)
    assert cache.insert(ChunkId(DIGEST, 0), [b"0123456789", b"abc"])
    assert read(cache, ChunkId(DIGEST, 0)) == b"0123456789abc"


def test_another_index_object_version_or_chunk_size_is_a_miss(cache):
    cache.insert(ChunkId(DIGEST, 0), b"data")
    assert cache.open(ChunkId(DIGEST, 1)) is None
    assert cache.open(ChunkId(OTHER, 0)) is None
    assert not cache.contains(ChunkId(OTHER, 0))
    digests = {
        object_digest("memory://test", "a/b", Version(3 * MIB, "one"), MIB),
        object_digest("memory://test", "a/b", Version(3 * MIB, "two"), MIB),
        object_digest("memory://test", "a/b", Version(3 * MIB, "one"), 2 * MIB),
        object_digest("memory://elsewhere", "a/b", Version(3 * MIB, "one"), MIB),
        object_digest("memory://test", "a/\udcff", Version(3 * MIB, "one"), MIB),
    }
    assert len(digests) == 5
    assert all(len(digest) == 32 for digest in digests)
    assert cache.statistics().misses == 2


def truncate(path, _):
    os.truncate(path, path.stat().st_size - 1)


def lose_the_end(path, _):
    os.truncate(path, 10)


def empty(path, _):
    os.truncate(path, 0)


def grow(path, _):
    with path.open("ab") as file:
        file.write(b"more")


def flip_a_bit(path, _):
    with path.open("r+b") as file:
        file.seek(300_000)
        byte = file.read(1)[0]
        file.seek(300_000)
        file.write(bytes([byte ^ 1]))


def zeros_after_a_power_cut(path, _):
    size = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size)


def put_another_chunk_there(path, cache):
    cache.insert(ChunkId(OTHER, 0), b"y" * MIB)
    path.write_bytes(file_of(cache, ChunkId(OTHER, 0)).read_bytes())
    file_of(cache, ChunkId(OTHER, 0)).unlink()


@pytest.mark.parametrize(
    "damage",
    [truncate, lose_the_end, empty, grow, flip_a_bit, zeros_after_a_power_cut, put_another_chunk_there],
    ids=lambda damage: damage.__name__,
)
def test_R1_a_damaged_file_is_a_miss_and_goes(cache, damage):
    chunk = ChunkId(DIGEST, 0)
    cache.insert(chunk, b"x" * MIB)
    damage(file_of(cache, chunk), cache)
    assert cache.open(chunk) is None
    assert not cache.contains(chunk)
    assert cache.insert(chunk, b"x" * MIB)
    assert read(cache, chunk) == b"x" * MIB


def test_a_damaged_file_is_not_waited_for_while_the_counter_is_locked_but_can_be_replaced(cache):
    chunk = ChunkId(DIGEST, 0)
    cache.insert(chunk, b"good")
    truncate(file_of(cache, chunk), None)
    with cache._counter.changing():
        assert cache.open(chunk) is None
    assert cache.contains(chunk)
    assert cache.insert(chunk, b"good")
    assert read(cache, chunk) == b"good"
    assert cache.statistics().bytes == BLOCK


def test_a_chunk_inserted_again_counts_once(cache):
    for _ in range(3):
        cache.insert(ChunkId(DIGEST, 0), b"x" * 10 * BLOCK)
    assert cache.statistics().bytes == 11 * BLOCK


def test_an_open_chunk_stays_readable_when_it_is_removed(cache):
    cache.insert(ChunkId(DIGEST, 0), b"still here" * 1000)
    chunk = cache.open(ChunkId(DIGEST, 0))
    file_of(cache, ChunkId(DIGEST, 0)).unlink()
    assert not cache.contains(ChunkId(DIGEST, 0))
    assert bytes(chunk.view) == b"still here" * 1000
    chunk.close()


def test_a_slice_that_outlives_close_stays_readable(cache):
    cache.insert(ChunkId(DIGEST, 0), b"0123456789")
    chunk = cache.open(ChunkId(DIGEST, 0))
    reply = chunk.view[2:5]
    chunk.close()
    assert bytes(reply) == b"234"


def test_L5_files_and_directories_are_private(cache):
    cache.insert(ChunkId(DIGEST, 0), b"data")
    root = cache.settings.directory
    for path in [root, *root.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_chunks_last_beyond_close(tmp_path):
    with ChunkCache(tmp_path / "cache", MIB) as cache:
        cache.insert(ChunkId(DIGEST, 0), b"data")
    with ChunkCache(tmp_path / "cache", MIB) as cache:
        assert read(cache, ChunkId(DIGEST, 0)) == b"data"
        assert cache.statistics().bytes == BLOCK


def test_another_opening_sees_the_same_chunks(cache):
    cache.insert(ChunkId(DIGEST, 0), b"data")
    with ChunkCache.attach(cache.settings) as other:
        assert read(other, ChunkId(DIGEST, 0)) == b"data"
        other.insert(ChunkId(DIGEST, 1), b"more")
    assert read(cache, ChunkId(DIGEST, 1)) == b"more"
    assert cache.statistics().bytes == 2 * BLOCK


def test_R5_a_cache_deleted_while_in_use_refuses_and_raises_nothing(cache, caplog):
    cache.insert(ChunkId(DIGEST, 0), b"data")
    chunk = cache.open(ChunkId(DIGEST, 0))
    subprocess.run(["rm", "-rf", cache.settings.directory], check=True)
    assert bytes(chunk.view) == b"data"
    chunk.close()
    assert cache.open(ChunkId(DIGEST, 0)) is None
    assert not cache.insert(ChunkId(DIGEST, 1), b"data")
    assert not cache.insert(ChunkId(DIGEST, 2), b"data")
    assert len(reasons(caplog)) == 1


def test_a_cache_emptied_by_hand_counts_anew_when_it_seems_full(tmp_path):
    with ChunkCache(tmp_path / "cache", 10 * BLOCK) as cache:
        for index in range(10):
            cache.insert(ChunkId(DIGEST, index), b"data")
        subprocess.run(f"rm -rf {cache.settings.directory}/chunks/*", shell=True, check=True)
        assert cache.insert(ChunkId(OTHER, 0), b"data")
        assert cache.statistics().bytes == BLOCK
        assert cache.statistics().evictions == 0


@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """A directory with room for about half a MiB; where nothing can be mounted, writes that find the disk full."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", directory], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        whole_write = os.writev

        def limited(descriptor, buffers):
            if sum(map(len, buffers)) > 400_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return whole_write(descriptor, buffers)

        monkeypatch.setattr(files.os, "writev", limited)
    yield directory
    if mounted:
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_R5_a_full_disk_refuses_an_insertion_with_one_log_line(full_disk, caplog):
    with ChunkCache(full_disk / "cache", 100 * MIB) as cache:
        assert not cache.insert(ChunkId(DIGEST, 0), b"x" * MIB)
        assert not cache.insert(ChunkId(DIGEST, 1), b"x" * MIB)
        assert cache.insert(ChunkId(DIGEST, 2), b"fits")
        assert read(cache, ChunkId(DIGEST, 2)) == b"fits"
        assert cache.statistics().bytes == BLOCK == bytes_on_disk(cache.settings.directory)
    assert len(reasons(caplog)) == 1
    assert "No space left" in reasons(caplog)[0]
