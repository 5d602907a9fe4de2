"""The soak in its short form, and tasks counted. The long one: python -m tests.reliability.soak."""

from __future__ import annotations

import os

import pytest
import trio
import trio.testing

from mscfs.vfs.inodes import ROOT
from tests.reliability.soak import run
from tests.vfs.inline import world
from tests.vfs.test_data import open_file
from tests.vfs.test_names import names, read_file, write_file


@pytest.mark.mount
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_L4_nothing_grows_with_many_open_files_a_huge_directory_and_mixed_work(tmp_path):
    assert run(tmp_path, handles=1000, entries=50_000, rounds=5) == []


async def test_L4_no_task_is_left_without_an_owner(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:

        async def work() -> None:
            for number in range(20):
                name = f"f{number}"
                await write_file(w.fs, ROOT, name, os.urandom(1000))
                await read_file(w.fs, (await w.fs.lookup(ROOT, name)).number)
                handle = await open_file(w, name)
                await w.fs.rename(ROOT, name, ROOT, "renamed", 0)
                await w.fs.unlink(ROOT, "renamed")
                await w.fs.read(handle, 0, 10)
                await w.fs.release(handle)
                await names(w.fs)
            await trio.testing.wait_all_tasks_blocked()

        await work()
        before = trio.lowlevel.current_statistics().tasks_living
        await work()
        assert trio.lowlevel.current_statistics().tasks_living == before
        assert len(w.fs.handles) == 0
