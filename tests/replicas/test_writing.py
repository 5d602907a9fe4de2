"""Writes go to the primary; the wishes to replicate are on disk before they return (W1, W2, W8)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from mscfs.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    NoSpaceError,
    StorageError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.journal import Journal
from mscfs.types import Version
from tests.journal.processes import killed
from tests.replicas.stores import Stores, content

BODY = b"0123456789"
BOTH = {("one", "k", "replicate"), ("two", "k", "replicate")}


def put(stores: Stores) -> None:
    stores.manager.put("k", BODY)


def put_in_parts(stores: Stores) -> None:
    upload = stores.manager.start_upload("k")
    upload.put_part(1, BODY)
    assert stores.wishes() == set(), "not before the primary has it"
    upload.complete()


def copy(stores: Stores) -> None:
    stores.manager.copy("source", "k")


def rename(stores: Stores) -> None:
    stores.manager.rename("source", "k")


def set_metadata(stores: Stores) -> None:
    stores.primary.inner.put("k", BODY)
    stores.manager.set_metadata("k", {"m": "1"})


def make_symlink(stores: Stores) -> None:
    stores.manager.make_symlink("k", "target")


WRITES = [put, put_in_parts, copy, rename, set_metadata, make_symlink]


@pytest.mark.parametrize("write", WRITES)
def test_W2_every_write_makes_wishes_for_all_replicas(stores: Stores, write: Callable[[Stores], None]) -> None:
    stores.primary.inner.put("source", BODY)
    write(stores)
    assert stores.wishes() == BOTH
    assert stores.one.calls == stores.two.calls == [], "nothing waits for a replica"
    stores.carry_out()
    assert content(stores.one) == content(stores.two) == content(stores.primary)


@pytest.mark.parametrize("write", WRITES)
def test_W1_a_write_whose_wishes_cannot_be_recorded_is_not_acknowledged(
    stores: Stores, write: Callable[[Stores], None]
) -> None:
    stores.primary.inner.put("source", BODY)
    stores.journal.path.write_bytes(b"damaged" * 1000)
    with pytest.raises(StoreUnavailableError, match="journal"):
        write(stores)


def test_W1_a_full_disk_is_told(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.journal.pending()

    class Full(sqlite3.Connection):
        def executemany(self, *_: object) -> sqlite3.Cursor:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

    monkeypatch.setattr("sqlite3.connect", Full)
    stores.journal.close()
    with pytest.raises(NoSpaceError):
        stores.manager.put("k", BODY)


@pytest.mark.parametrize(
    "error",
    [
        AccessDeniedError("you", store="primary"),
        NoSpaceError("full", store="primary"),
        StoreUnavailableError("503", store="primary"),
    ],
)
def test_W1_the_primarys_reason_is_told_and_no_wish_is_made(stores: Stores, error: StorageError) -> None:
    stores.primary.on("*", error)
    for write in (
        lambda: stores.manager.put("k", BODY),
        lambda: stores.manager.copy("k", "l"),
        lambda: stores.manager.delete("k"),
        lambda: stores.manager.make_directory("d/"),
        lambda: stores.manager.start_upload("k"),
    ):
        with pytest.raises(type(error)) as raised:
            write()
        assert raised.value is error
    assert stores.wishes() == set()


def test_W5_conditions_are_the_primarys(stores: Stores) -> None:
    stores.manager.put("k", BODY)
    with pytest.raises(AlreadyExistsError):
        stores.manager.put("k", BODY, if_absent=True)
    with pytest.raises(VersionMismatchError):
        stores.manager.put("k", BODY, expected=Version(1, "another"))


def test_W2_the_wish_survives_kill_9_right_after_the_write(tmp_path: Path) -> None:
    killed(
        tmp_path / "journal.db",
        """
from mscfs.providers.memory import MemoryProvider
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
manager = ReplicaManager(Source("p", MemoryProvider()), [Replica("r", MemoryProvider())], journal)
manager.put("k", b"0123456789")
die()
""",
    )
    lag = Journal(tmp_path / "journal.db").lag()["r"]
    assert (lag.entries, lag.bytes) == (1, 10)


def test_no_wish_for_read_only_replicas(tmp_path: Path) -> None:
    stores = Stores(tmp_path, read_only=("one",), propagate_deletes=True)
    stores.manager.put("k", BODY)
    assert stores.wishes() == {("two", "k", "replicate")}
    stores.carry_out()
    stores.manager.delete("k")
    assert stores.wishes() == {("two", "k", "delete")}
    assert stores.journal.is_deleted("one", "k")


def test_whoever_carries_wishes_out_is_woken_once_they_are_there(stores: Stores) -> None:
    seen: list[set[tuple[str, str, str]]] = []
    stores.manager.on_wish = lambda: seen.append(stores.wishes())
    stores.manager.put("k", BODY)
    assert seen == [BOTH]


def test_writes_without_replicas_leave_the_journal_alone(tmp_path: Path) -> None:
    stores = Stores(tmp_path, names=())
    stores.manager.put("k", BODY)
    stores.manager.delete("k")
    assert not stores.journal.path.exists()


def test_an_aborted_upload_makes_no_wishes(stores: Stores) -> None:
    upload = stores.manager.start_upload("k")
    upload.put_part(1, BODY)
    upload.abort()
    assert stores.wishes() == set()
    assert content(stores.primary) is None


class TestDelete:
    def test_W8_copies_stay_unless_deletes_are_propagated(self, stores: Stores) -> None:
        stores.everywhere()
        stores.manager.delete("k")
        assert stores.journal.pending() == 0
        assert content(stores.one) == BODY

    def test_W8_propagated(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, propagate_deletes=True)
        stores.everywhere()
        stores.manager.delete("k")
        stores.carry_out()
        assert content(stores.one) is content(stores.two) is None

    def test_W8_a_delete_before_the_copy_was_made(self, stores: Stores) -> None:
        stores.manager.put("k", BODY)
        stores.manager.delete("k")
        stores.carry_out()
        assert content(stores.one) is None

    def test_W8_a_propagated_delete_is_not_weakened_by_a_write_whose_wish_came_later(self, tmp_path: Path) -> None:
        """Two threads, one key: the write reached the primary first, its wish the journal last."""
        stores = Stores(tmp_path, propagate_deletes=True)
        stores.everywhere()
        stores.manager.delete("k")
        stores.manager.journal.wish(stores.manager.replication_wishes("k", 10))  # type: ignore[union-attr]
        stores.carry_out()
        assert content(stores.one) is None

    def test_W8_a_file_written_anew_before_its_delete_was_carried_out(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, propagate_deletes=True)
        stores.everywhere()
        stores.manager.delete("k")
        stores.manager.put("k", b"new")
        stores.carry_out()
        assert content(stores.one) == content(stores.two) == b"new"

    def test_directories_follow(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, propagate_deletes=True)
        stores.manager.make_directory("d/")
        stores.carry_out()
        assert stores.one.inner.has_directory("d/")
        stores.manager.remove_directory("d/")
        stores.carry_out()
        assert not stores.one.inner.has_directory("d/")
