"""A source that fails in the middle is replaced at the same offset; never a mixture of two versions (R1, R5)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mscfs.errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    StorageError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.replicas.search import FORGIVEN_AFTER, TRIES_PER_SOURCE
from mscfs.types import STAMP_KEY, ByteRange
from tests.doubles import Scripted
from tests.replicas.stores import Stores

BODY = b"0123456789"
OTHER = b"ABCDEFGHIJ"
FAILURES = [
    NotFoundError("deleted meanwhile"),
    AccessDeniedError("expired"),
    StoreUnavailableError("503"),
    StoreUnavailableError("reset"),
    StoreTimeoutError("silent"),
    IntegrityError("short"),
    VersionMismatchError("replaced meanwhile"),
]
by_failure = pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{type(failure).__name__}-{failure}")
by_offset = pytest.mark.parametrize("offset", range(len(BODY) + 1))


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    stores = Stores(tmp_path, piece=3)
    stores.everywhere()
    return stores


@by_failure
@by_offset
def test_R5_fails_over_at_every_offset(stores: Stores, failure: StorageError, offset: int) -> None:
    stores.one.on("get", failure, at=offset)
    assert stores.read() == BODY
    if offset < len(BODY):
        assert stores.two.ranges == [ByteRange(offset, len(BODY) - offset)]
    assert stores.primary.called("get") == 0


@by_failure
@by_offset
def test_R5_fails_over_again_when_the_second_source_fails_too(
    stores: Stores, failure: StorageError, offset: int
) -> None:
    stores.one.on("get", failure, at=2)
    stores.two.on("get", failure, at=offset)
    assert stores.read() == BODY


@by_failure
def test_R5_fails_over_when_a_source_fails_at_once(stores: Stores, failure: StorageError) -> None:
    stores.one.on("get", failure)
    stores.two.on("get", failure)
    assert stores.served_by() == "primary"


@by_offset
def test_R5_an_answer_that_ends_early_is_continued_elsewhere(stores: Stores, offset: int) -> None:
    stores.one.truncated_at = offset
    assert stores.read() == BODY
    stores.two.truncated_at = min(offset + 1, len(BODY))
    assert stores.read() == BODY


def test_R5_the_end_of_an_answer_that_is_too_long_is_read_elsewhere(stores: Stores) -> None:
    stores.one.excess = b"XX"
    with stores.manager.get("k") as reader:
        assert reader.read_all() == BODY
        assert reader.errors == {"one": 1}
        assert reader.source == "two"


def test_R5_a_connection_that_breaks_behind_the_last_byte_costs_nothing(stores: Stores) -> None:
    stores.one.on("get", StoreUnavailableError("reset"), at=len(BODY))
    assert stores.read() == BODY
    assert stores.two.calls == []


def test_R5_excess_within_the_last_piece_is_read_elsewhere(stores: Stores) -> None:
    class Overlong(Scripted):
        def deliver(self, key, offset, data):  # type: ignore[no-untyped-def]
            yield data[:4]
            yield bytes(data[4:]) + b"XX"

    overlong = Overlong(stores.one.inner)
    object.__setattr__(stores.manager.replicas[0], "provider", overlong)
    assert stores.read() == BODY
    assert stores.two.ranges == [ByteRange(4, 6)]


def test_R5_another_range_than_asked_for_is_not_taken(stores: Stores) -> None:
    class Deaf(Scripted):
        """A server that does not know ranges."""

        def get(self, key, byte_range=None, *, expected=None):  # type: ignore[no-untyped-def]
            return super().get(key, None, expected=expected)

    object.__setattr__(stores.manager.replicas[0], "provider", Deaf(stores.one.inner))
    assert stores.read(byte_range=ByteRange(3, 4)) == b"3456"


@by_offset
@pytest.mark.parametrize("is_current", [True, False], ids=["current", "replaced"])
def test_R1_what_another_tools_copy_began_is_not_continued_from_a_copy_of_another_version(
    tmp_path: Path, offset: int, is_current: bool
) -> None:
    """Only its age speaks for the first copy: it may be newer than the version that was opened, as the primary is."""
    stores = Stores(tmp_path, piece=3, tells_hashes=False)
    pinned = stores.primary.inner.put("k", BODY).version
    stores.two.inner.put("k", BODY, metadata={STAMP_KEY: pinned.stamp()})
    newest = BODY if is_current else OTHER
    if not is_current:
        stores.primary.inner.put("k", OTHER)
    stores.one.inner.put("k", newest)
    stores.one.on("get", StoreUnavailableError("reset"), at=offset)
    if is_current or offset == len(BODY):
        assert stores.read(expected=pinned) == newest
    elif offset:
        with pytest.raises(VersionMismatchError):
            stores.read(expected=pinned)
    else:
        assert stores.read(expected=pinned) == BODY


@by_offset
def test_R1_an_overwrite_under_the_reader_is_no_mixture(stores: Stores, offset: int) -> None:
    """The first source fails just when all others hold a newer version already."""

    def overwrite(key: str) -> None:
        stores.primary.inner.put(key, OTHER)
        stores.two.inner.put(key, OTHER)
        raise StoreUnavailableError("reset", store="one")

    stores.one.on("get", overwrite, at=offset, times=1)
    # Its copy is still of the old version, so it is turned to again.
    assert stores.read() == BODY


@by_offset
def test_R1_when_nobody_has_the_version_any_more_the_read_ends_with_an_error(stores: Stores, offset: int) -> None:
    def overwrite(key: str) -> None:
        for store in stores.everyone():
            store.inner.put(key, OTHER)
        raise IntegrityError("not what was promised", store="one")

    stores.one.on("get", overwrite, at=offset, times=1)
    with stores.manager.get("k") as reader, pytest.raises((VersionMismatchError, IntegrityError)):
        reader.read_all()


def test_R1_unhashed_unstamped_copies_are_no_mixture_either(tmp_path: Path) -> None:
    """Two replicas filled by another tool, at different times; the primary is down, so nobody knows which is right."""
    stores = Stores(tmp_path, piece=3, tells_hashes=False)
    stores.one.inner.put("k", BODY)
    stores.two.inner.put("k", OTHER)
    stores.primary.go_down()
    stores.one.on("get", StoreUnavailableError("reset", store="one"), at=5)
    with stores.manager.get("k") as reader, pytest.raises(StoreUnavailableError):
        reader.read_all()


@pytest.mark.parametrize("same", [True, False])
def test_R1_a_handle_pinned_to_a_replica_goes_on_at_the_primary_if_that_holds_the_same(
    tmp_path: Path, *, same: bool
) -> None:
    stores = Stores(tmp_path, piece=3, names=("one",))
    stores.one.inner.put("k", BODY)
    stores.primary.inner.put("k", BODY if same else OTHER)
    stores.primary.go_down()
    pinned = stores.manager.head("k").version
    stores.primary.recover()
    stores.clock.now += 5
    stores.one.on("get", StoreUnavailableError("reset", store="one"), at=5)
    if same:
        assert stores.read(expected=pinned) == BODY
    else:
        with stores.manager.get("k", expected=pinned) as reader, pytest.raises(StoreUnavailableError):
            reader.read_all()


class TestOneSource:
    """Nobody else can serve: a single reset must not end a read."""

    @pytest.fixture
    def alone(self, tmp_path: Path) -> Stores:
        stores = Stores(tmp_path, piece=1, names=())
        stores.primary.inner.put("k", BODY)
        return stores

    def test_R5_it_is_tried_again_a_few_times(self, alone: Stores) -> None:
        for offset in range(TRIES_PER_SOURCE - 1):
            alone.primary.on("get", StoreUnavailableError("reset"), at=offset + 3, times=1)
        assert alone.read() == BODY
        assert [asked.offset for asked in alone.primary.ranges] == [0, 3, 4]

    def test_R5_but_not_for_ever(self, alone: Stores) -> None:
        alone.primary.on("get", StoreUnavailableError("reset"), at=3)
        with alone.manager.get("k") as reader, pytest.raises(StoreUnavailableError, match="reset"):
            reader.read_all()
        assert len(alone.primary.ranges) == TRIES_PER_SOURCE

    def test_R5_a_silent_one_is_tried_twice(self, alone: Stores) -> None:
        """Each time-out costs seconds, and the whole read has a deadline."""
        alone.primary.go_down(StoreTimeoutError("silent"))
        with pytest.raises(StoreTimeoutError):
            alone.read()
        assert alone.primary.called("get") == 1
        alone.primary.recover()
        alone.primary.on("get", StoreTimeoutError("silent"), at=3)
        with alone.manager.get("k") as reader, pytest.raises(StoreTimeoutError):
            reader.read_all()
        assert len(alone.primary.ranges) == 2

    def test_R1_the_second_attempt_is_of_the_same_version(self, alone: Stores) -> None:
        def overwrite(key: str) -> None:
            alone.primary.inner.put(key, OTHER)
            raise StoreUnavailableError("reset")

        alone.primary.on("get", overwrite, at=5, times=1)
        with alone.manager.get("k") as reader, pytest.raises((VersionMismatchError, StoreUnavailableError)):
            reader.read_all()

    def test_R5_a_long_read_survives_more_resets_than_a_short_one(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, names=())
        size = 6 * FORGIVEN_AFTER
        body = bytes(1 << 20) * (size >> 20)
        stores.primary.inner.put("k", body)
        for number in range(1, 6):
            stores.primary.on("get", StoreUnavailableError("reset"), at=number * FORGIVEN_AFTER, times=1)
        assert stores.read() == body


class TestHealth:
    def test_R9_a_store_that_opens_everything_and_delivers_nothing_is_skipped_soon(self, stores: Stores) -> None:
        stores.one.on("get", StoreUnavailableError("reset"), at=3)
        for _ in range(3):
            assert stores.read() == BODY
        stores.forget()
        assert stores.read() == BODY
        assert stores.one.calls == []

    def test_a_reader_that_loses_interest_leaves_the_store_healthy(self, stores: Stores) -> None:
        stores.one.on("get", StoreTimeoutError("silent"), times=1)
        stores.read()
        stores.clock.now += 2
        for _ in range(2):
            with stores.manager.get("k") as reader:
                assert next(iter(reader))
                assert reader.source == "one"
            assert stores.manager.replicas[0].health.healthy

    def test_closing_an_answer_twice_or_before_it_was_read_is_harmless(self, stores: Stores) -> None:
        reader = stores.manager.get("k")
        reader.close()
        reader.close()

    def test_errors_of_closing_are_nobodys(self, stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(self: object) -> None:
            raise StoreUnavailableError("reset while closing")

        monkeypatch.setattr("tests.doubles._ScriptedReader.close", fail)
        stores.one.on("get", StoreUnavailableError("reset"), at=3)
        assert stores.read() == BODY

    def test_every_answer_is_closed(self, stores: Stores) -> None:
        stores.one.inner.put("k", OTHER)
        stores.two.on("get", StoreUnavailableError("reset"), at=3)
        before = [store.closed_answers for store in stores.everyone()]
        assert stores.read() == BODY
        after = [store.closed_answers for store in stores.everyone()]
        assert [late - early for early, late in zip(before, after, strict=True)] == [1, 1, 1]

    def test_an_answer_that_is_not_taken_because_of_a_bug_is_closed(
        self, stores: Stores, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def bug(*_: object, **__: object) -> str:
            raise ZeroDivisionError

        stores.forget()
        before = stores.one.closed_answers
        monkeypatch.setattr("mscfs.replicas.search.evidence_of", bug)
        with pytest.raises(ZeroDivisionError):
            stores.read()
        assert stores.one.closed_answers == before + 1
