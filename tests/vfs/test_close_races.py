"""What other handles and names do to a file while its close() brings it to the primary: W5, W6, W7, W8.

The upload is held up before the primary has the object, or before anybody here knows; there the other call begins. It
may wait or not: in the end the primary, the mount and a local directory would hold the same.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing

from mscfs.vfs.filesystem import RENAME_NOREPLACE, Change
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.staging_log import LOG
from tests.vfs.inline import World, world
from tests.vfs.test_names import ME, names, read_file, walk, write_file

MINE, OTHER, NEW = b"mine", b"oTHER", b"new"

Act = Callable[[World, int], Awaitable[object]]
"""Something done to `a`, which is being closed, or `other`, in the directory of this number."""


async def read(w: World, directory: int) -> None:
    assert await read_file(w.fs, (await w.fs.lookup(directory, "a")).number) == MINE


async def write(w: World, directory: int) -> None:
    handle, _ = await w.fs.open((await w.fs.lookup(directory, "a")).number, os.O_RDWR)
    await w.fs.write(handle, 0, b"M")
    await w.fs.flush(handle)
    await w.fs.release(handle)


async def truncate(w: World, directory: int) -> None:
    await w.fs.set_attributes((await w.fs.lookup(directory, "a")).number, Change(size=1))


async def open_to_replace(w: World, directory: int) -> None:
    handle, _ = await w.fs.open((await w.fs.lookup(directory, "a")).number, os.O_WRONLY | os.O_TRUNC)
    await w.fs.write(handle, 0, NEW)
    await w.fs.flush(handle)
    await w.fs.release(handle)


async def change_the_mode(w: World, directory: int) -> None:
    await w.fs.set_attributes((await w.fs.lookup(directory, "a")).number, Change(mode=0o600, mtime_ns=1))


async def take_the_name(w: World, directory: int) -> None:
    with pytest.raises(FileExistsError):
        await w.fs.create(directory, "a", 0o644, os.O_WRONLY | os.O_EXCL, ME)


async def rename(w: World, directory: int) -> None:
    await w.fs.rename(directory, "a", directory, "z", 0)


async def rename_over(w: World, directory: int) -> None:
    await w.fs.rename(directory, "other", directory, "a", 0)


async def rename_over_and_write(w: World, directory: int) -> None:
    await rename_over(w, directory)
    await write(w, directory)


async def rename_without_replacing(w: World, directory: int) -> None:
    with pytest.raises(FileExistsError):
        await w.fs.rename(directory, "other", directory, "a", RENAME_NOREPLACE)


async def unlink(w: World, directory: int) -> None:
    await w.fs.unlink(directory, "a")


async def make_anew(w: World, directory: int) -> None:
    await w.fs.unlink(directory, "a")
    await write_file(w.fs, directory, "a", NEW)


async def remove_the_directory(w: World, directory: int) -> None:
    with pytest.raises(OSError, match="not empty"):
        await w.fs.remove_directory(ROOT, "d")


async def move_the_directory(w: World, directory: int) -> None:
    await w.fs.rename(ROOT, "d", ROOT, "e", 0)


BOTH = {"d/a": MINE, "d/other": OTHER}
OUTCOMES: dict[Act, dict[str, bytes]] = {
    read: BOTH,
    write: BOTH | {"d/a": b"Mine"},
    truncate: BOTH | {"d/a": b"m"},
    open_to_replace: BOTH | {"d/a": NEW},
    change_the_mode: BOTH,
    take_the_name: BOTH,
    rename: {"d/z": MINE, "d/other": OTHER},
    rename_over: {"d/a": OTHER},
    rename_over_and_write: {"d/a": b"MTHER"},
    rename_without_replacing: BOTH,
    unlink: {"d/other": OTHER},
    make_anew: {"d/a": NEW, "d/other": OTHER},
    remove_the_directory: BOTH,
    move_the_directory: {"e/a": MINE, "e/other": OTHER},
}


@pytest.mark.parametrize("act", OUTCOMES)
@pytest.mark.parametrize("is_new", [True, False], ids=["new", "in place"])
@pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])
async def test_W6_W7_W8_what_happens_while_a_file_is_closed(tmp_path, objects, is_new, act):
    for moment in ("before", "after"):
        (tmp_path / moment).mkdir()
        async with world(tmp_path / moment, objects=objects, metadata_ttl=60) as w:
            await close_while(w, moment, is_new, act)


async def close_while(w: World, moment: str, is_new: bool, act: Act) -> None:
    directory = (await w.fs.make_directory(ROOT, "d", 0o755, ME)).number
    await write_file(w.fs, directory, "other", OTHER)
    if not is_new:
        await write_file(w.fs, directory, "a", b"n")
    handle, _, _ = await w.fs.create(directory, "a", 0o644, os.O_RDWR, ME)
    await w.fs.write(handle, 0, MINE)
    held, go_on = hold_the_next_upload(w, moment)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(close, w, handle)
            await held.wait()
            nursery.start_soon(act, w, directory)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
    expected = OUTCOMES[act]
    primary = w.parts.manager.primary
    assert {
        entry.key: primary.get(entry.key).read_all() for entry in primary.list() if not entry.is_directory
    } == expected
    (place,) = await names(w.fs)
    number = (await w.fs.lookup(ROOT, place)).number
    assert {f"{place}/{name}" for name in await names(w.fs, number)} == expected.keys()
    for key, content in expected.items():
        attributes = await walk(w.fs, key)
        assert (attributes.size, await read_file(w.fs, attributes.number)) == (len(content), content)
    journal = w.parts.journal
    assert (journal.uploads(), journal.deletes(), journal.renames(), journal.moves()) == ([], [], [], [])
    assert [path.name for path in w.parts.area.directory.iterdir() if not path.name.startswith(LOG)] == []


async def close(w: World, handle: int) -> None:
    await w.fs.flush(handle)
    await w.fs.release(handle)


def hold_the_next_upload(w: World, moment: str) -> tuple[trio.Event, trio.Event]:
    held, go_on = trio.Event(), trio.Event()
    real = w.transport.upload

    async def upload(key, path, **named):
        w.transport.upload = real
        if moment == "after":
            written = await real(key, path, **named)
        held.set()
        await go_on.wait()
        return written if moment == "after" else await real(key, path, **named)

    w.transport.upload = upload
    return held, go_on


async def test_W9_a_mode_set_while_a_close_waits_for_the_journal_is_kept(tmp_path):
    async with world(tmp_path, metadata_ttl=60) as w:
        handle, _, made = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, MINE)
        held, go_on = trio.Event(), trio.Event()
        commits = w.fs._uploads._commits
        real = commits.write

        async def slow(finished):
            held.set()
            await go_on.wait()
            await real(finished)

        commits.write = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.flush, handle)
            await held.wait()
            nursery.start_soon(w.fs.set_attributes, made.number, Change(mode=0o600))
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        await w.fs.release(handle)
        assert stat.S_IMODE((w.store("primary") / "a").stat().st_mode) == 0o600
