"""rename(2) of directories: whole or not at all, whatever is open, written or listed meanwhile (W7)."""

from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace

import pytest
import trio
import trio.testing

from mscfs.errors import StoreUnavailableError
from mscfs.vfs.filesystem import RENAME_NOREPLACE
from mscfs.vfs.inodes import ROOT
from tests.vfs.inline import world
from tests.vfs.recovering import recover
from tests.vfs.test_names import ME, names, read_file, walk, write_file

both = pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])


async def make_tree(w, *keys: str) -> None:
    """Files whose content is their key, made through the mount."""
    for key in keys:
        parent = ROOT
        *directories, name = key.split("/")
        for directory in directories:
            try:
                parent = (await w.fs.lookup(parent, directory)).number
            except FileNotFoundError:
                parent = (await w.fs.make_directory(parent, directory, 0o755, ME)).number
        await write_file(w.fs, parent, name, key.encode())


async def open_file(w, path: str, flags: int = os.O_RDONLY) -> int:
    return (await w.fs.open((await walk(w.fs, path)).number, flags))[0]


def stored(w) -> list[str]:
    return [entry.key for entry in w.parts.manager.primary.list()]


async def content(w, path: str) -> bytes:
    return await read_file(w.fs, (await walk(w.fs, path)).number)


@both
async def test_W7_a_directory_is_renamed_with_all_that_is_below(tmp_path, objects):
    async with world(tmp_path, objects=objects) as w:
        await make_tree(w, "old/a", "old/deep/er/b", "other/x")
        await names(w.fs, (await w.fs.lookup(ROOT, "old")).number)
        await w.fs.rename(ROOT, "old", ROOT, "new", 0)
        assert await content(w, "new/a") == b"old/a"
        assert await content(w, "new/deep/er/b") == b"old/deep/er/b"
        assert sorted(await names(w.fs)) == ["new", "other"]
        assert await names(w.fs, (await walk(w.fs, "new/deep")).number) == ["er"]
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "old")
        markers = ["new/", "new/deep/", "new/deep/er/", "other/"] if objects else []
        assert stored(w) == sorted(["new/a", "new/deep/er/b", "other/x", *markers])
        assert w.parts.journal.moves() == []
        wanted = {(wish.replica, wish.key) for wish in w.parts.journal.claim(100, even_if_not_due=True)}
        assert {("near", "new/a"), ("far", "new/deep/er/b")} <= wanted


@both
async def test_W7_a_directory_moves_into_and_out_of_others(tmp_path, objects):
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:
        await make_tree(w, "d/f", "into/x")
        into = await w.fs.lookup(ROOT, "into")
        await w.fs.rename(ROOT, "d", into.number, "d", 0)
        assert await content(w, "into/d/f") == b"d/f"
        await w.fs.rename(into.number, "d", ROOT, "out", 0)
        assert await content(w, "out/f") == b"d/f"
        assert await names(w.fs, into.number) == ["x"]


@both
async def test_W7_an_empty_directory_moves_and_is_replaced(tmp_path, objects):
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:
        await make_tree(w, "full/f")
        await w.fs.make_directory(ROOT, "empty", 0o755, ME)
        await w.fs.rename(ROOT, "empty", ROOT, "still", 0)
        assert sorted(await names(w.fs)) == ["full", "still"]
        await w.fs.rename(ROOT, "full", ROOT, "still", 0)
        assert await names(w.fs) == ["still"]
        assert await content(w, "still/f") == b"full/f"


@both
async def test_W7_what_a_directory_cannot_replace(tmp_path, objects):
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:
        await make_tree(w, "a/f", "b/g", "file")
        a = await w.fs.lookup(ROOT, "a")
        for refused, number in (
            (lambda: w.fs.rename(ROOT, "a", ROOT, "b", 0), errno.ENOTEMPTY),
            (lambda: w.fs.rename(ROOT, "a", ROOT, "b", RENAME_NOREPLACE), errno.EEXIST),
            (lambda: w.fs.rename(ROOT, "a", ROOT, "file", 0), errno.ENOTDIR),
            (lambda: w.fs.rename(ROOT, "file", ROOT, "a", 0), errno.EISDIR),
            (lambda: w.fs.rename(ROOT, "a", a.number, "inside", 0), errno.EINVAL),
        ):
            with pytest.raises(OSError) as error:
                await refused()
            assert error.value.errno == number
        assert await content(w, "a/f") == b"a/f"
        assert await content(w, "b/g") == b"b/g"


@both
async def test_W7_open_files_below_stay_usable(tmp_path, objects):
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:
        await make_tree(w, "d/read", "d/changed")
        directory = await w.fs.lookup(ROOT, "d")
        reading, changing = await open_file(w, "d/read"), await open_file(w, "d/changed", os.O_RDWR)
        new, _, _ = await w.fs.create(directory.number, "new", 0o644, os.O_WRONLY, ME)
        await w.fs.write(changing, 0, b"D")
        await w.fs.write(new, 0, b"begun ")
        await w.fs.rename(ROOT, "d", ROOT, "e", 0)
        assert bytes(await w.fs.read(reading, 0, 100)) == b"d/read"
        await w.fs.write(changing, 1, b"-")
        await w.fs.write(new, 6, b"and ended")
        for handle in (reading, changing, new):
            await w.fs.flush(handle)
            await w.fs.release(handle)
        assert await content(w, "e/changed") == b"D-changed"
        assert await content(w, "e/new") == b"begun and ended"
        assert [key for key in stored(w) if not key.startswith("e/")] == []
        assert w.parts.journal.uploads() == []


@both
async def test_W8_a_file_unlinked_below_is_read_on(tmp_path, objects):
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:
        await make_tree(w, "d/gone", "d/stays", "r/gone")
        handles = [await open_file(w, "d/gone"), await open_file(w, "r/gone")]
        for directory in "dr":
            await w.fs.unlink((await w.fs.lookup(ROOT, directory)).number, "gone")
        await w.fs.rename(ROOT, "d", ROOT, "e", 0)
        await w.fs.remove_directory(ROOT, "r")
        assert await names(w.fs, (await w.fs.lookup(ROOT, "e")).number) == ["stays"]
        assert [bytes(await w.fs.read(handle, 0, 9)) for handle in handles] == [b"d/gone", b"r/gone"]
        for handle in handles:
            await w.fs.release(handle)
        assert await names(w.fs) == ["e"]


async def test_W7_nobody_sees_half_of_a_move(tmp_path, monkeypatch):
    """While objects are copied and removed, calls below wait, and those elsewhere go on."""
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await make_tree(w, "d/a", "d/b", "elsewhere/x")
        directory, d_a = await w.fs.lookup(ROOT, "d"), await walk(w.fs, "d/a")
        seen: list[str] = []
        copied, go_on = threading.Event(), threading.Event()
        primary = w.parts.manager.primary.inner
        real = primary.copy

        def slow(*arguments, **named):
            copied.set()
            assert go_on.wait(20)
            return real(*arguments, **named)

        monkeypatch.setattr(primary, "copy", slow)
        monkeypatch.setattr(w.fs, "_run_blocking", trio.to_thread.run_sync)

        async def call(name, awaitable):
            await awaitable
            seen.append(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call, "move", w.fs.rename(ROOT, "d", ROOT, "e", 0))
            await trio.to_thread.run_sync(copied.wait, 20)
            for name, below in (
                ("lookup", w.fs.lookup(directory.number, "b")),
                ("open", w.fs.open(d_a.number, os.O_RDONLY)),
                ("create", w.fs.create(directory.number, "new", 0o644, os.O_WRONLY, ME)),
                ("list", w.fs.read_directory(w.fs.open_directory(directory.number), 0)),
                ("unlink", w.fs.unlink(directory.number, "b")),
            ):
                nursery.start_soon(call, name, below)
            assert await content(w, "elsewhere/x") == b"elsewhere/x"
            await trio.testing.wait_all_tasks_blocked()
            assert seen == []
            go_on.set()
        assert sorted(seen) == ["create", "list", "lookup", "move", "open", "unlink"]


async def test_W7_a_failed_move_leaves_everything_as_it_was(tmp_path, monkeypatch):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await make_tree(w, *(f"d/{number}" for number in range(20)))
        before = stored(w)
        primary = w.parts.manager.primary.inner
        real = primary.copy

        def failing(source, target, **named):
            if source == "d/7":
                raise StoreUnavailableError("down")
            return real(source, target, **named)

        monkeypatch.setattr(primary, "copy", failing)
        with pytest.raises(StoreUnavailableError):
            await w.fs.rename(ROOT, "d", ROOT, "e", 0)
        assert stored(w) == before
        assert w.parts.journal.moves() == []
        assert await content(w, "d/7") == b"d/7"
        assert await names(w.fs) == ["d"]


@pytest.mark.parametrize("crash_at", ["copy", "delete"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_W7_a_crash_is_undone_or_finished_by_the_next_mount(tmp_path, monkeypatch, crash_at, replaced):
    class Crash(BaseException):
        pass

    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await make_tree(w, *(f"d/sub/{number}" for number in range(40)), "d/f")
        if replaced:
            await w.fs.make_directory(ROOT, "e", 0o755, ME)
        primary, journal = w.parts.manager.primary.inner, w.parts.journal
        real = getattr(primary, crash_at)

        def crashing(key, *arguments, **named):
            if key == "d/sub/25":
                raise Crash
            return real(key, *arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(primary, crash_at, crashing)
            # Nothing is put right on the way out of a process that was killed.
            patch.setattr("mscfs.vfs.trees._undo", lambda *_, **__: (_ for _ in ()).throw(Crash))
            with pytest.raises(Crash):
                await w.fs.rename(ROOT, "d", ROOT, "e", 0)
        assert [move.state for move in journal.moves()] == ["copying" if crash_at == "copy" else "removing"]
        kept = "d" if crash_at == "copy" else "e"
        primary.put(f"{kept}/since", b"written elsewhere since")
        monkeypatch.setattr("mscfs.journal.journal.is_alive", lambda _: False)
        recover(w.parts.manager, journal, w.parts.area.directory.parent)
        assert journal.moves() == []
        markers = {f"{kept}/", f"{kept}/sub/"} | ({"e/"} if replaced else set())
        files = {f"{kept}/sub/{number}" for number in range(40)} | {f"{kept}/f", f"{kept}/since"}
        assert set(stored(w)) == files | markers


async def test_W7_what_was_written_since_a_crash_is_not_taken_for_a_copy(tmp_path, monkeypatch):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        primary, journal = w.parts.manager.primary.inner, w.parts.journal
        primary.put("d/a", b"one")
        primary.copy("d/a", "e/a")
        primary.put("d/a", b"two, elsewhere")
        primary.put("d/b", b"same")
        primary.copy("d/b", "e/b")
        journal.advance_move(journal.begin_move("d/", "e/", replaced=False), "removing")
        monkeypatch.setattr("mscfs.journal.journal.is_alive", lambda _: False)
        recover(w.parts.manager, journal, w.parts.area.directory.parent)
        assert stored(w) == ["d/a", "e/a", "e/b"]


@pytest.mark.parametrize("theirs", [{"e/a": b"tWO"}, {"e/a": b"one", "e/c": b"new"}], ids=["same size", "same bytes"])
@pytest.mark.parametrize("hashes", [True, False])
async def test_W7_W4_what_another_host_wrote_to_the_new_name_outlives_the_undoing(
    tmp_path, monkeypatch, theirs, hashes
):
    """Objects that were sent in parts have no hash that two of them could be compared by."""
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        primary, journal = w.parts.manager.primary.inner, w.parts.journal
        for key, body in {"d/a": b"one", "d/b": b"two", **theirs}.items():
            primary.put(key, body)
        primary.copy("d/b", "e/b")
        listed = primary.list

        def without_hashes(prefix="", **named):
            return (replace(entry, content_hash="") for entry in listed(prefix, **named))

        if not hashes:
            monkeypatch.setattr(primary, "list", without_hashes)
        journal.begin_move("d/", "e/", replaced=False)
        monkeypatch.setattr("mscfs.journal.journal.is_alive", lambda _: False)
        recover(w.parts.manager, journal, w.parts.area.directory.parent)
        assert journal.moves() == []
        held = {entry.key: primary.get(entry.key).read_all() for entry in listed()}
        assert held == {"d/a": b"one", "d/b": b"two", **theirs, "e/b": b"two"}


@both
async def test_W7_the_kernel_s_inode_numbers_stay_below(tmp_path, objects):
    async with world(tmp_path, objects=objects) as w:
        await make_tree(w, "d/sub/f")
        before = await walk(w.fs, "d/sub/f")
        await w.fs.rename(ROOT, "d", ROOT, "e", 0)
        after = await walk(w.fs, "e/sub/f")
        assert after.number == before.number
        assert w.fs.key_of(before.number) == "e/sub/f"


async def test_W7_moves_of_a_directory_and_of_one_below_it_do_not_wait_for_each_other_for_ever(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await make_tree(w, "d/sub/f")
        d = await w.fs.lookup(ROOT, "d")
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(w.fs.rename, d.number, "sub", d.number, "sub2", 0)
                nursery.start_soon(w.fs.rename, ROOT, "d", ROOT, "e", 0)
        assert await content(w, "e/sub2/f") == b"d/sub/f"


@pytest.mark.parametrize("listed", ["d", "e"])
async def test_W7_a_listing_under_way_does_not_hide_what_is_moved(tmp_path, listed):
    """It began under the old name, where nothing is left, or told of the empty directory that is replaced."""
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        primary = w.parts.manager.primary
        for name in "abc":
            primary.put(f"d/{name}", name.encode())
        primary.make_directory("e/")
        numbers = {name: (await w.fs.lookup(ROOT, name)).number for name in "de"}
        assert await names(w.fs, numbers["d"]) == ["a", "b", "c"]
        held, go_on = trio.Event(), trio.Event()

        async def hold(what: str, key: str = "", *_: object) -> None:
            if (what, key) == ("list", f"{listed}/"):
                held.set()
                await go_on.wait()

        w.transport.before = hold
        w.parts.namespace._begin(w.parts.namespace.table[numbers[listed]])
        await held.wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.rename, ROOT, "d", ROOT, "e", 0)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        for name in "abc":
            assert await content(w, f"e/{name}") == name.encode()
        assert await names(w.fs, (await w.fs.lookup(ROOT, "e")).number) == ["a", "b", "c"]
