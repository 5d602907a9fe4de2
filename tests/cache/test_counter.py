"""Several processes, and processes that die, count the bytes of one cache."""

import errno
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from mscfs.cache import chunks, counter
from mscfs.cache.chunks import ChunkCache, ChunkId
from mscfs.cache.files import BLOCK, charge

DIGEST = "00000000000000000000000000000000"
SPAWN = multiprocessing.get_context("spawn")


def files_in(cache):
    return [path for path in cache.settings.directory.glob("*/**/*") if path.is_file()]


def bytes_on_disk(cache):
    total = 0
    for path in files_in(cache):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def stored_files(cache):
    return sum(charge(path.stat().st_size) for path in cache._shards.glob("*/*"))


def insert_many(settings, first, count, started):
    with ChunkCache.attach(settings) as cache:
        started.wait(30)
        for index in range(first, first + count):
            cache.insert(ChunkId(DIGEST, index % 500), b"x" * (index % 7) * BLOCK)


def run_processes(*arguments, target):
    processes = [SPAWN.Process(target=target, args=argument) for argument in arguments]
    for process in processes:
        process.start()
    return processes


def finish(processes):
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(processes)


def test_L4_two_processes_never_exceed_the_limit_together(tmp_path):
    limit = 40 * BLOCK
    with ChunkCache(tmp_path / "cache", limit) as cache:
        started = SPAWN.Barrier(3)
        processes = run_processes(
            (cache.settings, 0, 1500, started), (cache.settings, 250, 1500, started), target=insert_many
        )
        started.wait(30)
        most = samples = 0
        while any(process.is_alive() for process in processes):
            most = max(most, bytes_on_disk(cache))
            samples += 1
        finish(processes)
        assert samples > 20
        assert 20 * BLOCK < most <= limit
        assert cache.statistics().bytes == stored_files(cache) <= limit


def test_one_chunk_inserted_by_two_processes_counts_once(tmp_path):
    with ChunkCache(tmp_path / "cache", 5000 * BLOCK) as cache:
        started = SPAWN.Barrier(2)
        finish(
            run_processes((cache.settings, 0, 500, started), (cache.settings, 500, 500, started), target=insert_many)
        )
        assert len(files_in(cache)) == 500
        assert cache.statistics().bytes == stored_files(cache)


def die_while_writing(settings, ready):
    def write_a_part(path, chunk, pieces):
        with Path(path).open("wb") as file:
            file.write(b"a part")
            file.flush()
            ready.set()
            time.sleep(60)

    chunks.write = write_a_part
    ChunkCache.attach(settings).insert(ChunkId(DIGEST, 1), b"x" * 9 * BLOCK)


def die_while_counting(settings, ready):
    def add_stored(self, size):
        ready.set()
        time.sleep(60)

    counter.SharedCounter.add_stored = add_stored
    ChunkCache.attach(settings).insert(ChunkId(DIGEST, 1), b"x" * 9 * BLOCK)


def kill_when_ready(target, cache):
    ready = SPAWN.Event()
    [process] = run_processes((cache.settings, ready), target=target)
    assert ready.wait(30)
    assert cache.statistics().bytes >= 10 * BLOCK
    process.kill()
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def test_a_process_killed_in_an_insertion_leaves_nothing_that_counts(tmp_path, monkeypatch):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        cache.insert(ChunkId(DIGEST, 0), b"x")
        kill_when_ready(die_while_writing, cache)
        assert cache.statistics().bytes == 11 * BLOCK
        monkeypatch.setattr(ChunkCache, "_recount", None)  # needed for nothing here
        with ChunkCache.attach(cache.settings) as successor:
            assert successor.statistics().bytes == BLOCK
            assert len(files_in(cache)) == 1
            assert successor.insert(ChunkId(DIGEST, 1), b"x")


def test_a_process_killed_while_counting_has_the_next_one_count_the_files(tmp_path):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        cache.insert(ChunkId(DIGEST, 0), b"x")
        kill_when_ready(die_while_counting, cache)
        with ChunkCache.attach(cache.settings) as successor:
            assert successor.insert(ChunkId(DIGEST, 2), b"x")
            assert successor.statistics().bytes == stored_files(cache) == 12 * BLOCK


@pytest.mark.parametrize("change", ["reserve", "release"])
def test_a_process_killed_between_two_words_of_a_reservation_keeps_nobody_from_the_cache(tmp_path, change):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        cache.insert(ChunkId(DIGEST, 0), b"x")
        child = os.fork()
        if child == 0:
            count = cache._counter
            with count.changing():
                count.reserve(7 * BLOCK)
            with count.changing():
                count._words[counter._RESERVED] += (5 if change == "reserve" else -7) * BLOCK
                os.kill(os.getpid(), signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with ChunkCache.attach(cache.settings) as successor:
            assert successor.statistics().bytes == BLOCK
            assert successor.insert(ChunkId(DIGEST, 1), b"x")
        assert cache.insert(ChunkId(DIGEST, 2), b"x")
        assert cache.statistics().bytes == stored_files(cache) == 3 * BLOCK


def test_a_process_killed_between_two_words_of_a_reservation_keeps_those_that_live_from_nothing(tmp_path):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        child = os.fork()
        if child == 0:
            count = cache._counter
            with count.changing():
                count._words[counter._RESERVED] += 99 * BLOCK
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert cache.insert(ChunkId(DIGEST, 0), b"x" * 50 * BLOCK)


def test_a_counter_that_the_disk_has_no_room_for_is_an_error_and_not_a_signal(tmp_path, monkeypatch):
    """A page of a mapped file that has no place on a full disk kills whoever changes it."""

    def refuse(descriptor, offset, size):
        assert (offset, size) == (0, os.fstat(descriptor).st_size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    for _ in range(2):  # the one who comes later finds a file of the right size
        with pytest.raises(OSError, match="No space"):
            ChunkCache(tmp_path / "cache", 100 * BLOCK)


def test_two_that_start_at_once_remove_together_what_a_dead_process_left(tmp_path, monkeypatch):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        left = [cache._incoming / "7-0", cache._incoming / "7-1"]
        for path in left:
            path.touch()

        def is_dead(self, slot):
            for path in left:
                path.unlink(missing_ok=True)  # by the other one, between the look and the removal
            return True

        monkeypatch.setattr(counter.SharedCounter, "is_dead", is_dead)
        with ChunkCache.attach(cache.settings) as second:
            assert second.insert(ChunkId(DIGEST, 0), b"x")


def test_L4_the_limit_holds_when_the_directory_was_emptied_below_a_mount_that_goes_on(tmp_path):
    limit = 10 * BLOCK
    descriptors = len(os.listdir("/proc/self/fd"))
    with ChunkCache(tmp_path / "cache", limit) as older:
        older.insert(ChunkId(DIGEST, 0), b"x")
        shutil.rmtree(tmp_path / "cache")
        assert not older.insert(ChunkId(DIGEST, 0), b"x")
        assert older.statistics().bytes == BLOCK  # as far as is known
        with ChunkCache.attach(older.settings) as newer:
            for index in range(0, 40, 2):
                assert older.insert(ChunkId(DIGEST, index), b"x")
                assert newer.insert(ChunkId(DIGEST, index + 1), b"x")
                assert newer.statistics().bytes == older.statistics().bytes == stored_files(newer) <= limit
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_an_insertion_of_a_living_process_keeps_its_reservation_when_others_come_and_go(tmp_path):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        with cache._counter.changing():
            cache._counter.reserve(7 * BLOCK)
        ChunkCache.attach(cache.settings).close()
        assert cache.statistics().bytes == 7 * BLOCK


def test_a_forked_child_counts_in_a_slot_of_its_own(tmp_path):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        cache.insert(ChunkId(DIGEST, 0), b"x")
        with cache._counter.changing():  # held by a thread of the parent at the fork
            child = os.fork()
            if child == 0:
                # The child must wait for the parent's lock, and not take the parent's slot.
                good = cache._counter.slot == 1 and cache.insert(ChunkId(DIGEST, 1), b"x")
                os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.insert(ChunkId(DIGEST, 2), b"x")
        assert cache.statistics().bytes == stored_files(cache) == 3 * BLOCK


@pytest.fixture
def boot_id(tmp_path, monkeypatch):
    path = tmp_path / "boot_id"
    path.write_text("6b5f9f3c-0000-4000-8000-000000000001\n")
    monkeypatch.setattr(counter, "_BOOT_ID", path)
    return path


def lose(cache):
    """Close a cache as a power cut does: the locks are gone, the counter's page may be older than the files."""
    with cache._counter.changing():
        cache._counter.add_stored(50 * BLOCK)
    cache._counter._words.release()
    cache._counter._mapping.close()
    os.close(cache._counter._descriptor)


def test_after_a_power_cut_the_files_are_counted_at_the_first_insertion(tmp_path, boot_id):
    cache = ChunkCache(tmp_path / "cache", 100 * BLOCK)
    cache.insert(ChunkId(DIGEST, 0), b"x")
    lose(cache)
    boot_id.write_text("7c60ffff-0000-4000-8000-000000000002\n")
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        assert cache.statistics().bytes == 51 * BLOCK
        assert cache.insert(ChunkId(DIGEST, 1), b"x")
        assert cache.statistics().bytes == 2 * BLOCK


def test_after_kill_9_of_all_or_a_clean_reboot_the_numbers_hold(tmp_path, boot_id, monkeypatch):
    cache = ChunkCache(tmp_path / "cache", 100 * BLOCK)
    lose(cache)
    monkeypatch.setattr(ChunkCache, "_recount", None)
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        assert cache.statistics().bytes == 50 * BLOCK
    boot_id.write_text("7c60ffff-0000-4000-8000-000000000002\n")
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        assert cache.insert(ChunkId(DIGEST, 1), b"x")
        assert cache.statistics().bytes == 51 * BLOCK


def test_a_reboot_under_one_of_two_processes_is_not_clean(tmp_path, boot_id):
    first = ChunkCache(tmp_path / "cache", 100 * BLOCK)
    first.insert(ChunkId(DIGEST, 0), b"x")
    ChunkCache.attach(first.settings).close()
    lose(first)
    boot_id.write_text("7c60ffff-0000-4000-8000-000000000002\n")
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        assert cache.insert(ChunkId(DIGEST, 1), b"x")
        assert cache.statistics().bytes == 2 * BLOCK


def test_a_counter_of_another_format_is_made_anew(tmp_path):
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        cache.insert(ChunkId(DIGEST, 0), b"x")
    (tmp_path / "cache" / "counter").write_bytes(b"something else")
    with ChunkCache(tmp_path / "cache", 100 * BLOCK) as cache:
        assert cache.insert(ChunkId(DIGEST, 1), b"x")
        assert cache.statistics().bytes == 2 * BLOCK


def test_opening_and_reading_a_large_cache_looks_through_no_directory_of_chunks(tmp_path, monkeypatch):
    with ChunkCache(tmp_path / "cache", 10_000 * BLOCK) as cache:
        for index in range(3000):
            cache.insert(ChunkId(DIGEST, index), b"x")
    looked_at = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looked_at.append(path) or scandir(path))
    monkeypatch.setattr(os, "listdir", None)
    with ChunkCache(tmp_path / "cache", 10_000 * BLOCK) as cache:
        assert cache.statistics().bytes == 3000 * BLOCK
        assert cache.contains(ChunkId(DIGEST, 1))
        cache.open(ChunkId(DIGEST, 1)).close()
        assert cache.insert(ChunkId(DIGEST, 3000), b"x")
        assert cache.statistics().bytes == 3001 * BLOCK
    assert looked_at == [tmp_path / "cache" / "incoming"]
