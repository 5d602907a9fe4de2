"""Read order, freshness, ranges and back-fill of the manager (R3, R4, R6, R7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from mscfs.errors import (
    AccessDeniedError,
    NotFoundError,
    StorageError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.journal import Journal
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
from mscfs.types import STAMP_KEY, ByteRange, Version
from tests.replicas.stores import Stores, memory

BODY = b"0123456789"


class TestOrder:
    def test_R3_the_first_replica_serves(self, stores: Stores) -> None:
        stores.everywhere()
        assert stores.served_by() == "one"
        assert stores.two.calls == []
        assert stores.primary.called("get") == 0

    def test_R3_then_the_next_then_the_primary(self, stores: Stores) -> None:
        stores.everywhere()
        stores.one.inner.delete("k")
        assert stores.served_by() == "two"
        stores.two.inner.delete("k")
        assert stores.served_by() == "primary"

    def test_R3_equal_priorities_in_the_order_listed(self, tmp_path: Path) -> None:
        # The configuration sorts; the manager keeps the order it is given.
        replicas = [Replica(name, memory(name), read_priority=1, index=at) for at, name in enumerate("bac")]
        manager = ReplicaManager(Source("p", memory("p")), replicas, Journal(tmp_path / "j"))
        manager.put("k", BODY)
        for replica in replicas:
            replica.provider.put("k", BODY)
        assert manager.get("k").source == "b"

    def test_R3_unhealthy_replicas_are_skipped(self, stores: Stores) -> None:
        stores.everywhere()
        stores.one.go_down(StoreTimeoutError("silent", store="one"))
        assert stores.served_by() == "two"
        stores.forget()
        assert stores.served_by() == "two"
        assert stores.one.calls == [], "a silent replica costs one time-out, not one for each read"

    def test_R9_a_replica_is_tried_again_and_used_when_it_is_back(self, stores: Stores) -> None:
        stores.everywhere()
        stores.one.go_down(StoreTimeoutError("silent", store="one"))
        stores.read()
        stores.one.recover()
        assert stores.served_by() == "two"
        stores.clock.now += 2
        assert stores.served_by() == "one"

    def test_no_store_needs_two_requests_without_replicas(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, names=())
        stores.primary.inner.put("k", BODY)
        assert stores.read() == BODY
        assert stores.primary.calls == [("get", "k")]

    def test_a_missing_key_is_one_request_to_the_primary(self, stores: Stores) -> None:
        with pytest.raises(NotFoundError):
            stores.read()
        assert stores.primary.calls == [("head", "k")]
        assert stores.one.calls == stores.two.calls == []

    def test_replicas_need_a_journal(self) -> None:
        with pytest.raises(ValueError, match="journal"):
            ReplicaManager(Source("p", memory("p")), [Replica("r", memory("r"))], None)

    def test_a_replica_that_is_not_configured_is_a_KeyError(self, stores: Stores) -> None:
        assert stores.manager.replica("two").index == 1
        with pytest.raises(KeyError):
            stores.manager.replica("gone")


class TestFreshness:
    def test_R4_an_overwritten_object_is_never_read_from_an_old_copy(self, stores: Stores) -> None:
        stores.everywhere()
        stores.primary.inner.put("k", b"ABCDEFGHIJ")
        assert stores.read() == b"ABCDEFGHIJ"
        assert stores.wishes() == {("one", "k", "back-fill"), ("two", "k", "back-fill")}

    def test_R4_without_hashes_the_stamp_decides(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, tells_hashes=False)
        stores.everywhere()
        assert stores.served_by() == "one"
        stores.primary.inner.put("k", b"ABCDEFGHIJ")
        assert stores.read() == b"ABCDEFGHIJ"

    def test_R4_a_pinned_read_asks_the_primary_nothing(self, stores: Stores) -> None:
        version = stores.everywhere().version
        assert stores.read(expected=version) == BODY
        assert stores.primary.calls == []
        assert stores.one.calls == [("get", "k")]

    @pytest.mark.parametrize("tells_hashes", [True, False])
    def test_R4_another_tools_copy_serves(self, tmp_path: Path, *, tells_hashes: bool) -> None:
        stores = Stores(tmp_path, tells_hashes=tells_hashes)
        version = stores.primary.inner.put("k", BODY).version
        stores.one.inner.put("k", BODY)
        with stores.manager.get("k", expected=version) as reader:
            assert reader.read_all() == BODY
            assert reader.source == "one"
            assert reader.metadata.version == version, "to the caller it is the primary's version"
        assert stores.primary.calls == []

    def test_R4_another_tools_older_copy_does_not(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, tells_hashes=False)
        stores.one.inner.put("k", b"ABCDEFGHIJ")
        stores.primary.inner.put("k", BODY)
        assert stores.read() == BODY

    def test_R4_an_answer_that_carries_no_metadata_is_not_taken_for_unstamped(self, tmp_path: Path) -> None:
        """An old stamped copy that arrived late is newer than the primary's object."""
        stores = Stores(tmp_path, tells_hashes=False)
        old = stores.primary.inner.put("k", b"ABCDEFGHIJ").version
        new = stores.primary.inner.put("k", BODY).version
        stores.one.inner.put("k", b"ABCDEFGHIJ", metadata={STAMP_KEY: old.stamp()})
        stores.two.inner.put("k", BODY, metadata={STAMP_KEY: new.stamp()})
        stores.one.tells_metadata_with_get = stores.two.tells_metadata_with_get = False
        assert stores.read() == BODY
        assert stores.served_by() == "two"
        assert stores.two.called("head") == 2

    def test_R1_a_part_of_another_tools_copy_counts_only_while_the_primary_confirms_the_version(
        self, tmp_path: Path
    ) -> None:
        """The copy may be newer than the handle: it is not older than the pinned version either."""
        stores = Stores(tmp_path, tells_hashes=False)
        pinned = stores.primary.inner.put("k", BODY).version
        stores.primary.inner.put("k", b"ABCDEFGHIJ")
        stores.one.inner.put("k", b"ABCDEFGHIJ")
        with pytest.raises(VersionMismatchError):
            stores.read(byte_range=ByteRange(4, 2), expected=pinned)

    def test_R4_a_confirmed_copy_costs_one_request_to_the_primary_and_no_more(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, tells_hashes=False)
        version = stores.primary.inner.put("k", BODY).version
        stores.one.inner.put("k", BODY)
        for offset in range(8):
            assert stores.read(byte_range=ByteRange(offset, 2), expected=version) == BODY[offset : offset + 2]
        assert stores.primary.calls == [("head", "k")]
        stores.one.inner.put("k", BODY)
        stores.read(byte_range=ByteRange(0, 2), expected=version)
        assert stores.primary.called("head") == 2, "another copy"

    def test_R4_while_the_primary_is_down_another_tools_copy_counts_by_its_age(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, tells_hashes=False)
        version = stores.primary.inner.put("k", BODY).version
        stores.one.inner.put("k", BODY)
        stores.primary.go_down()
        assert stores.read(byte_range=ByteRange(4, 2), expected=version) == b"45"

    def test_R4_read_consistency_replica_takes_the_first_copy(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, read_consistency="replica")
        stores.everywhere()
        stores.primary.inner.put("k", b"ABCDEFGHIJ")
        assert stores.read() == BODY
        assert stores.primary.calls == []
        assert stores.manager.head("k").content_length == 10
        stores.one.inner.delete("k")
        stores.two.inner.delete("k")
        assert stores.read() == b"ABCDEFGHIJ"

    def test_read_consistency_replica_does_not_find_what_the_primary_lacks(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, read_consistency="replica")
        stores.one.go_down()
        with pytest.raises(NotFoundError):
            stores.read()
        with pytest.raises(NotFoundError):
            stores.manager.head("k")

    def test_the_callers_metadata_is_the_primarys(self, stores: Stores) -> None:
        written = stores.primary.inner.put("k", BODY, metadata={"m": "1"}, content_type="text/plain")
        stores.step("one")
        with stores.manager.get("k") as reader:
            assert reader.source == "one"
            assert reader.metadata.metadata == {"m": "1"}, "no stamp"
            assert reader.metadata.content_type == "text/plain"
            assert reader.metadata.version == written.version
            assert reader.metadata.last_modified == written.last_modified

    def test_an_object_replaced_between_the_two_requests_of_a_read_is_read_anew(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.primary.on("get", lambda key: stores.primary.inner.put(key, b"ABCDEFGHIJ"), times=1)
        assert stores.read() == b"ABCDEFGHIJ"

    def test_an_object_that_is_replaced_all_the_time_is_an_error_at_last(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.primary.on("get", lambda key: stores.primary.inner.put(key, BODY))
        with pytest.raises(StoreUnavailableError, match="keeps changing"):
            stores.read()


class TestVerdict:
    """What a pinned read ends with when no store has the version any more (R1)."""

    @pytest.fixture
    def pinned(self, stores: Stores) -> Version:
        version = stores.everywhere().version
        stores.primary.inner.put("k", b"ABCDEFGHIJ")
        return version

    def test_R1_open_handles_read_on_from_a_replica(self, stores: Stores, pinned: Version) -> None:
        assert stores.read(expected=pinned) == BODY
        stores.primary.inner.delete("k")
        assert stores.read(expected=pinned) == BODY

    def test_R1_overwritten_everywhere(self, stores: Stores, pinned: Version) -> None:
        for name in ("one", "two"):
            stores.step(name)
        with pytest.raises(VersionMismatchError):
            stores.read(expected=pinned)

    def test_R1_deleted_everywhere(self, stores: Stores, pinned: Version) -> None:
        for store in stores.everyone():
            store.inner.delete("k")
        with pytest.raises((NotFoundError, VersionMismatchError)):
            stores.read(expected=pinned)

    def test_R5_a_store_in_trouble_may_have_it(self, stores: Stores, pinned: Version) -> None:
        stores.step("two")
        stores.one.go_down()
        with pytest.raises(StoreUnavailableError):
            stores.read(expected=pinned)
        stores.one.recover()
        stores.clock.now += 10
        assert stores.read(expected=pinned) == BODY

    def test_a_replica_that_refuses_us_does_not_hide_the_primarys_answer(self, stores: Stores, pinned: Version) -> None:
        stores.step("two")
        stores.one.go_down(AccessDeniedError("expired", store="one"))
        with pytest.raises(VersionMismatchError):
            stores.read(expected=pinned)

    def test_the_primarys_refusal_is_told(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.primary.on("get", AccessDeniedError("you", store="primary"))
        with pytest.raises(AccessDeniedError):
            stores.read()


class TestRanges:
    def test_R7_only_the_range_is_asked_for_and_delivered(self, stores: Stores) -> None:
        body = bytes(range(256)) * 400
        version = stores.everywhere(content=body).version
        assert stores.read(byte_range=ByteRange(1000, 4096), expected=version) == body[1000:5096]
        assert stores.one.ranges == [ByteRange(1000, 4096)]
        assert [store.served for store in stores.everyone()] == [0, 4096, 0]

    def test_R7_also_when_a_source_fails_in_the_middle(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, piece=1000)
        body = bytes(range(256)) * 400
        version = stores.everywhere(content=body).version
        stores.one.on("get", StoreUnavailableError("reset", store="one"), at=3000)
        assert stores.read(byte_range=ByteRange(1000, 4096), expected=version) == body[1000:5096]
        assert stores.two.ranges == [ByteRange(3000, 2096)]
        assert sum(store.served for store in stores.everyone()) == 4096

    @pytest.mark.parametrize("byte_range", [ByteRange(10, 5), ByteRange(99, 1), ByteRange(3, 0)])
    def test_a_range_behind_the_end_is_empty(self, stores: Stores, byte_range: ByteRange) -> None:
        stores.everywhere()
        assert stores.read(byte_range=byte_range) == b""

    def test_an_empty_object(self, stores: Stores) -> None:
        stores.everywhere(content=b"")
        assert stores.read() == b""
        assert stores.served_by() == "one"


class TestBackFill:
    def test_R6_missing_and_stale_replicas_get_a_wish(self, stores: Stores) -> None:
        stores.everywhere()
        stores.one.inner.delete("k")
        stores.primary.inner.put("k", b"ABCDEFGHIJ")
        with stores.manager.get("k") as reader:
            assert reader.read_all() == b"ABCDEFGHIJ"
            assert reader.missing == ("one",)
            assert reader.stale == ("two",)
        assert stores.wishes() == {("one", "k", "back-fill"), ("two", "k", "back-fill")}
        assert {lag.bytes for lag in stores.journal.lag().values()} == {10}

    def test_R6_replicas_that_were_not_asked_get_none(self, stores: Stores) -> None:
        stores.everywhere()
        stores.two.inner.delete("k")
        assert stores.served_by() == "one"
        assert stores.wishes() == set()

    def test_R6_the_wish_is_there_before_the_first_byte(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        reader = stores.manager.get("k")
        assert stores.wishes() == {("one", "k", "back-fill"), ("two", "k", "back-fill")}
        reader.close()

    def test_R6_no_wish_for_read_only_replicas(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, read_only=("one",))
        stores.primary.inner.put("k", BODY)
        stores.read()
        assert stores.wishes() == {("two", "k", "back-fill")}

    def test_R6_no_wish_for_unhealthy_replicas(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.one.go_down(StoreTimeoutError("silent", store="one"))
        stores.read()
        assert stores.wishes() == {("two", "k", "back-fill")}

    def test_R6_replicas_found_missing_after_a_failure_get_a_wish_too(self, stores: Stores) -> None:
        stores.everywhere()
        stores.two.inner.delete("k")
        stores.one.on("get", StoreUnavailableError("reset", store="one"), at=5)
        with stores.manager.get("k") as reader:
            assert reader.read_all() == BODY
            assert reader.source == "primary"
            assert reader.missing == ("two",)
        assert stores.wishes() == {("two", "k", "back-fill")}

    def test_R6_reading_moves_no_bytes_to_replicas(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.read()
        assert stores.one.called("put") == stores.two.called("put") == 0

    def test_R6_a_journal_that_cannot_be_written_does_not_stop_a_read(
        self, stores: Stores, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        stores.primary.inner.put("k", BODY)
        stores.journal.path.write_bytes(b"damaged" * 1000)
        stores.journal.close()
        assert stores.read() == BODY
        assert "could not be recorded" in caplog.text

    def test_R6_wishes_of_reads_can_go_elsewhere(self, tmp_path: Path) -> None:
        recorded: list[object] = []
        manager = ReplicaManager(
            Source("p", memory("p")),
            [Replica("r", memory("r"))],
            Journal(tmp_path / "j"),
            record_back_fill=recorded.extend,
        )
        manager.put("k", BODY)
        manager.get("k").close()
        assert [wish.kind for wish in recorded] == ["back-fill"]  # type: ignore[attr-defined]

    def test_R6_back_filled_replicas_serve_the_next_read(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.read()
        stores.carry_out()
        assert stores.served_by() == "one"
        assert stores.wishes() == set()


class TestStatistics:
    def test_hits_and_bytes(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, piece=2)
        stores.everywhere()
        stores.one.on("get", StoreUnavailableError("reset", store="one"), at=4)
        before = [counts(source.statistics) for source in sources(stores)]
        assert stores.read() == BODY
        after = [counts(source.statistics) for source in sources(stores)]
        changes = [tuple(b - a for a, b in zip(one, two, strict=True)) for one, two in zip(before, after, strict=True)]
        assert changes == [(0, 0, 0), (1, 4, 1), (1, 6, 0)]

    def test_a_source_that_delivered_nothing_has_no_hit(self, stores: Stores) -> None:
        stores.everywhere()
        stores.one.on("get", StoreUnavailableError("reset", store="one"), at=0)
        hits = stores.manager.replicas[0].statistics.hits
        stores.read()
        assert stores.manager.replicas[0].statistics.hits == hits

    def test_a_read_that_was_given_up_counts_what_was_delivered(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, piece=2)
        stores.everywhere()
        before = stores.manager.replicas[0].statistics.bytes_read
        with stores.manager.get("k") as reader:
            next(iter(reader))
        assert stores.manager.replicas[0].statistics.bytes_read - before == 2


def sources(stores: Stores) -> list[Source]:
    return [stores.manager.primary_source, *stores.manager.replicas]


def counts(statistics: object) -> tuple[int, int, int]:
    return statistics.hits, statistics.bytes_read, statistics.errors  # type: ignore[attr-defined]


class TestLacking:
    """Replicas that are said to lack the object."""

    def read(self, stores: Stores, version: Version, *lacking: str) -> str:
        with stores.manager.open_version("k", None, version, lacking=lacking) as reader:
            assert reader.read_all() == BODY
            return reader.source

    def test_R3_they_are_not_asked_when_another_source_delivers(self, stores: Stores) -> None:
        version = stores.everywhere().version
        assert self.read(stores, version, "one") == "two"
        assert self.read(stores, version, "one", "two") == "primary"
        assert stores.one.calls == []
        assert stores.two.called("get") == 1

    def test_R6_the_wish_to_fill_them_is_the_same(self, stores: Stores) -> None:
        version = stores.primary.inner.put("k", BODY).version
        self.read(stores, version, "one")
        assert stores.one.calls == []
        assert stores.wishes() == {("one", "k", "back-fill"), ("two", "k", "back-fill")}

    def test_R5_they_are_asked_when_nobody_else_delivers(self, stores: Stores) -> None:
        version = stores.everywhere().version
        stores.two.inner.delete("k")
        stores.primary.go_down()
        with stores.manager.open_version("k", None, version, lacking=["one"]) as reader:
            assert reader.read_all() == BODY
            assert (reader.source, reader.missing, reader.skipped) == ("one", ("two",), ())
        assert stores.wishes() == {("two", "k", "back-fill")}

    def test_R5_also_in_the_middle_of_a_read(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, piece=3)
        version = stores.everywhere().version
        for store in (stores.two, stores.primary):
            store.on("get", StoreUnavailableError("reset", store=store.profile), at=3)
        assert self.read(stores, version, "one") == "one"
        assert [each.offset for each in stores.one.ranges] == [3]

    def test_when_nobody_has_it_each_was_asked(self, stores: Stores) -> None:
        version = stores.primary.inner.put("k", BODY).version
        stores.primary.inner.delete("k")
        with pytest.raises(StorageError):
            self.read(stores, version, "one", "two")
        assert [store.called("get") for store in stores.everyone()] == [1, 1, 1]

    def test_R9_an_unhealthy_one_is_asked_last_of_all(self, stores: Stores) -> None:
        version = stores.everywhere().version
        for _ in range(3):
            stores.manager.replica("one").failed(StoreUnavailableError("reset"))
        stores.primary.go_down()
        assert self.read(stores, version, "one", "two") == "two"
        assert stores.one.calls == []
