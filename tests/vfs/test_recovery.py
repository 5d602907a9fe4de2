"""What an ended mount leaves, at every step, and what the next one makes of it (W4)."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from mscfs.directories import private
from mscfs.errors import NoSpaceError, StoreUnavailableError
from mscfs.journal import Journal, process_token
from mscfs.replicas.manager import ReplicaManager
from mscfs.store import open_store
from mscfs.types import Version
from mscfs.vfs.recovery import NOT_CLOSED, NOT_KNOWN, Recovery, adopt
from mscfs.vfs.staging_log import Staged, StagingLog
from tests.vfs.inline import make_config
from tests.vfs.recovering import recover

ENDED = "1-0-before"
"""A process that is gone."""


class Left:
    """What an ended process left."""

    def __init__(self, root: Path, manager: ReplicaManager, owner: str = ENDED) -> None:
        assert manager.journal is not None
        self.manager, self.journal = manager, manager.journal
        self.staging = private(root / "staging")
        self.directory = private(self.staging / owner)
        self._log = StagingLog(self.directory)

    def file(self, name: str, content: bytes, *states: str, key: str = "k", base: Version | None = None) -> Path:
        path = self.directory / name
        path.write_bytes(content)
        for state in states:
            self._log.write(Staged.of(name, state, key, "update" if base else "replace", base))
        return path

    def end(self) -> None:
        """What this process took over belongs to an ended process again."""
        with self.journal._database.transaction() as connection:
            connection.execute("UPDATE uploads SET owner = ?", (ENDED,))

    def recover(self) -> tuple[int, int, int]:
        self.end()
        done = recover(self.manager, self.journal, self.staging)
        return done.uploaded, done.found, done.kept


@pytest.fixture
def manager(tmp_path):
    manager = open_store(make_config(tmp_path), "data")
    yield manager
    manager.close()


@pytest.fixture
def left(tmp_path, manager) -> Left:
    return Left(tmp_path, manager)


def wished(journal: Journal) -> set[tuple[str, str]]:
    return {(wish.replica, wish.key) for wish in journal.claim(10)}


def test_W4_what_was_closed_is_uploaded_and_wished_for(left, manager):
    left.file("1", b"data", "writing", "sending", key="a/b")
    assert left.recover() == (1, 0, 0)
    assert manager.primary.head("a/b").content_length == 4
    assert wished(left.journal) == {("near", "a/b"), ("far", "a/b")}
    assert left.journal.uploads() == []
    assert list(left.staging.iterdir()) == []


def test_W4_what_the_primary_holds_already_is_only_wished_for(left, manager):
    manager.primary.put("k", b"data")
    left.file("1", b"data", "writing", "sending", base=Version(1, "before"))
    assert left.recover() == (0, 1, 0)
    assert wished(left.journal) == {("near", "k"), ("far", "k")}
    assert list(left.staging.iterdir()) == []


def test_W4_something_newer_is_not_overwritten_and_the_content_is_kept(left, manager):
    base = manager.primary.put("k", b"base").version
    newer = manager.primary.put("k", b"newer than ours").version
    path = left.file("1", b"ours", "writing", "sending", base=base)
    for _ in range(2):
        assert left.recover() == (0, 0, 1)
        (kept,) = left.journal.uploads()
        assert "changed elsewhere" in kept.problem
        assert path.read_bytes() == b"ours"
        assert manager.primary.head("k").version == newer


def test_W4_what_nobody_closed_is_kept_and_told(left, manager):
    path = left.file("1", b"half a fi", "writing")
    for _ in range(2):
        assert left.recover() == (0, 0, 1)
        (kept,) = left.journal.uploads()
        assert (kept.key, kept.staging, kept.problem) == ("k", path, NOT_CLOSED)
    assert path.read_bytes() == b"half a fi"
    assert list(manager.primary.list()) == []


def test_W4_what_was_written_on_after_a_failed_close_is_not_sent_as_if_it_were_complete(left, manager):
    path = left.file("1", b"complete, and half of mo", "writing", "sending", "writing")
    left.journal.keep_upload(left.journal.begin_upload("k", path, "replace", None), "")
    assert left.recover() == (0, 0, 1)
    (kept,) = left.journal.uploads()
    assert kept.problem == NOT_CLOSED
    assert list(manager.primary.list()) == []


@pytest.mark.parametrize(
    ("content", "states"),
    [(b"data", ("writing", "sending", "sent")), (b"", ("writing",)), (b"", ()), (b"from the primary", ("sent",))],
    ids=["acknowledged", "empty", "untouched", "downloaded"],
)
def test_W4_what_nobody_misses_is_removed(left, manager, content, states):
    left.file("1", content, *states)
    assert left.recover() == (0, 0, 0)
    assert left.journal.uploads() == []
    assert list(left.staging.iterdir()) == []
    assert list(manager.primary.list()) == []


def test_W4_an_empty_file_that_was_closed_is_uploaded(left, manager):
    left.file("1", b"", "writing", "sending")
    assert left.recover() == (1, 0, 0)
    assert manager.primary.head("k").content_length == 0


def test_W4_content_whose_line_a_power_cut_took_is_kept(left):
    path = left.file("1", b"data")
    for _ in range(2):
        assert left.recover() == (0, 0, 1)
        (kept,) = left.journal.uploads()
        assert (kept.staging, kept.problem) == (path, NOT_KNOWN)
        assert kept.key.startswith("lost+found/")


def test_W4_content_whose_line_a_power_cut_took_is_sent_when_the_journal_knows_it(left, manager):
    path = left.file("1", b"data")
    left.journal.keep_upload(left.journal.begin_upload("k", path, "replace", None), "")
    assert left.recover() == (1, 0, 0)
    assert manager.primary.head("k").content_length == 4


def test_W4_a_store_in_trouble_leaves_it_for_the_next_mount(left, manager, monkeypatch):
    left.file("1", b"data", "writing", "sending")

    def down(*_: object, **__: object) -> None:
        raise StoreUnavailableError("down", store="data")

    monkeypatch.setattr(manager.primary, "put", down)
    assert left.recover() == (0, 0, 0)
    monkeypatch.undo()
    assert left.recover() == (1, 0, 0)
    assert list(left.staging.iterdir()) == []


def test_W4_a_mount_that_lives_is_left_alone(tmp_path, manager):
    alive = Left(tmp_path, manager, process_token())
    path = alive.file("1", b"data", "writing", "sending")
    assert alive.recover() == (0, 0, 0)
    assert path.exists()
    assert alive.journal.uploads() == []


def test_W4_two_that_recover_at_once_do_it_once(left, manager):
    left.file("1", b"data", "writing", "sending")
    adopt(left.journal, left.staging)
    adopt(left.journal, left.staging)
    assert len(left.journal.uploads()) == 1
    assert left.recover() == (1, 0, 0)
    assert left.recover() == (0, 0, 0)


@pytest.mark.parametrize("call", ["adopt_uploads", "uploads"])
def test_W4_a_journal_without_room_loses_nothing(left, manager, monkeypatch, call):
    path = left.file("1", b"data", "writing", "sending")

    def full(*_: object, **__: object) -> None:
        raise NoSpaceError("no room for the journal")

    monkeypatch.setattr(left.journal, call, full)
    with pytest.raises(NoSpaceError):
        left.recover()
    monkeypatch.undo()
    assert path.exists()
    assert left.recover() == (1, 0, 0)


def test_W4_a_broken_local_disk_is_told_and_does_not_keep_the_rest_from_being_settled(
    left, manager, monkeypatch, caplog
):
    left.file("1", b"one", "writing", "sending", key="broken")
    left.file("2", b"two", "writing", "sending", key="whole")
    real = Path.unlink

    def broken(path: Path, **options: bool) -> None:
        if path.name == "1":
            raise OSError(errno.EIO, "the disk is broken")
        real(path, **options)

    monkeypatch.setattr(Path, "unlink", broken)
    left.recover()
    assert manager.primary.head("whole").content_length == 3
    assert "the disk is broken" in caplog.text


def test_W4_what_the_primary_does_not_take_keeps_nothing_else_from_being_settled(left, manager, monkeypatch):
    """But for what has to do with it: that keeps its place behind it."""
    left.file("1", b"poison", "writing", "sending", key="d/poison")
    left.file("2", b"data", "writing", "sending", key="other")
    left.end()
    manager.primary.put("x", b"x")
    for source, target in (("d/poison", "d/p"), ("x", "y")):
        left.journal.begin_rename(source, target, manager.primary.head("x").version)
    monkeypatch.setattr("mscfs.journal.journal.is_alive", lambda _: False)
    real = manager.primary.put

    def put(key: str, *arguments: object, **named: object) -> object:
        if key == "d/poison":
            raise StoreUnavailableError("this one is not taken", store="data")
        return real(key, *arguments, **named)

    monkeypatch.setattr(manager.primary, "put", put)
    recovery = Recovery(manager, left.journal, left.staging)
    recovery.begin()
    for _ in range(5):
        recovery.step()
    assert manager.primary.head("other").content_length == 4
    assert [rename.source for rename in left.journal.renames()] == ["d/poison"]
    assert (recovery.left, recovery.unsettled.concerns("x")) == (2, False)
    assert recovery.unsettled.concerns("d/p")
    monkeypatch.setattr(manager.primary, "put", real)
    while not recovery.is_over:
        assert recovery.step()
    assert manager.primary.head("d/poison").content_length == 6
    assert left.journal.renames() == []
