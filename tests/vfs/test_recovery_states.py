"""What a kill -9 can leave, and what the next mount makes of it: W4, one test for each state."""

from __future__ import annotations

import os
import sqlite3
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing

from mscfs.errors import StorageError, StoreUnavailableError
from mscfs.fuse.session import _recover
from mscfs.journal import Journal
from mscfs.journal.process import is_alive
from mscfs.vfs import leftbehind, recovery
from mscfs.vfs.leftbehind import left_behind
from mscfs.vfs.recovery import Recovery
from tests.vfs.inline import inline, world
from tests.vfs.outages import switch
from tests.vfs.recovering import recover
from tests.vfs.test_names import names, write_file

KINDS = pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])
DEAD = "1-2-3"


@pytest.fixture(autouse=True)
def everybody_died(monkeypatch):
    """Rows and staging files of this process count as those of a dead one."""
    for module in ("mscfs.journal.journal", "mscfs.vfs.recovery"):
        monkeypatch.setattr(f"{module}.is_alive", lambda token: False)


@asynccontextmanager
async def next_mount(tmp_path: Path, **options):
    async with world(tmp_path, **options) as w:
        w.staging = w.parts.area.directory.parent
        yield w


def leave(w, key: str, data: bytes, *, base=None, mode="replace") -> Path:
    """Staged content as a killed process leaves it."""
    directory = w.staging / DEAD
    directory.mkdir(exist_ok=True)
    path = directory / f"{len(list(directory.iterdir())):08d}"
    path.write_bytes(data)
    w.parts.journal.begin_upload(key, path, mode, base)
    return path


def settle(w):
    return recover(w.parts.manager, w.parts.journal, w.staging)


def kept(w):
    return [(content.key, content.problem) for content in left_behind(w.parts.journal)]


@KINDS
async def test_W4_an_upload_that_was_not_sent_goes_home(tmp_path, objects):
    async with next_mount(tmp_path, objects=objects) as w:
        before = w.parts.manager.primary.put("changed", b"old")
        leave(w, "changed", b"new", base=before.version, mode="update")
        leave(w, "made", b"made")
        assert settle(w).uploaded == 2
        with w.parts.manager.primary.get("changed") as content:
            assert b"".join(content) == b"new"
        assert w.parts.manager.primary.head("made").content_length == 4
        assert (w.parts.journal.uploads(), kept(w)) == ([], [])
        assert {(wish.replica, wish.key) for wish in w.parts.journal.claim(10)} == {
            (replica, key) for replica in ("near", "far") for key in ("changed", "made")
        }
        assert not (w.staging / DEAD).exists() or not list((w.staging / DEAD).iterdir())


@KINDS
async def test_W4_an_upload_that_was_sent_and_not_recorded_is_only_recorded(tmp_path, objects):
    async with next_mount(tmp_path, objects=objects) as w:
        written = w.parts.manager.primary.put("a", b"sent")
        leave(w, "a", b"sent")
        settle(w)
        assert w.parts.manager.primary.head("a").version == written.version
        assert len(w.parts.journal.claim(10)) == 2, "the replicas were not told either"
        assert kept(w) == []


@KINDS
@pytest.mark.parametrize("was_there", [False, True])
async def test_W4_an_upload_whose_object_was_changed_elsewhere_is_kept_and_overwrites_nothing(
    tmp_path, objects, was_there
):
    async with next_mount(tmp_path, objects=objects) as w:
        base = w.parts.manager.primary.put("a", b"old").version if was_there else None
        w.parts.manager.primary.put("a", b"of somebody else")
        path = leave(w, "a", b"mine", base=base)
        assert settle(w).kept == 1
        assert w.parts.manager.primary.head("a").content_length == 16
        assert path.read_bytes() == b"mine"
        assert kept(w) == [("a", "the object was changed elsewhere since")]
        assert settle(w).kept == 1, "and by the mount after that"
        assert path.exists()


@KINDS
async def test_W4_an_upload_whose_object_was_deleted_elsewhere_is_kept(tmp_path, objects):
    async with next_mount(tmp_path, objects=objects) as w:
        base = w.parts.manager.primary.put("a", b"old").version
        w.parts.manager.primary.delete("a")
        leave(w, "a", b"mine", base=base, mode="update")
        assert settle(w).kept == 1
        assert await names(w.fs) == []


async def test_W4_a_row_without_its_staging_file_is_forgotten(tmp_path):
    async with next_mount(tmp_path) as w:
        leave(w, "a", b"x").unlink()
        settle(w)
        assert w.parts.journal.uploads() == []


async def test_W4_an_empty_file_that_was_closed_goes_home_too(tmp_path):
    async with next_mount(tmp_path) as w:
        leave(w, "empty", b"")
        assert settle(w).uploaded == 1
        assert await names(w.fs) == ["empty"]


@KINDS
async def test_W7_W4_half_renames_are_finished_or_undone(tmp_path, objects):
    async with next_mount(tmp_path, objects=objects) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        for key in ("begun", "copied", "done"):
            journal.begin_rename(key, f"{key}-to", primary.put(key, key.encode()).version)
        if objects:
            primary.copy("copied", "copied-to")
        else:
            primary.rename("copied", "copied-to")  # in one step, so that there is no half of it
        primary.rename("done", "done-to")
        settle(w)
        expected = ["begun", "copied-to", "done-to"]
        assert sorted(await names(w.fs)) == expected
        assert journal.renames() == []


@pytest.mark.parametrize("other", [b"copieD", b"other size", b"copied"])
async def test_W7_W4_a_rename_is_told_by_its_bytes_where_there_is_no_hash(tmp_path, monkeypatch, other):
    async with next_mount(tmp_path, objects=True) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        journal.begin_rename("a", "b", primary.put("a", b"copied").version)
        primary.put("b", other)
        real = primary.head
        monkeypatch.setattr(primary, "head", lambda key: replace(real(key), content_hash=""))
        settle(w)
        assert sorted(await names(w.fs)) == (["b"] if other == b"copied" else ["a", "b"])


@KINDS
async def test_W8_W4_deferred_deletes_are_carried_out_unless_somebody_wrote_the_name_anew(tmp_path, objects):
    async with next_mount(tmp_path, objects=objects) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        for key in ("gone", "anew"):
            journal.begin_delete(key, primary.put(key, b"1").version)
        journal.begin_delete("never-there", None)
        primary.put("anew", b"somebody wrote it")
        settle(w)
        assert await names(w.fs) == ["anew"]
        assert journal.deletes() == []
        assert [key for key in ("gone", "anew") if journal.is_deleted("near", key)] == ["gone"]


async def test_W3_W4_parts_that_the_store_is_still_joining_do_not_come_over_what_is_written_since(
    tmp_path, monkeypatch
):
    """The process was killed while it waited for the store to complete an upload in parts."""
    async with next_mount(tmp_path, objects=True) as w:
        primary = w.parts.manager.primary.inner
        leave(w, "big", b"old content")
        w.parts.journal.begin_parts("big", "token")
        uploads = {"token": b"old content"}
        monkeypatch.setattr(primary, "abort_upload", lambda _, token: uploads.pop(token, None))
        recovery_ = Recovery(w.parts.manager, w.parts.journal, w.staging)
        recovery_.begin()
        while primary_lacks(primary, "big"):
            assert recovery_.step()
        # The mount may answer now, while recovery goes on.
        primary.put("big", b"new content")
        for content in uploads.values():
            primary.put("big", content)
        assert primary.get("big").read_all() == b"new content"


def primary_lacks(primary, key: str) -> bool:
    return all(entry.key != key for entry in primary.list())


async def test_W4_parts_that_were_left_on_the_primary_are_aborted(tmp_path):
    async with next_mount(tmp_path, objects=True) as w:
        upload = w.parts.manager.primary.start_upload("big")
        upload.put_part(1, b"x" * 100)
        w.parts.journal.begin_parts("big", upload.token or "token")
        aborted = []
        w.parts.manager.primary.abort_upload = lambda key, token: aborted.append((key, token))
        settle(w)
        assert aborted == [("big", upload.token or "token")]
        assert w.parts.journal.parts() == []


async def test_W4_a_store_in_trouble_is_tried_again_when_it_is_back_and_delays_no_mount(
    tmp_path, autojump_clock, caplog
):
    async with next_mount(tmp_path, objects=True) as w:
        store = switch(w, on=False)
        for key in ("a", "b"):
            leave(w, key, key.encode())
        w.parts.journal.begin_delete("c", None)
        recovery_ = Recovery(w.parts.manager, w.parts.journal, w.staging)
        recovery_.begin()
        tried = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_recover, recovery_, w.parts.namespace.gate, inline, tried)
            with trio.fail_after(5):
                await tried.wait()
            assert store.asked == 1, "one failure is enough for all"
            assert kept(w) == [("a", ""), ("b", "")]
            await trio.sleep(1000)
            assert caplog.text.count("cannot be settled") == 1
            switch(w)
            await trio.sleep(5)
        assert sorted(await names(w.fs)) == ["a", "b"]
        assert kept(w) == []
        assert w.parts.journal.deletes() == []


async def test_W4_a_refusal_keeps_one_and_does_not_stop_the_others(tmp_path, monkeypatch):
    async with next_mount(tmp_path) as w:
        (w.store("primary") / "a").mkdir()
        leave(w, "a", b"a file where there is a directory by now")
        leave(w, "b", b"b")
        result = settle(w)
        assert (result.uploaded, result.kept) == (1, 1)
        assert [key for key, problem in kept(w) if problem] == ["a"]


async def test_W4_what_another_process_uploads_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    async with next_mount(tmp_path) as w:
        leave(w, "a", b"a")
        monkeypatch.setattr(Journal, "claim_upload", lambda *_: False)
        result = settle(w)
        assert (result.uploaded, result.kept, kept(w)) == (0, 0, [("a", "")])


async def test_W4_a_bug_in_settling_one_does_not_stop_the_others(tmp_path, monkeypatch, caplog):
    async with next_mount(tmp_path) as w:
        leave(w, "a", b"a")
        leave(w, "b", b"b")
        real = leftbehind.bring_home

        def buggy(manager, journal, content):
            if content.key == "a":
                raise ZeroDivisionError
            return real(manager, journal, content)

        monkeypatch.setattr(recovery, "bring_home", buggy)
        assert settle(w).uploaded == 1
        assert "a bug in settling a" in caplog.text
        assert [key for key, _ in kept(w)] == ["a"]


async def test_L2_a_mount_that_ends_stops_its_recovery(tmp_path):
    async with next_mount(tmp_path) as w:
        leave(w, "a", b"a")
        recovery_ = Recovery(w.parts.manager, w.parts.journal, w.staging)
        recovery_.begin()
        recovery_.is_ending = True
        assert recovery_.is_over
        assert kept(w) == [("a", "")]


# -- the mount answers while it is settled ----------------------------------------------------------------------------


def begin_recovery(w) -> Recovery:
    """As at a mount that answers before anything is settled."""
    recovery_ = Recovery(w.parts.manager, w.parts.journal, w.staging, w.parts.namespace.gate.unsettled)
    recovery_.begin()
    return recovery_


async def waits_for_recovery(w, recovery_: Recovery, call, *arguments):
    """What a call returns once everything is settled; it must not have returned before."""
    outcome = []

    async def ask() -> None:
        try:
            outcome.append(await call(*arguments))
        except OSError as error:
            outcome.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        assert outcome == []
        await _recover(recovery_, w.parts.namespace.gate, inline, trio.Event())
    return outcome[0]


async def test_W8_W4_a_delete_to_be_carried_out_takes_nothing_that_the_next_mount_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(recovery, "is_alive", is_alive)  # the staging directory is in use
    async with next_mount(tmp_path, objects=True) as w:
        primary = w.parts.manager.primary
        w.parts.journal.begin_delete("a", primary.put("a", b"the same").version)
        recovery_ = begin_recovery(w)

        async def write_it_anew() -> None:
            await write_file(w.fs, 1, "a", b"the same")

        assert await waits_for_recovery(w, recovery_, write_it_anew) is None
        assert primary.head("a").content_length == 8
        assert recovery_.left == 0


@pytest.mark.parametrize("way", ["lookup", "listing", "rename", "unlink"])
async def test_W7_W8_W4_names_between_two_states_are_not_told_until_they_are_settled(tmp_path, way):
    async with next_mount(tmp_path, objects=True) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        version = primary.put("d/old", b"moved").version
        journal.begin_rename("d/old", "d/new", version)
        primary.copy("d/old", "d/new")
        journal.begin_delete("d/gone", primary.put("d/gone", b"x").version)
        recovery_ = begin_recovery(w)
        directory = (await w.fs.lookup(1, "d")).number
        calls = {
            "lookup": lambda: w.fs.lookup(directory, "gone"),
            "listing": lambda: names(w.fs, directory),
            "rename": lambda: w.fs.rename(directory, "old", directory, "gone", 0),
            "unlink": lambda: w.fs.unlink(directory, "old"),
        }
        outcome = await waits_for_recovery(w, recovery_, calls[way])
        assert outcome == ["new"] if way == "listing" else isinstance(outcome, FileNotFoundError)
        assert await names(w.fs, directory) == ["new"]


async def test_W4_a_directory_waits_to_be_moved_for_what_is_settled_below_it(tmp_path):
    async with next_mount(tmp_path, objects=True) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        primary.put("d/sub/kept", b"x")
        journal.begin_delete("d/sub/gone", primary.put("d/sub/gone", b"x").version)
        recovery_ = begin_recovery(w)
        assert await waits_for_recovery(w, recovery_, w.fs.rename, 1, "d", 1, "moved", 0) is None
        assert sorted(entry.key for entry in primary.list()) == ["moved/sub/kept"]


async def test_W4_other_names_and_uploads_under_way_keep_nobody_waiting(tmp_path):
    async with next_mount(tmp_path, objects=True) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        leave(w, "e/large", b"still to be sent")
        primary.put("e/small", b"x")
        journal.begin_delete("d/gone", primary.put("d/gone", b"x").version)
        begin_recovery(w)
        other = (await w.fs.lookup(1, "e")).number
        assert await names(w.fs, other) == ["small"]


async def test_W4_names_are_settled_before_uploads_that_may_take_long(tmp_path):
    async with next_mount(tmp_path, objects=True) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        leave(w, "large", b"long")
        leave(w, "d/of a directory that moves", b"long")
        for key in ("large", "a", "b"):
            journal.begin_delete(key, primary.put(key, key.encode()).version)
        journal.begin_move("d/", "b/", replaced=False)
        recovery_ = begin_recovery(w)
        order = []
        while not recovery_.is_over:
            before = {entry.key for entry in primary.list()}
            recovery_.step()
            order.append(before ^ {entry.key for entry in primary.list()})
        assert order[0] == {"a"}, "all others have to do with an upload, or with what has"
        assert not w.parts.namespace.gate.unsettled


async def test_R8_W4_nobody_waits_for_recovery_while_the_primary_is_down(tmp_path, autojump_clock):
    async with next_mount(tmp_path, objects=True) as w:
        primary, journal = w.parts.manager.primary, w.parts.journal
        journal.begin_delete("a", primary.put("a", b"known").version)
        assert await names(w.fs) == ["a"]
        recovery_ = begin_recovery(w)
        store = switch(w, on=False, known=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_recover, recovery_, w.parts.namespace.gate, inline, trio.Event())
            await trio.testing.wait_all_tasks_blocked()
            assert store.asked == 1
            with trio.fail_after(5):
                assert (await w.fs.lookup(1, "a")).size == 5
            switch(w)
            await trio.sleep(100)  # until what was listed before is not believed any more
        assert await names(w.fs) == []


# -- the journal itself -----------------------------------------------------------------------------------------------

FORMAT_1 = """
CREATE TABLE wishes (
  replica TEXT NOT NULL, key BLOB NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL,
  serial INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, owner TEXT, error TEXT,
  PRIMARY KEY (replica, key)) WITHOUT ROWID;
CREATE INDEX wishes_due ON wishes (due) WHERE owner IS NULL;
CREATE TABLE hidden (replica TEXT NOT NULL, key BLOB NOT NULL, PRIMARY KEY (replica, key)) WITHOUT ROWID;
CREATE TABLE uploads (
  id INTEGER PRIMARY KEY, key BLOB NOT NULL, staging BLOB NOT NULL, mode TEXT NOT NULL, base TEXT,
  created REAL NOT NULL, owner TEXT NOT NULL, problem TEXT NOT NULL DEFAULT '');
CREATE TABLE deletes (
  key BLOB PRIMARY KEY, version TEXT, created REAL NOT NULL, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE renames (
  id INTEGER PRIMARY KEY, source BLOB NOT NULL, target BLOB NOT NULL, version TEXT NOT NULL, created REAL NOT NULL,
  owner TEXT NOT NULL);
CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES ('serial', 7);
PRAGMA user_version = 1;
"""
"""As the first version of mscfs made it."""


async def test_W4_a_journal_of_the_first_format_is_taken_over(tmp_path):
    async with next_mount(tmp_path) as w:
        path, staged = w.parts.journal.path, leave(w, "", b"unsent")
        w.parts.journal.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        with sqlite3.connect(path) as old:
            old.executescript(FORMAT_1)
            old.execute("INSERT INTO wishes VALUES ('near', X'6b', 'replicate', 1, 1.0, 7, 0, 1.0, NULL, NULL)")
            old.execute(
                "INSERT INTO uploads VALUES (1, X'61', ?, 'replace', NULL, 1.0, '1-2-3', '')", (os.fsencode(staged),)
            )
            old.execute("INSERT INTO deletes VALUES (X'64', NULL, 1.0, '1-2-3')")
        old.close()
        assert settle(w).uploaded == 1
        assert w.parts.journal.deletes() == []
        assert {(wish.replica, wish.key) for wish in w.parts.journal.claim(10)} == {
            ("near", "k"), ("near", "a"), ("far", "a"),
        }  # fmt: skip
        w.parts.journal.begin_parts("k", "token")  # what the first format did not know


async def test_W4_a_journal_of_a_newer_format_is_refused_and_left_alone(tmp_path):
    async with next_mount(tmp_path) as w:
        leave(w, "a", b"a")
        w.parts.journal.close()
        with sqlite3.connect(w.parts.journal.path) as newer:
            newer.execute("PRAGMA user_version = 99")
        newer.close()
        with pytest.raises(StoreUnavailableError, match=r"newer mscfs.*upgrade"):
            settle(w)
        with sqlite3.connect(w.parts.journal.path) as newer:
            assert newer.execute("PRAGMA user_version").fetchone() == (99,)
            assert newer.execute("SELECT COUNT(*) FROM uploads").fetchone() == (1,)
        newer.close()


@pytest.mark.parametrize("where", ["head", "middle"])
async def test_W4_a_damaged_journal_is_a_clear_error_and_nothing_is_destroyed(tmp_path, where):
    async with next_mount(tmp_path) as w:
        path = w.parts.journal.path
        staged = leave(w, "a", b"a")
        for number in range(2000):
            w.parts.journal.begin_delete(f"key-{number:06}" + "x" * 100, None)
        w.parts.journal.close()
        damaged = bytearray(path.read_bytes())
        at = 0 if where == "head" else len(damaged) // 2
        damaged[at : at + 8192] = b"\xa5" * 8192
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match=r"journal .* is damaged .*move it away"):
            settle(w)
        w.parts.journal.close()
        assert path.read_bytes() == bytes(damaged)
        assert staged.read_bytes() == b"a"


def test_a_process_of_another_boot_is_dead():
    assert not is_alive(f"{os.getpid()}-1-otherboot")
    assert not is_alive("")


@KINDS
async def test_W8_W4_an_upload_goes_home_over_the_deferred_delete_of_what_it_replaces(tmp_path, objects):
    async with next_mount(tmp_path, objects=objects) as w:
        old = w.parts.manager.primary.put("a", b"same")
        w.parts.journal.begin_delete("a", old.version)
        leave(w, "a", b"same", base=old.version)
        settle(w)
        assert await names(w.fs) == ["a"]
        assert w.parts.journal.deletes() == []
