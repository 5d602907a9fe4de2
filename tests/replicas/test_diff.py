from __future__ import annotations

import os
from pathlib import Path

import pytest

from mscfs.errors import StoreUnavailableError
from mscfs.replicas.diff import compare, decide
from mscfs.replicas.source import Replica
from tests.replicas.stores import Stores


def states(stores: Stores, prefix: str = "") -> dict[str, str]:
    found = list(compare(stores.primary, replica(stores), prefix))
    assert [difference.key for difference in found] == sorted(
        (difference.key for difference in found), key=lambda key: key.encode("utf-8", "surrogateescape")
    )
    return {difference.key: difference.state for difference in found}


def replica(stores: Stores) -> Replica:
    return stores.manager.replicas[0]


@pytest.fixture(params=[True, False], ids=["hashes", "no-hashes"])
def stores(tmp_path: Path, request: pytest.FixtureRequest) -> Stores:
    return Stores(tmp_path, names=("one",), tells_hashes=request.param)


def fill(stores: Stores) -> None:
    for key in ("a", "d/fresh", "d/stale", "d/ü", "z"):
        stores.everywhere(key)
    stores.primary.inner.put("d/stale", b"ABCDEFGHIJ")
    stores.primary.inner.put("d/missing", b"1")
    stores.primary.inner.make_directory("d/sub/")
    stores.primary.inner.put("longer", b"12345")
    stores.one.inner.put("longer", b"1234")
    stores.one.inner.put("unmatched", b"123")
    stores.one.inner.put("d/unmatched", b"1")


def test_every_state(stores: Stores) -> None:
    fill(stores)
    assert states(stores) == {
        "a": "fresh",
        "d/fresh": "fresh",
        "d/missing": "missing",
        "d/stale": "stale",
        "d/unmatched": "unmatched",
        "d/ü": "fresh",
        "longer": "stale",
        "unmatched": "unmatched",
        "z": "fresh",
    }
    assert set(states(stores, "d/")) == {"d/fresh", "d/missing", "d/stale", "d/unmatched", "d/ü"}


def test_sizes_are_the_primarys_and_for_unmatched_keys_the_replicas(stores: Stores) -> None:
    fill(stores)
    sizes = {difference.key: difference.size for difference in compare(stores.primary, replica(stores))}
    assert (sizes["longer"], sizes["d/missing"], sizes["unmatched"]) == (5, 1, 3)


def test_hashes_spare_the_question(tmp_path: Path) -> None:
    stores = Stores(tmp_path, names=("one",))
    fill(stores)
    stores.forget()
    states(stores)
    assert stores.one.called("head") == 0


def test_without_hashes_one_question_for_each_pair_of_equal_size(tmp_path: Path) -> None:
    stores = Stores(tmp_path, names=("one",), tells_hashes=False)
    fill(stores)
    stores.forget()
    states(stores)
    assert stores.one.called("head") == 5


def test_the_caller_may_ask_later(tmp_path: Path) -> None:
    stores = Stores(tmp_path, names=("one",), tells_hashes=False)
    stores.everywhere("k")
    (found,) = compare(stores.primary, replica(stores), decide_all=False)
    assert found.state == "uncertain"
    assert decide(found, stores.primary, replica(stores)).state == "fresh"
    stores.one.inner.delete("k")
    assert decide(found, stores.primary, replica(stores)).state == "missing"


@pytest.mark.parametrize("side", ["primary", "one"])
def test_a_listing_that_breaks_off_is_an_error_and_no_difference(stores: Stores, side: str) -> None:
    fill(stores)
    broken = stores.primary if side == "primary" else stores.one
    broken.on("entry", StoreUnavailableError("reset"), at=3)
    with pytest.raises(StoreUnavailableError):
        states(stores)


def test_listings_are_streamed(stores: Stores) -> None:
    for number in range(10):
        stores.primary.inner.put(f"k{number}", b"1")
    stores.primary.on("entry", StoreUnavailableError("reset"), at=5)
    found = compare(stores.primary, replica(stores))
    assert next(found).key == "k0"


def test_keys_are_compared_in_the_order_of_their_bytes(stores: Stores) -> None:
    for key in ("a", "a/b", "a-b", "a\u00e9", "a\U0001f600", "a\uffff", "b"):
        stores.primary.inner.put(key, b"1")
    stores.one.inner.put("a\uffff", b"12")
    assert states(stores)["a\uffff"] == "stale"
    assert os.fsencode("a\uffff") < os.fsencode("a\U0001f600")


def test_what_a_step_did_is_no_difference_any_more(stores: Stores) -> None:
    fill(stores)
    for key, state in states(stores).items():
        stores.step("one", key, delete=state == "unmatched")
    assert set(states(stores).values()) == {"fresh"}
