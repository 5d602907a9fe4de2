"""The primary is down: the replicas answer, with nothing that is known to be wrong (R8, W8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mscfs.errors import NotFoundError, StorageError, StoreMissingError, StoreTimeoutError, StoreUnavailableError
from mscfs.types import STAMP_KEY
from tests.replicas.stores import Stores

BODY = b"0123456789"


@pytest.fixture
def down(stores: Stores) -> Stores:
    stores.primary.inner.make_directory("d/")
    for key in ("d/x", "d/y", "k"):
        stores.everywhere(key)
    for name in ("one", "two"):
        stores.step(name, "d/")
    stores.primary.go_down()
    return stores


def keys(entries: object) -> list[str]:
    return [entry.key for entry in entries]  # type: ignore[attr-defined]


def test_R8_names_attributes_and_bytes_come_from_the_replicas(down: Stores) -> None:
    assert down.read() == BODY
    assert down.manager.head("k").content_length == 10
    assert keys(down.manager.list()) == ["d/", "d/x", "d/y", "k"]
    assert keys(down.manager.list("d/", start_after="d/x")) == ["d/y"]
    assert sorted(keys(down.manager.list_directory(""))) == ["d/", "k"]
    assert down.manager.has_directory("d/")
    assert not down.manager.has_directory("e/")
    assert down.manager.head_directory("d/").is_directory
    with pytest.raises(StoreUnavailableError):
        down.manager.probe()


def test_R8_versions_stay_what_the_primary_said(stores: Stores) -> None:
    written = stores.everywhere()
    stores.primary.go_down()
    assert stores.manager.head("k").version == written.version
    assert STAMP_KEY not in (stores.manager.head("k").metadata or {})
    with stores.manager.get("k") as reader:
        assert reader.metadata.version == written.version
    stores.primary.recover()
    stores.clock.now += 10
    assert stores.read(expected=written.version) == BODY


def test_R8_everything_is_back_without_restart(down: Stores) -> None:
    assert down.read() == BODY
    down.primary.recover()
    down.primary.inner.put("k", b"new content")
    down.clock.now += 61
    assert down.read() == b"new content"
    assert down.manager.head("k").content_length == 11
    assert down.manager.primary_source.health.healthy


def test_R8_a_primary_that_is_down_is_not_asked_by_every_read(down: Stores) -> None:
    for _ in range(5):
        down.read()
    down.forget()
    for _ in range(20):
        down.read()
        down.manager.head("k")
        keys(down.manager.list())
        down.manager.has_directory("d/")
    assert down.primary.calls == []


@pytest.mark.parametrize("error", [StoreTimeoutError("silent"), StoreMissingError("no bucket")])
def test_R8_a_silent_primary_costs_one_request(down: Stores, error: StorageError) -> None:
    down.primary.recover()
    down.primary.go_down(error)
    down.forget()
    for _ in range(5):
        assert down.read() == BODY
    assert len(down.primary.calls) == 1


def test_R8_what_no_replica_has_is_an_error_and_not_a_missing_file(down: Stores) -> None:
    """It may exist on the primary: to say that it does not would be wrong."""
    with pytest.raises(StoreUnavailableError):
        down.manager.head("elsewhere")
    with pytest.raises(StoreUnavailableError):
        down.read("elsewhere")


def test_R8_the_first_healthy_replica_answers(down: Stores) -> None:
    down.one.go_down()
    assert down.served_by() == "two"
    assert down.manager.head("k").content_length == 10
    assert "k" in keys(down.manager.list())
    down.two.go_down()
    with pytest.raises(StoreUnavailableError):
        down.manager.head("k")
    with pytest.raises(StoreUnavailableError):
        keys(down.manager.list())
    with pytest.raises(StoreUnavailableError):
        down.read()


def test_R8_a_listing_that_breaks_off_is_an_error_and_not_a_short_listing(stores: Stores) -> None:
    for number in range(5):
        stores.everywhere(f"k{number}")
    stores.primary.on("entry", StoreUnavailableError("reset"), at=3)
    with pytest.raises(StoreUnavailableError):
        keys(stores.manager.list())


def test_R8_a_listing_whose_first_page_fails_comes_from_a_replica(stores: Stores) -> None:
    stores.everywhere("k")
    stores.primary.on("entry", StoreUnavailableError("reset"), at=0)
    stores.one.on("entry", StoreUnavailableError("reset"), at=0)
    assert keys(stores.manager.list()) == ["k"]


def test_writes_fail(down: Stores) -> None:
    with pytest.raises(StoreUnavailableError):
        down.manager.put("k", b"1")
    with pytest.raises(StoreUnavailableError):
        down.manager.delete("k")
    assert down.wishes() == set()


def test_R8_copies_of_other_tools_serve(stores: Stores) -> None:
    stores.one.inner.put("k", BODY)
    stores.primary.go_down()
    pinned = stores.manager.head("k").version
    assert stores.read(expected=pinned) == BODY
    assert stores.read() == BODY


def test_R2_what_was_written_here_and_has_not_reached_a_replica_is_not_read_from_its_old_copy(stores: Stores) -> None:
    stores.everywhere()
    stores.manager.put("k", b"ABCDEFGHIJ")
    stores.step("two")
    stores.journal.finish(next(wish for wish in stores.journal.claim(5) if wish.replica == "two"))
    stores.primary.go_down()
    assert stores.read() == b"ABCDEFGHIJ"
    assert stores.served_by() == "two"
    assert stores.manager.head("k").version == stores.two.inner.head("k").stamped_version
    stores.two.go_down()
    with pytest.raises(StoreUnavailableError):
        stores.read()
    with pytest.raises(StoreUnavailableError):
        stores.manager.head("k")


class TestDeleted:
    """W8: a deleted object is never served from a replica."""

    @pytest.fixture(params=[False, True], ids=["kept", "propagated"])
    def deleted(self, tmp_path: Path, request: pytest.FixtureRequest) -> Stores:
        stores = Stores(tmp_path, propagate_deletes=request.param)
        stores.everywhere()
        stores.everywhere("other")
        stores.manager.delete("k")
        return stores

    def test_W8_while_the_primary_is_up(self, deleted: Stores) -> None:
        with pytest.raises(NotFoundError):
            deleted.read()
        with pytest.raises(NotFoundError):
            deleted.manager.head("k")

    def test_W8_while_the_primary_is_down(self, deleted: Stores) -> None:
        deleted.primary.go_down()
        with pytest.raises(StorageError):
            deleted.read()
        with pytest.raises(StorageError):
            deleted.manager.head("k")
        assert keys(deleted.manager.list()) == ["other"]
        assert keys(deleted.manager.list_directory("")) == ["other"]

    def test_W8_after_a_restart_while_the_primary_is_down(self, deleted: Stores) -> None:
        stores = Stores(
            deleted.directory,
            inner={name: store.inner for name, store in [("primary", deleted.primary), *deleted.replicas.items()]},
        )
        stores.primary.go_down()
        with pytest.raises(StorageError):
            stores.read()
        assert keys(stores.manager.list()) == ["other"]

    def test_W8_with_read_consistency_replica(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, read_consistency="replica")
        stores.everywhere()
        stores.manager.delete("k")
        with pytest.raises(NotFoundError):
            stores.read()
        with pytest.raises(NotFoundError):
            stores.manager.head("k")

    def test_W8_an_object_written_anew_is_served_again(self, deleted: Stores) -> None:
        deleted.manager.put("k", b"new")
        deleted.carry_out()
        deleted.primary.go_down()
        assert deleted.read() == b"new"
        assert "k" in keys(deleted.manager.list())

    def test_W8_an_object_written_anew_by_others_is_served_once_it_was_back_filled(self, deleted: Stores) -> None:
        deleted.primary.inner.put("k", b"new")
        assert deleted.read() == b"new"
        deleted.carry_out()
        deleted.primary.go_down()
        assert deleted.read() == b"new"

    def test_W8_directories(self, stores: Stores) -> None:
        stores.manager.make_directory("d/")
        stores.carry_out()
        stores.manager.remove_directory("d/")
        stores.primary.go_down()
        assert keys(stores.manager.list_directory("")) == []
        with pytest.raises(StoreUnavailableError):
            stores.manager.has_directory("d/")

    def test_W8_a_renamed_objects_old_name(self, stores: Stores) -> None:
        stores.everywhere()
        stores.manager.rename("k", "l")
        stores.carry_out()
        stores.primary.go_down()
        assert keys(stores.manager.list()) == ["l"]
        assert stores.read("l") == BODY
