"""A replica whose metadata lie, or make no sense: it may be of no use, and never does harm (R4, L5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscfs.types import STAMP_KEY, Version
from tests.replicas.stores import Stores

BODY = b"0123456789"
numbers = st.one_of(st.integers(), st.integers(-(10**40), 10**40), st.just(10**4000))
stamps = st.one_of(st.text(), st.builds("1 {} {} {}".format, numbers, numbers, st.text()))


@given(stamps)
def test_L5_any_text_may_pass_for_a_stamp(stamp: str) -> None:
    version = Version.from_stamp(stamp)
    assert version is None or (version.size >= 0 and 0 <= version.modified_ns < 1 << 63)


@pytest.mark.parametrize("modified", [-1, 10**19, 10**30, "x", ""])
def test_L5_a_stamp_with_an_impossible_time_makes_a_copy_useless_and_no_read_fail(
    stores: Stores, modified: object
) -> None:
    tag = stores.everywhere().tag
    stores.one.inner.put("k", BODY[::-1], metadata={STAMP_KEY: f"1 {len(BODY)} {modified} {tag}"})
    assert stores.read() == BODY
    stores.primary.go_down()
    assert stores.manager.head("k").content_length == len(BODY)


@pytest.mark.parametrize(
    "metadata", [{STAMP_KEY: "1 10"}, {STAMP_KEY: "\ud800"}, {STAMP_KEY: "x" * 100_000}, {"\x1b[2J": "\x1b"}]
)
def test_L5_senseless_metadata_of_a_copy_are_no_trouble(stores: Stores, metadata: dict[str, str]) -> None:
    stores.everywhere()
    stores.one.inner.put("k", BODY[::-1], metadata=metadata)
    stores.primary.inner.put("k", BODY)
    assert len(stores.read()) == len(BODY)
