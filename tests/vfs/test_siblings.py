"""Sibling read-ahead: what is opened in listing order is there before it is asked for."""

from __future__ import annotations

import os

import trio.testing

from mscfs.vfs.inodes import ROOT
from mscfs.vfs.siblings import FIRST_FILES, MOST_FILES
from tests.vfs.inline import world

NAMES = [f"{number:04}" for number in range(300)]


def fill(w, names=NAMES, size=1000):
    for name in names:
        (w.store("primary") / name).write_bytes(name.encode() * (size // 4))


async def listed(w):
    """List the root as `ls` does, so that names are known in their order."""
    handle = w.fs.open_directory(ROOT)
    position = 0
    while True:
        rows = await w.fs.read_directory(handle, position)
        count = len(rows.slots) + len(rows.loose)
        if not count:
            break
        position += count
    w.fs.close_directory(handle)


async def read(w, name):
    found = await w.fs.lookup(ROOT, name)
    handle, _ = await w.fs.open(found.number, os.O_RDONLY)
    data = bytes(await w.fs.read(handle, 0, 4096))
    await w.fs.release(handle)
    w.fs.forget(found.number, 1)
    assert data == name.encode() * (len(data) // 4)
    assert data
    return data


def waiting(w):
    return {buffer.target.key for buffer in w.parts.fetcher.buffers._found.values()}


async def test_files_opened_in_order_find_the_next_ones_fetched(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        fill(w)
        await listed(w)
        await read(w, NAMES[0])
        assert waiting(w) == set()  # one file is no order
        await read(w, NAMES[1])
        await trio.testing.wait_all_tasks_blocked()
        assert waiting(w) == set(NAMES[2 : 2 + FIRST_FILES])
        fetches = w.transport.fetches
        await read(w, NAMES[2])
        assert w.transport.fetches == fetches  # the read found it there


async def test_the_window_doubles_and_each_file_is_fetched_once(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        fill(w)
        await listed(w)
        furthest = 0
        for number, name in enumerate(NAMES[:200]):
            await read(w, name)
            await trio.testing.wait_all_tasks_blocked()
            furthest = max(furthest, len(waiting(w)))
            assert len(waiting(w)) <= MOST_FILES
            assert all(int(key) > number for key in waiting(w))
        assert furthest > MOST_FILES // 2
        assert w.transport.fetches == 200 + len(waiting(w))


async def test_files_opened_at_random_fetch_nothing_else(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        fill(w)
        await listed(w)
        for number in (250, 20, 180, 90, 5, 299, 130):
            await read(w, NAMES[number])
        await trio.testing.wait_all_tasks_blocked()
        assert w.transport.fetches == 7


async def test_readers_that_are_nearly_in_order_count_as_in_order(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        fill(w)
        await listed(w)
        for number in (3, 0, 2, 1, 5, 4, 7, 6):
            await read(w, NAMES[number])
        await trio.testing.wait_all_tasks_blocked()
        assert NAMES[8] in waiting(w)


async def test_only_small_files_are_fetched_ahead(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        fill(w, NAMES[:2])
        (w.store("primary") / "0002").write_bytes(bytes(8 << 20))
        (w.store("primary") / "0003").mkdir()
        (w.store("primary") / "0004").touch()
        fill(w, NAMES[5:6])
        await listed(w)
        await read(w, NAMES[0])
        await read(w, NAMES[1])
        await trio.testing.wait_all_tasks_blocked()
        assert waiting(w) == {NAMES[5]}


async def test_R1_what_was_fetched_ahead_of_a_new_version_is_not_read(tmp_path):
    async with world(tmp_path, replicas=False, metadata_ttl=0.05) as w:
        fill(w, NAMES[:10])
        await listed(w)
        await read(w, NAMES[0])
        await read(w, NAMES[1])
        await trio.testing.wait_all_tasks_blocked()
        (w.store("primary") / NAMES[2]).write_bytes(NAMES[2].encode() * 77)
        await trio.sleep(0.06)
        assert len(await read(w, NAMES[2])) == 4 * 77


async def test_L4_no_more_is_fetched_than_there_is_memory_for(tmp_path):
    async with world(tmp_path, replicas=False, memory_limit=16 << 20, chunk_size=1 << 20) as w:
        fill(w, NAMES[:100], size=1_000_000)
        await listed(w)
        for name in NAMES[:60]:
            found = await w.fs.lookup(ROOT, name)
            handle, _ = await w.fs.open(found.number, os.O_RDONLY)
            assert bytes(await w.fs.read(handle, 0, 4)) == name.encode()
            await w.fs.release(handle)
            arena = w.parts.fetcher.buffers.arena
            assert arena.used <= arena.size


async def test_it_can_be_turned_off(tmp_path):
    async with world(tmp_path, replicas=False, sibling_read_ahead=False) as w:
        fill(w, NAMES[:20])
        await listed(w)
        for name in NAMES[:6]:
            await read(w, name)
        await trio.testing.wait_all_tasks_blocked()
        assert w.transport.fetches == 6


async def test_what_nobody_comes_for_is_dropped(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        fill(w)
        await listed(w)
        await read(w, NAMES[0])
        await read(w, NAMES[1])
        await trio.testing.wait_all_tasks_blocked()
        buffers = w.parts.fetcher.buffers
        buffers.drop_idle()
        assert len(buffers) == FIRST_FILES
        buffers.drop_idle()
        assert len(buffers) == 0
        assert buffers.arena.used == 0
