"""Uploads when something fails beside the store, many at once, and at the end of a mount: W1, W2, W4, W7, L2."""

from __future__ import annotations

import errno
import os
import stat
from types import SimpleNamespace

import pyfuse3
import pytest
import trio

from mscfs.errors import NoSpaceError, StoreUnavailableError
from mscfs.fuse.operations import Operations
from mscfs.fuse.requests import RequestCounts
from mscfs.journal import FinishedUpload, Journal
from mscfs.vfs.commits import Commits
from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.staging_log import LOG, Staged, StagingLog, read_log
from tests.vfs.inline import world
from tests.vfs.test_names import ME, put, read_file, write_file


async def create(w, name: str, data: bytes = b"", flags: int = os.O_RDWR) -> int:
    handle, _, _ = await w.fs.create(ROOT, name, 0o644, flags, ME)
    if data:
        await w.fs.write(handle, 0, data)
    return handle


@pytest.mark.parametrize("what", ["journal", "attributes"])
async def test_W2_a_failure_after_the_upload_is_told_and_the_next_close_is_no_conflict(tmp_path, monkeypatch, what):
    async with world(tmp_path) as w:
        handle = await create(w, "a", b"one")
        owner, name = (
            (w.parts.journal, "record") if what == "journal" else (w.parts.manager.primary, "set_posix_attributes")
        )
        real = getattr(owner, name)
        if what == "journal":
            await w.fs.flush(handle)
            await w.fs.write(handle, 0, b"two")

        def fail(*arguments, **named):
            if what == "attributes" or "FinishedUpload" in str(arguments):
                raise NoSpaceError("no room")
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, fail)
        with pytest.raises(OSError, match="no room"):
            await w.fs.flush(handle)
        monkeypatch.undo()
        await w.fs.flush(handle)
        expected = b"two" if what == "journal" else b"one"
        assert (w.store("primary") / "a").read_bytes() == expected
        assert {c.replica for c in w.parts.journal.claim(10)} == {"near", "far"}
        await w.fs.release(handle)
        assert w.parts.journal.uploads() == []


async def test_W1_a_local_disk_that_fails_at_the_last_close_loses_neither_the_inode_nor_the_error(
    tmp_path, monkeypatch, caplog
):
    async with world(tmp_path) as w:

        async def refuse(what: str, *_: object) -> None:
            if what == "upload":
                raise StoreUnavailableError("the store is down", store="data")

        def broken(_: object) -> None:
            raise OSError(errno.EIO, "the disk is broken")

        w.transport.before = refuse
        handle = await create(w, "a", b"precious")
        monkeypatch.setattr("mscfs.vfs.staging.StagingFile.sync", broken)
        with pytest.raises(OSError, match="the store is down"):
            await w.fs.flush(handle)
        assert "is not safe on disk" in caplog.text
        inode = w.fs.handles.file(handle).inode
        await w.fs.release(handle)
        assert not inode.handles
        (kept,) = w.parts.journal.uploads()
        assert kept.staging.read_bytes() == b"precious"


async def test_R2_pages_of_what_could_not_be_uploaded_are_not_kept(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"old")
        number = (await w.fs.lookup(ROOT, "a")).number
        handle, _ = await w.fs.open(number, os.O_RDONLY)
        await w.fs.release(handle)

        async def refuse(what: str, *_: object) -> None:
            if what == "upload":
                raise StoreUnavailableError("the store is down", store="data")

        w.transport.before = refuse
        handle, keep = await w.fs.open(number, os.O_RDWR)
        assert keep
        await w.fs.write(handle, 0, b"new")
        with pytest.raises(OSError, match="down"):
            await w.fs.flush(handle)
        await w.fs.release(handle)
        w.transport.before = None
        with pytest.raises(OSError) as error:
            await w.fs.open(number, os.O_RDONLY)
        assert error.value.errno == errno.ESTALE  # the kernel looks it up again, and forgets the size it knows
        found = await w.fs.lookup(ROOT, "a")
        assert (found.number != number, found.size) == (True, 3)
        handle, keep = await w.fs.open(found.number, os.O_RDONLY)
        assert not keep
        assert bytes(await w.fs.read(handle, 0, 10)) == b"old"
        await w.fs.release(handle)


async def test_W7_a_rename_waits_for_the_upload_under_way_and_sends_nothing_again(tmp_path):
    async with world(tmp_path, objects=True) as w:
        held, go_on = trio.Event(), trio.Event()

        async def hold(what: str, *_: object) -> None:
            if what == "upload":
                held.set()
                await go_on.wait()

        w.transport.before = hold
        handle = await create(w, "a.tmp", b"data")
        renamed = trio.Event()

        async def rename() -> None:
            await w.fs.rename(ROOT, "a.tmp", ROOT, "a", 0)
            renamed.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.fsync, handle)
            await held.wait()
            nursery.start_soon(rename)
            await trio.testing.wait_all_tasks_blocked()
            assert not renamed.is_set()
            go_on.set()
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert w.transport.uploads == 1
        assert [entry.key for entry in w.parts.manager.primary.list()] == ["a"]
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"data"


async def test_W7_write_fsync_chmod_close_rename_is_one_upload(tmp_path):
    """The habit of safetensors, torch.save and git."""
    async with world(tmp_path, objects=True) as w:
        handle = await create(w, "a.tmp", b"data", os.O_RDWR | os.O_EXCL)
        await w.fs.fsync(handle)
        await w.fs.set_attributes(w.fs.handles.file(handle).inode.number, Change(mode=0o600))
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await w.fs.rename(ROOT, "a.tmp", ROOT, "a", 0)
        assert w.transport.uploads == 1
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"data"


async def test_many_closes_at_once_do_not_wait_for_each_other_and_share_transactions(tmp_path, monkeypatch):
    async with world(tmp_path) as w:
        batches = []
        record = Journal.record

        def count(journal: Journal, entries: list[FinishedUpload]) -> None:
            batches.append(len(entries))
            record(journal, entries)

        monkeypatch.setattr(Journal, "record", count)
        together, most = 0, 0
        all_there = trio.Event()

        async def gather(what: str, *_: object) -> None:
            nonlocal together, most
            if what == "upload":
                together += 1
                most = max(most, together)
                if together == 8:
                    all_there.set()
                await all_there.wait()

        w.transport.before = gather
        handles = [await create(w, f"f{number}", b"%d" % number) for number in range(8)]
        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(w.fs.flush, handle)
        assert most == 8  # nothing that the others need is held during an upload
        assert sum(batches) == 8
        assert len(batches) <= 2
        assert len(w.parts.journal.claim(100)) == 16  # W2
        for handle in handles:
            await w.fs.release(handle)


async def test_W2_an_error_of_the_journal_reaches_every_close_of_the_group(tmp_path, monkeypatch):
    async with world(tmp_path) as w:

        def full(*_: object) -> None:
            raise NoSpaceError("no room for the journal")

        handles = [await create(w, f"f{number}", b"x") for number in range(3)]
        monkeypatch.setattr(Journal, "record", full)
        errors = []

        async def flush(handle: int) -> None:
            try:
                await w.fs.flush(handle)
            except OSError as error:
                errors.append(error.errno)

        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(flush, handle)
        assert errors == [errno.ENOSPC] * 3
        monkeypatch.undo()
        for handle in handles:
            await w.fs.flush(handle)
            await w.fs.release(handle)


async def test_a_close_that_is_given_up_takes_no_other_along(tmp_path):
    async with world(tmp_path) as w:
        handles = [await create(w, f"f{number}", b"x") for number in range(2)]
        async with trio.open_nursery() as outer:
            given_up = trio.CancelScope()

            async def flush() -> None:
                with given_up:
                    await w.fs.flush(handles[0])

            outer.start_soon(flush)
            outer.start_soon(w.fs.flush, handles[1])
            await trio.lowlevel.checkpoint()
            given_up.cancel()
        assert (w.store("primary") / "f1").read_bytes() == b"x"
        for handle in handles:
            await w.fs.release(handle)


async def test_L2_at_the_end_changes_are_refused_and_dirty_files_go_together(tmp_path):
    async with world(tmp_path) as w:
        handles = [await create(w, f"f{number}", b"x") for number in range(5)]
        together = 0
        all_there = trio.Event()

        async def gather(what: str, key: str, *_: object) -> None:
            nonlocal together
            if what == "upload":
                together += 1
                if together == 5:
                    all_there.set()
                await all_there.wait()
                if key == "f3":
                    raise StoreUnavailableError("down", store="data")

        w.transport.before = gather
        assert await w.fs.finish() == ["f3"]
        w.transport.before = None
        for refused in (
            lambda: w.fs.write(handles[0], 0, b"more"),
            lambda: w.fs.create(ROOT, "new", 0o644, os.O_WRONLY, ME),
            lambda: w.fs.unlink(ROOT, "f0"),
            lambda: w.fs.rename(ROOT, "f0", ROOT, "g", 0),
        ):
            with pytest.raises(OSError, match="ending") as error:
                await refused()
            assert error.value.errno == errno.ESHUTDOWN
        assert bytes(await w.fs.read(handles[0], 0, 10)) == b"x"
        w.fs.keep_staged()
        for handle in handles:
            await w.fs.release(handle)
        assert sorted(path.name for path in w.store("primary").iterdir()) == ["f0", "f1", "f2", "f3", "f4"]


async def test_W5_a_file_whose_close_failed_is_sent_by_the_next_close(tmp_path):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"one")
        number = (await w.fs.lookup(ROOT, "a")).number
        handle, _ = await w.fs.open(number, os.O_RDWR)

        async def refuse(what: str, *_: object) -> None:
            if what == "upload":
                raise StoreUnavailableError("down", store="data")

        await w.fs.write(handle, 0, b"two")
        w.transport.before = refuse
        with pytest.raises(OSError, match="down"):
            await w.fs.flush(handle)
        w.transport.before = None
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert (w.store("primary") / "a").read_bytes() == b"two"
        assert w.parts.journal.uploads() == []


def on_disk(w) -> list[tuple[str, str, str]]:
    """What a kill -9 would leave of staging files now: state, key and mode of each."""
    found = read_log(w.parts.area.directory)
    files = {path.name for path in w.parts.area.directory.iterdir()}
    return [(one.state, one.key, one.mode) for name, one in sorted(found.items()) if name in files]


async def test_W4_what_a_kill_would_leave_is_told_on_disk_at_every_moment(tmp_path):
    async with world(tmp_path) as w:
        seen = []

        async def look(what: str, *_: object) -> None:
            if what == "upload":
                seen.append(on_disk(w))

        w.transport.before = look
        handle = await create(w, "a", b"one", os.O_RDWR | os.O_EXCL)
        assert seen == []  # an empty file has claimed the name
        assert on_disk(w) == [("writing", "a", "update")]
        await w.fs.fsync(handle)
        assert seen.pop() == [("sending", "a", "update")]
        assert on_disk(w) == [("sent", "a", "update")]
        await w.fs.write(handle, 0, b"two")
        assert on_disk(w) == [("writing", "a", "update")]
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert on_disk(w) == []
        assert w.transport.uploads == 2
        assert [path.name for path in w.parts.area.directory.iterdir()] == [LOG]


async def test_W4_a_download_that_was_not_written_to_is_nothing_to_keep(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"old")
        number = (await w.fs.lookup(ROOT, "a")).number
        handle, _ = await w.fs.open(number, os.O_RDWR)
        seen = []

        async def look(what: str, *_: object) -> None:
            if what == "download":
                seen.append(on_disk(w))

        w.transport.before = look
        await w.fs.write(handle, 0, b"n")
        assert seen == [[("sent", "a", "update")]]
        assert on_disk(w) == [("writing", "a", "update")]
        await w.fs.unlink(ROOT, "a")
        await w.fs.write(handle, 1, b"n")
        assert on_disk(w) == [("sent", "a", "update")]  # its name is gone: nobody misses it
        await w.fs.release(handle)


async def test_W7_a_file_renamed_before_its_upload_is_kept_under_its_new_name(tmp_path):
    async with world(tmp_path) as w:

        async def refuse(what: str, *_: object) -> None:
            if what == "upload":
                raise StoreUnavailableError("down", store="data")

        w.transport.before = refuse
        handle = await create(w, "a.tmp", b"data")
        with pytest.raises(OSError, match="down"):
            await w.fs.flush(handle)
        assert on_disk(w) == [("sending", "a.tmp", "replace")]
        await w.fs.rename(ROOT, "a.tmp", ROOT, "a", 0)
        assert on_disk(w) == [("writing", "a", "replace")]
        await w.fs.release(handle)
        assert on_disk(w) == [("sending", "a", "replace")]
        (kept,) = w.parts.journal.uploads()
        assert kept.key == "a"


@pytest.mark.parametrize("state", ["writing", "sending", "sent"])
async def test_W6_a_full_disk_under_the_staging_log_fails_writes_and_no_upload(tmp_path, monkeypatch, state):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"old")
        handle, _ = await w.fs.open((await w.fs.lookup(ROOT, "a")).number, os.O_RDWR)
        real = StagingLog.write

        def full(log: StagingLog, staged: Staged) -> None:
            if staged.state == state:
                raise OSError(errno.ENOSPC, "no room")
            real(log, staged)

        monkeypatch.setattr(StagingLog, "write", full)
        if state == "writing":
            with pytest.raises(OSError, match="no room") as error:
                await w.fs.write(handle, 0, b"n")
            assert error.value.errno == errno.ENOSPC
            assert bytes(await w.fs.read(handle, 0, 9)) == b"old"
            monkeypatch.undo()
            await w.fs.write(handle, 0, b"n")
        elif state == "sent":
            monkeypatch.setattr(StagingLog, "write", real)
            await w.fs.write(handle, 0, b"n")
            monkeypatch.setattr(StagingLog, "write", full)
        else:
            await w.fs.write(handle, 0, b"n")
        await w.fs.flush(handle)  # nobody relies on the other two: the upload makes room
        assert on_disk(w) == [("sending" if state == "sent" else "sent", "a", "update")]
        assert (w.store("primary") / "a").read_bytes() == b"nld"
        await w.fs.release(handle)


async def test_W6_the_last_room_of_the_disk_is_left_to_the_journal(tmp_path, monkeypatch):
    async with world(tmp_path) as w:
        handle = await create(w, "a", b"fits")
        monkeypatch.setattr("mscfs.vfs.staging.LEFT_FREE", 1 << 60)
        with pytest.raises(NoSpaceError, match="free"):
            await w.fs.write(handle, 4, b" no more")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert (w.store("primary") / "a").read_bytes() == b"fits"


@pytest.mark.parametrize("name", ["new", "old"])
async def test_W6_a_state_directory_that_became_read_only_fails_writes_and_harms_nothing(tmp_path, monkeypatch, name):
    async with world(tmp_path) as w:
        put(w.store("primary") / "old", b"old")

        def read_only(*_: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr("mscfs.vfs.staging.StagingFile.__init__", read_only)

        async def change() -> None:
            if name == "new":
                await create(w, name)
            else:
                handle, _ = await w.fs.open((await w.fs.lookup(ROOT, name)).number, os.O_RDWR)
                try:
                    await w.fs.write(handle, 0, b"new")
                finally:
                    await w.fs.release(handle)

        with pytest.raises(OSError, match="Read-only") as error:
            await change()
        assert error.value.errno == errno.EROFS
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "old")).number) == b"old"
        monkeypatch.undo()
        await change()
        assert w.parts.journal.uploads() == []


async def test_W5_an_upload_whose_answer_was_lost_is_no_conflict_when_the_file_is_closed_again(tmp_path, monkeypatch):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"one")
        handle, _ = await w.fs.open((await w.fs.lookup(ROOT, "a")).number, os.O_RDWR)
        await w.fs.write(handle, 0, b"two")
        real = w.transport.upload

        async def lose_the_answer(*arguments, **named):
            await real(*arguments, **named)
            raise StoreUnavailableError("connection reset", store="data")

        monkeypatch.setattr(w.transport, "upload", lose_the_answer)
        with pytest.raises(OSError, match="reset"):
            await w.fs.flush(handle)
        monkeypatch.undo()
        assert w.parts.manager.primary.get("a").read_all() == b"two"
        await w.fs.flush(handle)
        await w.fs.write(handle, 3, b"!")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert w.parts.manager.primary.get("a").read_all() == b"two!"
        assert w.parts.journal.uploads() == []


async def test_L4_a_file_that_mknod_could_not_bring_home_keeps_no_handle(tmp_path):
    async with world(tmp_path, objects=True) as w:

        async def refuse(what: str, *_: object) -> None:
            if what == "upload":
                raise StoreUnavailableError("down", store="data")

        w.transport.before = refuse
        operations = Operations(w.fs, None, RequestCounts(), read_only=False)
        caller = SimpleNamespace(umask=0o022, uid=ME.uid, gid=ME.gid)
        inodes = len(w.parts.namespace.table)
        with pytest.raises(pyfuse3.FUSEError):
            await operations.mknod(ROOT, b"a", stat.S_IFREG | 0o644, 0, caller)
        await operations.unlink(ROOT, b"a", caller)
        assert (len(w.fs.handles), len(w.parts.namespace.table)) == (0, inodes)


async def test_W2_a_commit_that_the_end_of_the_mount_cut_short_is_told_to_nobody_as_done(tmp_path):
    begun = trio.Event()

    async def never(*_: object) -> None:
        begun.set()
        await trio.sleep_forever()

    async def write(commits: Commits) -> None:
        with pytest.raises(StoreUnavailableError):
            await commits.write(FinishedUpload(None))

    journal = Journal(tmp_path / "journal.db")
    async with trio.open_nursery() as waiting, trio.open_nursery() as background:
        waiting.start_soon(write, Commits(journal, background, never))
        await begun.wait()
        background.cancel_scope.cancel()
    journal.close()
