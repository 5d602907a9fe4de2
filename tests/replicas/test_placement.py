from __future__ import annotations

from pathlib import Path

import pytest

from mscfs.errors import NotFoundError, StoreTimeoutError
from mscfs.replicas.placement import Placement, locate
from tests.replicas.stores import Stores


def told(placements: list[Placement]) -> dict[str, tuple[str, bool]]:
    return {placement.profile: (placement.state, placement.serves) for placement in placements}


def where(stores: Stores) -> dict[str, tuple[str, bool]]:
    return told(locate(stores.manager, "k"))


def test_the_first_fresh_replica_serves(stores: Stores) -> None:
    written = stores.everywhere()
    found = locate(stores.manager, "k")
    assert told(found) == {"one": ("fresh", True), "two": ("fresh", False), "primary": ("primary", False)}
    assert [placement.read_priority for placement in found] == [1, 2, 0]
    assert found[-1].version == written.tag
    assert {placement.size for placement in found} == {10}


def test_stale_missing_and_down(stores: Stores) -> None:
    stores.everywhere()
    stores.primary.inner.put("k", b"ABCDEFGHIJ")
    stores.two.inner.delete("k")
    assert where(stores) == {"one": ("stale", False), "two": ("missing", False), "primary": ("primary", True)}
    stores.one.go_down()
    assert where(stores)["one"] == ("down", False)
    assert locate(stores.manager, "k")[0].detail == "connection refused"


def test_the_primary_is_down(stores: Stores) -> None:
    stores.everywhere()
    stores.primary.go_down()
    assert where(stores) == {"one": ("unknown", True), "two": ("unknown", False), "primary": ("down", False)}


def test_L2_a_store_that_is_known_to_be_down_is_not_asked(stores: Stores) -> None:
    """It may be silent: the first question finds that out, and the next does not wait."""
    stores.everywhere()
    for store in (stores.primary, stores.one):
        store.go_down(StoreTimeoutError("no answer", store=store.profile))
    expected = {"one": ("down", False), "two": ("unknown", True), "primary": ("down", False)}
    assert where(stores) == expected
    asked = len(stores.primary.calls), len(stores.one.calls)
    assert where(stores) == expected
    assert asked == (len(stores.primary.calls), len(stores.one.calls))


def test_the_primary_is_down_and_a_copy_is_known_to_be_old(stores: Stores) -> None:
    stores.everywhere()
    stores.manager.put("k", b"ABCDEFGHIJ")
    stores.step("two")
    stores.journal.finish(next(wish for wish in stores.journal.claim(5) if wish.replica == "two"))
    stores.primary.go_down()
    assert where(stores) == {"one": ("stale", False), "two": ("unknown", True), "primary": ("down", False)}


def test_W8_copies_of_a_deleted_object_serve_nobody(stores: Stores) -> None:
    stores.everywhere()
    stores.primary.inner.delete("k")
    assert where(stores) == {"one": ("stale", False), "two": ("stale", False), "primary": ("missing", False)}


def test_what_nobody_has_is_not_found(stores: Stores) -> None:
    with pytest.raises(NotFoundError):
        locate(stores.manager, "k")


def test_without_replicas(tmp_path: Path) -> None:
    stores = Stores(tmp_path, names=())
    stores.primary.inner.put("k", b"1")
    assert where(stores) == {"primary": ("primary", True)}
