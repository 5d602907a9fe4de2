"""What failed at close() goes home when the primary is back, on a living mount: W4, R8, without a kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from mscfs.errors import NoSpaceError, NotFoundError, StoreUnavailableError
from mscfs.vfs.changes import USED_ANEW, Change
from mscfs.vfs.homing import FIRST_PAUSE, LONGEST_PAUSE
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.recovery import settle_upload
from tests.vfs.inline import World, world
from tests.vfs.outages import switch
from tests.vfs.test_names import ME, names, read_file, walk, write_file

KINDS = pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])


@asynccontextmanager
async def running(tmp_path, **options) -> AsyncIterator[World]:
    async with world(tmp_path, **options) as w, trio.open_nursery() as nursery:
        nursery.start_soon(w.parts.homing.run)
        yield w
        nursery.cancel_scope.cancel()


async def write_in_vain(w, name: str, content: bytes, directory: int = ROOT) -> None:
    handle, _, _ = await w.fs.create(directory, name, 0o644, os.O_WRONLY | os.O_TRUNC, ME)
    await w.fs.write(handle, 0, content)
    with pytest.raises(OSError) as error:
        await w.fs.flush(handle)
    assert error.value.errno == errno.EIO
    await w.fs.release(handle)


def on_primary(w, key: str) -> bytes:
    with w.parts.manager.primary.get(key) as content:
        return content.read_all()


def left(w) -> list[tuple[str, str]]:
    return [(upload.key, upload.problem) for upload in w.parts.journal.uploads()]


@KINDS
async def test_W4_R8_new_and_replaced_files_go_home_when_the_primary_is_back(tmp_path, autojump_clock, objects):
    async with running(tmp_path, objects=objects) as w:
        await write_file(w.fs, ROOT, "known", b"old")
        assert await names(w.fs) == ["known"]
        switch(w, on=False, known=True)
        await write_in_vain(w, "known", b"newer")
        await write_in_vain(w, "new", b"precious")
        assert w.outdated == [(ROOT, "known"), (ROOT, "new")]
        w.outdated.clear()
        await trio.sleep(1000)
        assert len(left(w)) == 2
        switch(w, on=True)
        await trio.sleep(2 * FIRST_PAUSE)
        assert left(w) == []
        assert (on_primary(w, "known"), on_primary(w, "new")) == (b"newer", b"precious")
        assert sorted(w.outdated) == [(ROOT, "known"), (ROOT, "new")]
        # Its own mount sees it without waiting for anything to grow old, and the replicas are to have it.
        assert sorted(await names(w.fs)) == ["known", "new"]
        for name, content in {"known": b"newer", "new": b"precious"}.items():
            assert (await walk(w.fs, name)).size == len(content)
            assert await read_file(w.fs, (await walk(w.fs, name)).number) == content
        assert {"known", "new"} <= {claimed.key for claimed in w.parts.journal.claim(10)}
        switch(w, on=False, known=True)
        await trio.sleep(1000)
        assert sorted(await names(w.fs)) == ["known", "new"]


@KINDS
async def test_W4_what_was_changed_elsewhere_meanwhile_is_not_overwritten(tmp_path, autojump_clock, objects):
    async with running(tmp_path, objects=objects) as w:
        await write_file(w.fs, ROOT, "known", b"old")
        store = switch(w, on=False, known=True)
        await write_in_vain(w, "known", b"ours")
        await write_in_vain(w, "new", b"ours too")
        store.inner.put("known", b"theirs, and newer")
        store.inner.put("new", b"theirs")
        switch(w, on=True)
        await trio.sleep(2 * FIRST_PAUSE)
        assert (on_primary(w, "known"), on_primary(w, "new")) == (b"theirs, and newer", b"theirs")
        assert sorted(left(w)) == [(key, "the object was changed elsewhere since") for key in ("known", "new")]


@KINDS
async def test_W4_R8_older_content_waits_while_its_file_is_written_anew(tmp_path, autojump_clock, objects):
    async with running(tmp_path, objects=objects) as w:
        switch(w, on=False, known=True)
        await write_in_vain(w, "new", b"first")
        handle, _, _ = await w.fs.create(ROOT, "new", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"second")
        switch(w, on=True)
        await trio.sleep(2 * FIRST_PAUSE)
        with pytest.raises(NotFoundError):
            on_primary(w, "new")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await trio.sleep(2 * LONGEST_PAUSE)
        assert on_primary(w, "new") == b"second"
        assert left(w) == [("new", USED_ANEW)]


async def test_W4_what_failed_at_close_is_in_hand_while_the_file_is_open_and_goes_home_then(tmp_path, autojump_clock):
    async with running(tmp_path, objects=True) as w:
        await write_file(w.fs, ROOT, "known", b"old")
        handle, _ = await w.fs.open((await walk(w.fs, "known")).number, os.O_RDONLY)
        switch(w, on=False, known=True)
        await write_in_vain(w, "known", b"new")
        switch(w, on=True)
        await trio.sleep(2 * FIRST_PAUSE)
        assert bytes(await w.fs.read(handle, 0, 100)) == b"new"
        await w.fs.release(handle)
        assert on_primary(w, "known") == b"new"
        assert left(w) == []


async def test_W4_a_primary_that_takes_nothing_is_tried_less_and_less(tmp_path, autojump_clock):
    async with running(tmp_path, objects=True) as w:
        store = switch(w, on=False, known=True)
        await write_in_vain(w, "new", b"precious")
        await trio.sleep(100)
        tried = store.asked
        # It is believed to be well, and is not.
        for _ in range(100):
            w.parts.manager.primary_source.health.succeeded()
            await trio.sleep(LONGEST_PAUSE)
        assert 50 < store.asked - tried < 250


@KINDS
async def test_R2_a_file_that_was_deleted_elsewhere_is_not_shown_because_its_close_failed(
    tmp_path, autojump_clock, objects
):
    """The last listing did not tell of it, as it was gone by then: that listing vouches for nothing."""
    async with running(tmp_path, objects=objects, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        assert await names(w.fs) == ["a"]
        handle, _ = await w.fs.open((await walk(w.fs, "a")).number, os.O_RDWR)
        await w.fs.write(handle, 0, b"new")
        w.parts.manager.primary.delete("a")
        await trio.sleep(61)
        assert await names(w.fs) == ["a"]  # as it is being written here
        with pytest.raises(OSError) as error:
            await w.fs.flush(handle)
        assert error.value.errno == errno.ESTALE
        await w.fs.release(handle)
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "a")
        assert await names(w.fs) == []


@KINDS
@pytest.mark.parametrize("way", ["unlink", "rename", "move", "write the same"])
async def test_W4_older_content_does_not_come_back_after_its_name_was_used_anew(tmp_path, autojump_clock, objects, way):
    async with running(tmp_path, objects=objects) as w:
        await w.fs.make_directory(ROOT, "d", 0o755, ME)
        directory = (await walk(w.fs, "d")).number
        switch(w, on=False, known=True)
        await write_in_vain(w, "new", b"first", directory)
        switch(w, on=True)
        await write_file(w.fs, directory, "new", b"second")
        match way:
            case "unlink":
                await w.fs.unlink(directory, "new")
            case "rename":
                await w.fs.rename(directory, "new", directory, "other", 0)
            case "move":
                await w.fs.rename(ROOT, "d", ROOT, "e", 0)
        await trio.sleep(2 * LONGEST_PAUSE)
        held = {
            entry.key: on_primary(w, entry.key) for entry in w.parts.manager.primary.list() if not entry.is_directory
        }
        expected = {"unlink": {}, "rename": {"d/other": b"second"}, "move": {"e/new": b"second"}}
        assert held == expected.get(way, {"d/new": b"second"})
        assert left(w) == [("d/new", USED_ANEW)]


@KINDS
@pytest.mark.parametrize("way", ["write", "unlink"])
async def test_R2_what_is_done_while_older_content_goes_home_is_what_the_name_shows(
    tmp_path, autojump_clock, monkeypatch, objects, way
):
    async with running(tmp_path, objects=objects, metadata_ttl=1000) as w:
        await write_file(w.fs, ROOT, "known", b"old")
        assert await names(w.fs) == ["known"]
        switch(w, on=False, known=True)
        await write_in_vain(w, "known", b"ours")
        sent, go_on = trio.Event(), trio.Event()
        run = w.parts.homing._run_blocking

        async def slow(call, *arguments):
            done = await run(call, *arguments)
            if call == settle_upload:
                sent.set()
                await go_on.wait()
            return done

        monkeypatch.setattr(w.parts.homing, "_run_blocking", slow)
        switch(w, on=True)
        with trio.fail_after(LONGEST_PAUSE):
            await sent.wait()
        assert on_primary(w, "known") == b"ours"
        await w.fs.unlink(ROOT, "known")
        if way == "write":
            await write_file(w.fs, ROOT, "known", b"newer")
        go_on.set()
        await trio.sleep(LONGEST_PAUSE)
        if way == "unlink":
            assert await names(w.fs) == []
            with pytest.raises(FileNotFoundError):
                await walk(w.fs, "known")
            return
        assert on_primary(w, "known") == b"newer"
        assert (await walk(w.fs, "known")).size == 5
        assert await read_file(w.fs, (await walk(w.fs, "known")).number) == b"newer"


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("is_changed", [False, True])
async def test_W4_W5_a_truncate_by_path_that_fails_waits_as_a_close_does(tmp_path, autojump_clock, size, is_changed):
    """It goes home when the primary is back, if nobody wrote to the file since, and never later over that."""
    async with running(tmp_path, objects=True, metadata_ttl=1) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        number = (await walk(w.fs, "a")).number
        store = switch(w)
        real = store.inner.put

        def fails(*_: object, **__: object) -> None:
            raise StoreUnavailableError("no answer", store="data")

        store.inner.put = fails
        with pytest.raises(OSError) as error:
            await w.fs.set_attributes(number, Change(size=size))
        assert error.value.errno == errno.EIO
        store.inner.put = real
        switch(w, on=False, known=True)
        assert (await walk(w.fs, "a")).size == 3
        if is_changed:
            store.inner.put("a", b"theirs, and newer")
        switch(w, on=True)
        await trio.sleep(100)
        await w.fs.finish()
        expected = b"theirs, and newer" if is_changed else b"old"[:size]
        assert on_primary(w, "a") == expected
        assert (await walk(w.fs, "a")).size == len(expected)


async def test_W4_a_journal_that_fails_at_the_last_close_keeps_no_handle(tmp_path, monkeypatch, caplog):
    async with world(tmp_path, objects=True) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        handle, _ = await w.fs.open((await walk(w.fs, "a")).number, os.O_WRONLY | os.O_TRUNC)
        await w.fs.write(handle, 0, b"new, longer")
        switch(w, on=False, known=True)
        with pytest.raises(OSError, match="no answer"):
            await w.fs.flush(handle)
        inode = w.fs.handles.file(handle).inode

        def full(_: object) -> None:
            raise NoSpaceError("no room for the journal")

        monkeypatch.setattr(w.parts.journal, "release_upload", full)
        await w.fs.release(handle)
        assert "the journal still has" in caplog.text
        assert (inode.handles, inode.staging) == (set(), None)
        assert (await walk(w.fs, "a")).size == 3
        (kept,) = w.parts.journal.uploads()
        assert kept.staging.read_bytes() == b"new, longer"


@pytest.mark.parametrize("made", ["file", "link", "directory"])
async def test_W4_what_went_home_while_its_name_was_used_anew_is_in_nobody_s_way(tmp_path, made):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        listed, go_on = trio.Event(), trio.Event()

        async def hold(what: str, *_: object) -> None:
            if what == "list":
                listed.set()
                await go_on.wait()

        w.transport.before = hold
        w.parts.namespace._begin(w.parts.namespace.table.root)
        await listed.wait()
        vacate = w.fs._vacate

        async def home_meanwhile(key: str) -> None:
            await vacate(key)
            serial = w.parts.namespace.serial
            w.parts.homing._tell(w.parts.manager.primary.put(key, b"older"), serial)

        w.fs._vacate = home_meanwhile
        if made == "file":
            await write_file(w.fs, ROOT, "a", b"newer")
        elif made == "link":
            await w.fs.symlink(ROOT, "a", "target", ME)
        else:
            await w.fs.make_directory(ROOT, "a", 0o755, ME)
        go_on.set()
        kind = {"file": stat.S_ISREG, "link": stat.S_ISLNK, "directory": stat.S_ISDIR}[made]
        assert kind((await walk(w.fs, "a")).mode)


@pytest.mark.parametrize("waits_for", ["a program", "the store"])
async def test_W4_content_that_has_to_wait_keeps_no_other_from_going_home(tmp_path, autojump_clock, waits_for):
    async with running(tmp_path, objects=True) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        store = switch(w, on=False, known=True)
        await write_in_vain(w, "a", b"waits")
        await write_in_vain(w, "b", b"goes")
        if waits_for == "a program":
            handle, _ = await w.fs.open((await walk(w.fs, "a")).number, os.O_WRONLY | os.O_TRUNC)
            await w.fs.write(handle, 0, b"begun")
        else:
            real = store.inner.put

            def put(key: str, *arguments: object, **named: object) -> object:
                if key == "a":
                    raise StoreUnavailableError("this one is not taken", store="data")
                return real(key, *arguments, **named)

            store.inner.put = put
        for _ in range(2):
            switch(w, on=True)  # a probe finds that it answers
            await trio.sleep(2 * FIRST_PAUSE)
        assert on_primary(w, "b") == b"goes"
        assert [key for key, _ in left(w)] == ["a"]
