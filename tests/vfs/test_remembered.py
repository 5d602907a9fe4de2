"""Attributes set on a mount last while it does, whatever the kernel forgets, in bounded memory (W9)."""

from __future__ import annotations

import os
import stat

import pytest

from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.remembered import Remembered
from tests.vfs.inline import World, world
from tests.vfs.test_names import ME, names, walk, write_file

ODD = Change(mode=0o640, uid=7, gid=8, atime_ns=4_000, mtime_ns=5_000)


async def set_and_forget(w: World, path: str) -> None:
    """Set attributes, then let the kernel forget the name and all above it."""
    found = await walk(w.fs, path)
    await w.fs.set_attributes(found.number, ODD)
    forget_all(w)


def forget_all(w: World) -> None:
    for inode in sorted(w.parts.namespace.table, key=lambda inode: -inode.key.count("/")):
        if inode.number != ROOT:
            w.fs.forget(inode.number, inode.lookups)


def is_odd(found) -> bool:
    return (stat.S_IMODE(found.mode), found.uid, found.gid, found.atime_ns, found.mtime_ns) == (0o640, 7, 8, 4000, 5000)


@pytest.mark.parametrize("listed", ["never", "before", "after", "both"])
async def test_W9_attributes_outlive_the_inode(tmp_path, listed):
    async with world(tmp_path, objects=True) as w:
        w.parts.manager.primary.put("d/a", b"x")
        w.parts.manager.primary.put("d/b", b"x")
        if listed in {"before", "both"}:
            await names(w.fs, (await walk(w.fs, "d")).number)
        await set_and_forget(w, "d/a")
        assert len(w.parts.namespace.table) == 1
        if listed in {"after", "both"}:
            await names(w.fs, (await walk(w.fs, "d")).number)
        assert is_odd(await walk(w.fs, "d/a"))
        assert not is_odd(await walk(w.fs, "d/b"))
        rows = await w.fs.read_directory(w.fs.open_directory((await walk(w.fs, "d")).number), 0)
        held = [w.fs.present(rows.entries, slot) for slot in rows.slots if rows.entries.states[slot]]
        assert [is_odd(w.fs.attributes(inode.number)) for inode in held if inode.name == "a"] == [True]


async def test_W9_attributes_of_directories_and_of_new_files_outlive_the_inode(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        made = await w.fs.make_directory(ROOT, "d", 0o700, ME)
        await write_file(w.fs, made.number, "f", b"x", mode=0o600)
        before = await walk(w.fs, "d/f")
        forget_all(w)
        assert stat.S_IMODE((await walk(w.fs, "d")).mode) == 0o700
        after = await walk(w.fs, "d/f")
        assert (after.mode, after.mtime_ns) == (before.mode, before.mtime_ns)


async def test_W9_attributes_go_with_the_name_and_move_with_the_directory(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        for key in ("d/a", "d/b"):
            w.parts.manager.primary.put(key, b"x")
            await set_and_forget(w, key)
        await w.fs.unlink((await walk(w.fs, "d")).number, "a")
        await write_file(w.fs, (await walk(w.fs, "d")).number, "a", b"new")
        assert not is_odd(await walk(w.fs, "d/a"))
        await w.fs.rename(ROOT, "d", ROOT, "e", 0)
        moved = await walk(w.fs, "e/b")
        assert (stat.S_IMODE(moved.mode), moved.uid, moved.gid) == (0o640, 7, 8)


async def test_W9_content_written_elsewhere_has_its_own_time(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.manager.primary.put("a", b"x")
        await set_and_forget(w, "a")
        w.parts.manager.primary.put("a", b"other")
        found = await walk(w.fs, "a")
        assert stat.S_IMODE(found.mode) == 0o640
        assert found.mtime_ns > 5000


async def test_W9_what_is_remembered_is_bounded(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.namespace.table.remembered = Remembered(limit=3)
        for key in "abcde":
            w.parts.manager.primary.put(key, b"x")
            await set_and_forget(w, key)
        assert len(w.parts.namespace.table.remembered) == 3
        assert [is_odd(await walk(w.fs, key)) for key in "abcde"] == [False, False, True, True, True]


async def test_a_directory_s_mtime_tells_of_changes_of_its_names(tmp_path):
    async with world(tmp_path, objects=True) as w:
        made = await w.fs.make_directory(ROOT, "d", 0o755, ME)
        for change in (
            lambda: write_file(w.fs, made.number, "f", b"x"),
            lambda: w.fs.rename(made.number, "f", made.number, "g", 0),
            lambda: w.fs.unlink(made.number, "g"),
            lambda: w.fs.symlink(made.number, "l", "t", ME),
            lambda: w.fs.make_directory(made.number, "s", 0o755, ME),
            lambda: w.fs.remove_directory(made.number, "s"),
        ):
            await w.fs.set_attributes(made.number, Change(mtime_ns=5))
            await change()
            assert w.fs.attributes(made.number).mtime_ns > 5


async def test_a_change_of_attributes_is_in_the_ctime_and_not_in_the_mtime(tmp_path):
    async with world(tmp_path, objects=True) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        found = await w.fs.lookup(ROOT, "a")
        await w.fs.set_attributes(found.number, Change(mtime_ns=5))
        changed = await w.fs.set_attributes(found.number, Change(mode=0o600))
        assert changed.mtime_ns == 5
        assert changed.ctime_ns > found.ctime_ns
        handle, _ = await w.fs.open(found.number, os.O_WRONLY)
        await w.fs.write(handle, 0, b"y")
        await w.fs.release(handle)
        assert w.fs.attributes(found.number).ctime_ns > changed.ctime_ns
