"""Bringing one replica up to date, whatever happens to the primary, the replica and the process meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from mscfs.errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    QuotaExceededError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from mscfs.types import STAMP_KEY
from tests.doubles import Scripted
from tests.replicas.stores import Stores, content

BODY = b"0123456789"
OTHER = b"ABCDEFGHIJ"


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path, piece=4, names=("one",))


class Killed(BaseException):
    pass


class TestPlain:
    def test_a_missing_copy_is_made(self, stores: Stores) -> None:
        written = stores.primary.inner.put("k", BODY, metadata={"m": "1"}, content_type="text/plain")
        result = stores.step()
        assert (result.outcome, result.bytes) == ("copied", 10)
        copy = stores.one.inner.head("k")
        assert content(stores.one) == BODY
        assert copy.stamped_version == written.version
        assert {**(copy.metadata or {}), STAMP_KEY: ""} == {"m": "1", STAMP_KEY: ""}
        assert copy.content_type == "text/plain"

    def test_a_fresh_copy_is_left_alone(self, stores: Stores) -> None:
        stores.everywhere()
        result = stores.step()
        assert (result.outcome, result.bytes) == ("fresh", 0)
        assert stores.one.called("put") == 0
        assert stores.primary.called("get") == 0

    def test_a_stale_copy_is_replaced(self, stores: Stores) -> None:
        stores.everywhere()
        stores.primary.inner.put("k", OTHER)
        assert stores.step().outcome == "copied"
        assert content(stores.one) == OTHER

    def test_new_metadata_is_copied_although_the_bytes_are_the_same(self, stores: Stores) -> None:
        stores.everywhere()
        stores.primary.inner.set_metadata("k", {"m": "2"})
        assert stores.step().outcome == "copied"
        assert (stores.one.inner.head("k").metadata or {})["m"] == "2"

    def test_an_object_the_primary_lacks_is_left_alone(self, stores: Stores) -> None:
        stores.one.inner.put("k", BODY)
        assert stores.step().outcome == "absent"
        assert content(stores.one) == BODY
        assert stores.one.calls == []

    def test_W8_it_is_deleted_where_that_is_wanted(self, stores: Stores) -> None:
        stores.one.inner.put("k", BODY)
        assert stores.step(delete=True).outcome == "deleted"
        assert content(stores.one) is None

    def test_a_delete_copies_when_the_primary_has_the_object(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        assert stores.step(delete=True).outcome == "copied"

    def test_an_object_written_anew_while_its_copy_is_deleted_is_copied(self, stores: Stores) -> None:
        stores.one.inner.put("k", BODY)
        stores.one.on("delete", lambda key: stores.primary.inner.put(key, OTHER), times=1)
        assert stores.step(delete=True).outcome == "copied"
        assert content(stores.one) == OTHER

    def test_an_empty_object(self, stores: Stores) -> None:
        stores.primary.inner.put("k", b"")
        assert stores.step().outcome == "copied"
        assert content(stores.one) == b""

    def test_symlinks_stay_links(self, stores: Stores) -> None:
        stores.primary.inner.make_symlink("k", "target")
        assert stores.step().outcome == "copied"
        assert stores.one.inner.head("k").symlink_target == "target"
        assert stores.step().outcome == "fresh"
        stores.primary.inner.make_symlink("k", "elsewhere")
        assert stores.step().outcome == "copied"
        stores.primary.inner.put("k", BODY)
        assert stores.step().outcome == "copied"
        assert content(stores.one) == BODY
        assert stores.one.inner.head("k").symlink_target is None

    def test_directories(self, stores: Stores) -> None:
        stores.primary.inner.make_directory("d/")
        assert stores.step(key="d/").outcome == "copied"
        assert stores.one.inner.has_directory("d/")
        assert stores.step(key="d/").outcome == "fresh"
        stores.primary.inner.remove_directory("d/")
        assert stores.step(key="d/").outcome == "absent"
        assert stores.one.inner.has_directory("d/")
        assert stores.step(key="d/", delete=True).outcome == "deleted"
        assert not stores.one.inner.has_directory("d/")

    def test_a_directory_that_still_holds_something_on_the_replica_stays(self, stores: Stores) -> None:
        stores.one.inner.make_directory("d/")
        stores.one.inner.put("d/x", BODY)
        assert stores.step(key="d/", delete=True).outcome == "absent"
        assert content(stores.one, "d/x") == BODY

    def test_a_directory_removed_while_it_was_made_is_not_brought_back(self, stores: Stores) -> None:
        stores.primary.inner.make_directory("d/")
        stores.one.on("make_directory", stores.primary.inner.remove_directory)
        stores.step(key="d/")
        assert not stores.one.inner.has_directory("d/")

    def test_large_objects_are_streamed(self, stores: Stores) -> None:
        """What the source has delivered and the replica has not taken stays small."""
        stores.one.piece = stores.primary.piece = 1 << 20
        ahead: list[int] = []
        taken = 0

        class Streaming(Scripted):
            def put(self, key, source, **rest):  # type: ignore[no-untyped-def]
                nonlocal taken
                for piece in source:
                    taken += len(piece)
                    ahead.append(stores.primary.served - taken)
                return self.inner.put(key, bytes(taken), **rest)

        object.__setattr__(stores.manager.replicas[0], "provider", Streaming(stores.one.inner))
        stores.primary.inner.put("k", bytes(64 << 20))
        assert stores.step().outcome == "copied"
        assert taken == 64 << 20
        assert max(ahead) <= 4 << 20


class TestSource:
    def test_a_near_replica_rather_than_the_far_primary(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path)
        stores.primary.inner.put("k", BODY)
        stores.step("one")
        stores.forget()
        stores.step("two")
        assert stores.one.called("get") == 1
        assert stores.primary.called("get") == 0

    def test_never_the_replica_that_is_written(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path)
        stores.everywhere()
        stores.primary.inner.put("k", OTHER)
        stores.forget()
        stores.step("one")
        assert stores.one.called("get") == 0
        assert content(stores.one) == OTHER

    def test_a_stale_replica_is_no_source(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path)
        stores.everywhere()
        stores.primary.inner.put("k", OTHER)
        stores.step("two")
        assert content(stores.two) == OTHER

    def test_a_replica_that_a_write_has_not_reached_holds_up_no_other(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path)
        stores.manager.put("k", BODY)
        stores.one.on("get", StoreTimeoutError("no answer in time", store="one"))
        assert stores.step("two").outcome == "copied"
        assert stores.one.called("get") == 0
        assert stores.manager.replica("one").health.healthy
        assert content(stores.two) == BODY

    def test_R5_a_source_that_breaks_off_is_replaced(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path, piece=3)
        stores.primary.inner.put("k", BODY)
        stores.step("one")
        stores.one.on("get", StoreUnavailableError("reset", store="one"), at=6)
        assert stores.step("two").outcome == "copied"
        assert content(stores.two) == BODY

    def test_a_copy_makes_no_wishes(self, tmp_path: Path) -> None:
        stores = Stores(tmp_path)
        stores.primary.inner.put("k", BODY)
        stores.step("two")
        assert stores.wishes() == set()


class TestTrouble:
    def test_a_primary_that_is_down(self, stores: Stores) -> None:
        stores.everywhere()
        stores.primary.go_down()
        with pytest.raises(StoreUnavailableError):
            stores.step()
        assert content(stores.one) == BODY
        assert stores.one.calls == []
        assert stores.manager.replicas[0].health.healthy

    def test_a_primary_known_to_be_down_is_not_asked_for_each_wish(self, stores: Stores) -> None:
        stores.primary.go_down(StoreTimeoutError("silent"))
        for number in range(20):
            with pytest.raises(StoreUnavailableError):
                stores.step(key=f"k{number}")
        assert len(stores.primary.calls) == 1

    def test_a_replica_that_is_down(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.one.go_down(StoreTimeoutError("silent", store="one"))
        with pytest.raises(StoreTimeoutError):
            stores.step()
        assert not stores.manager.replicas[0].health.healthy

    def test_a_replica_that_was_not_asked_is_no_healthier_afterwards(self, stores: Stores) -> None:
        stores.manager.replicas[0].health.failed(StoreTimeoutError("silent"))
        assert stores.step(key="missing").outcome == "absent"
        assert not stores.manager.replicas[0].health.healthy

    def test_a_replica_that_is_back_is_healthy_again(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.manager.replicas[0].health.failed(StoreTimeoutError("silent"))
        stores.step()
        assert stores.manager.replicas[0].health.healthy

    def test_a_full_replica_keeps_its_old_copy(self, stores: Stores) -> None:
        stores.everywhere()
        stores.primary.inner.put("k", OTHER)
        stores.one.on("put", QuotaExceededError("full", store="one"))
        with pytest.raises(QuotaExceededError):
            stores.step()
        assert content(stores.one) == BODY

    def test_a_primary_that_refuses_the_bytes(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.primary.on("get", AccessDeniedError("you", store="primary"))
        with pytest.raises(AccessDeniedError):
            stores.step()
        assert stores.manager.replicas[0].health.healthy

    def test_a_source_that_ends_early_leaves_no_part(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.primary.truncated_at = 5
        with pytest.raises((IntegrityError, StoreUnavailableError)):
            stores.step()
        assert content(stores.one) is None

    def test_an_object_that_changes_all_the_time_is_postponed(self, stores: Stores) -> None:
        stores.primary.inner.put("k", BODY)
        stores.one.on("put", lambda key: stores.primary.inner.put(key, OTHER))
        with pytest.raises(StoreUnavailableError, match="keeps changing"):
            stores.step()

    def test_a_replica_that_is_not_configured_is_a_KeyError(self, stores: Stores) -> None:
        with pytest.raises(KeyError):
            stores.step("gone")


def overwrite(stores: Stores) -> None:
    stores.primary.inner.put("k", OTHER)


def delete(stores: Stores) -> None:
    stores.primary.inner.delete("k")


def recreate(stores: Stores) -> None:
    stores.primary.inner.delete("k")
    stores.primary.inner.put("k", OTHER)


EVENTS = [overwrite, delete, recreate]
COPIES: list[bytes | None] = [None, b"9876543210"]
"""What the replica holds before: nothing, or an older copy."""


def prepare(directory: Path, before: bytes | None) -> Stores:
    stores = Stores(directory, piece=4, names=("one",))
    if before is not None:
        stores.everywhere(content=before)
    stores.primary.inner.put("k", BODY)
    stores.forget()
    return stores


def count_steps(directory: Path, before: bytes | None) -> int:
    stores = prepare(directory, before)
    assert stores.step().outcome == "copied"
    return len(stores.script.steps)


def settled(stores: Stores, before: bytes | None) -> None:
    """The replica is what the primary is; or the primary has none, and the replica what it had before."""
    present = content(stores.primary)
    copy = content(stores.one)
    if present is not None:
        assert copy == present
        assert stores.one.inner.head("k").stamped_version == stores.primary.inner.head("k").version
    elif before is None:
        assert copy is None, "a deleted object came back"
    else:
        assert copy is not None


@pytest.mark.parametrize("before", COPIES, ids=["missing", "stale"])
@pytest.mark.parametrize("event", EVENTS)
def test_whatever_happens_to_the_primary_at_any_point_of_a_copy(
    tmp_path: Path, event: Callable[[Stores], None], before: bytes | None
) -> None:
    (tmp_path / "count").mkdir()
    steps = count_steps(tmp_path / "count", before)
    assert steps > 6
    for number in range(steps):
        (tmp_path / str(number)).mkdir()
        stores = prepare(tmp_path / str(number), before)
        stores.script.actions[number] = lambda stores=stores: event(stores)  # type: ignore[misc]
        stores.step()
        if number < steps - 1:
            settled(stores, before)
        else:
            # After the last look at the primary: the event makes a wish of its own, or a read finds out.
            stores.step()
            settled(stores, before if event is not delete else BODY)


@pytest.mark.parametrize("before", COPIES, ids=["missing", "stale"])
def test_W2_a_crash_at_any_point_of_a_copy_leaves_the_old_copy_or_the_new_and_the_wish(
    tmp_path: Path, before: bytes | None
) -> None:
    (tmp_path / "count").mkdir()
    for number in range(count_steps(tmp_path / "count", before)):
        (tmp_path / str(number)).mkdir()
        stores = prepare(tmp_path / str(number), before)
        stores.manager.put("k", BODY)
        stores.forget()
        (claimed,) = stores.journal.claim(1)

        def kill() -> None:
            raise Killed

        stores.script.actions[number] = kill
        with pytest.raises(Killed):
            stores.step(delete=claimed.kind == "delete")
        assert content(stores.one) in {before, BODY}
        assert stores.journal.pending() == 1
        stores.journal.release(claimed)
        stores.carry_out()
        settled(stores, before)
        assert stores.journal.pending() == 0


@pytest.mark.parametrize("event", EVENTS)
def test_W8_a_crash_and_an_event_at_any_two_points_are_never_served(
    tmp_path: Path, event: Callable[[Stores], None]
) -> None:
    (tmp_path / "count").mkdir()
    steps = count_steps(tmp_path / "count", None)
    for number, (early, late) in enumerate(itertools.combinations(range(steps), 2)):
        (tmp_path / str(number)).mkdir()
        stores = prepare(tmp_path / str(number), None)

        def kill() -> None:
            raise Killed

        stores.script.actions[early] = lambda stores=stores: event(stores)  # type: ignore[misc]
        stores.script.actions[late] = kill
        with contextlib.suppress(Killed):
            stores.step()
        stores.script.actions.clear()
        present = content(stores.primary)
        if present is None:
            with pytest.raises(NotFoundError):
                stores.read()
        else:
            assert stores.read() == present


def another_then_overwrite(stores: Stores) -> None:
    """As the next ones: another mount of the profile does the same work, at the worst moment."""
    stores.step()
    overwrite(stores)


def overwrite_then_another(stores: Stores) -> None:
    overwrite(stores)
    stores.step()


def delete_then_pruned(stores: Stores) -> None:
    delete(stores)
    stores.step(delete=True)


def pruned_and_made_anew(stores: Stores) -> None:
    delete_then_pruned(stores)
    overwrite(stores)


@pytest.mark.parametrize(
    "event", [another_then_overwrite, overwrite_then_another, delete_then_pruned, pruned_and_made_anew]
)
def test_W8_two_mounts_that_copy_and_prune_one_key(tmp_path: Path, event: Callable[[Stores], None]) -> None:
    (tmp_path / "count").mkdir()
    steps = count_steps(tmp_path / "count", None)
    for number in range(steps):
        (tmp_path / str(number)).mkdir()
        stores = prepare(tmp_path / str(number), None)
        stores.script.actions[number] = lambda stores=stores: event(stores)  # type: ignore[misc]
        if stores.step().outcome == "fresh" or number == steps - 1:
            stores.step()  # the event came after the last look, and makes a wish of its own
        settled(stores, None)


class TestTwoAtOnce:
    def test_two_steps_for_one_key_and_an_overwrite_end_with_the_newest(self, tmp_path: Path) -> None:
        """The one that read the old version writes last, and looks again."""
        stores = Stores(tmp_path, piece=4, names=("one",))
        stores.primary.inner.put("k", BODY)
        reached, go_on = threading.Event(), threading.Event()

        def hold(_: str) -> None:
            reached.set()
            assert go_on.wait(10)

        stores.one.on("put", hold, times=1)
        slow = threading.Thread(target=stores.step)
        slow.start()
        assert reached.wait(10)
        stores.primary.inner.put("k", OTHER)
        assert stores.step().outcome == "copied"
        assert content(stores.one) == OTHER
        go_on.set()
        slow.join()
        settled(stores, None)

    def test_many_steps_and_overwrites_at_once(self, stores: Stores) -> None:
        barrier = threading.Barrier(6)
        failures: list[BaseException] = []

        def work(number: int) -> None:
            barrier.wait()
            try:
                for turn in range(20):
                    if number < 2:
                        stores.manager.put("k", f"{number}-{turn:06}".encode())
                    else:
                        stores.step()
            except StoreUnavailableError:
                pass  # it kept changing
            except BaseException as error:  # noqa: BLE001 - shown below
                failures.append(error)

        stores.primary.inner.put("k", BODY)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        stores.carry_out()
        settled(stores, None)
