from __future__ import annotations

import pickle
import threading
from dataclasses import replace
from functools import partial

import pytest

from mscfs.client import sync as module
from mscfs.client.sync import ReplicaSync, SyncResult
from mscfs.errors import (
    AccessDeniedError,
    ReadOnlyError,
    StoreMissingError,
    StoreUnavailableError,
    SyncError,
    UsageError,
)
from tests.client.stores import Gate, Store

pytestmark = pytest.mark.usefixtures("no_background")


@pytest.fixture
def client(world):
    made = world.client()
    for key in ("a", "d/1", "d/2", "d2/1"):
        made.write(key, key.encode())
    return made


def test_everything_missing_is_copied_with_its_stamp(world, client):
    result = client.sync_replicas()
    assert result == SyncResult(
        (
            ReplicaSync("near", copied=4, bytes=11),
            ReplicaSync("far", copied=4, bytes=11),
        )
    )
    assert world.near.keys() == world.far.keys() == ["a", "d/1", "d/2", "d2/1"]
    assert world.near.stamp("a") == world.primary.head("a").version


def test_a_second_time_there_is_nothing_to_do(world, client):
    client.sync_replicas()
    writes = world.near.calls["put"]
    result = client.sync_replicas()
    assert [(counts.fresh, counts.copied) for counts in result.replicas] == [(4, 0), (4, 0)]
    assert world.near.calls["put"] == writes


def test_after_a_sync_reads_come_from_the_first_replica(world, client):
    client.sync_replicas()
    world.primary.bytes_served = 0
    assert client.read("a") == b"a"
    assert world.primary.bytes_served == 0


def test_a_path_means_the_object_and_what_is_below_it(world, client):
    client.sync_replicas("d")
    assert world.near.keys() == ["d/1", "d/2"]
    client.sync_replicas("/a")
    assert world.near.keys() == ["a", "d/1", "d/2"]


def test_chosen_replicas(world, client):
    result = client.sync_replicas(replica_indices=[1])
    assert [counts.profile for counts in result.replicas] == ["far"]
    assert world.near.keys() == []
    with pytest.raises(UsageError, match="replica 2 does not exist"):
        client.sync_replicas(replica_indices=[2])
    with pytest.raises(UsageError, match="num_workers"):
        client.sync_replicas(num_workers=0)
    with pytest.raises(UsageError, match="no replicas"):
        client.replicas[0].sync_replicas()


def test_read_only_replicas_are_left_out_and_refused_when_named(world):
    world.read_only = frozenset({"near"})
    client = world.client()
    client.write("a", b"a")
    assert [counts.profile for counts in client.sync_replicas().replicas] == ["far"]
    with pytest.raises(ReadOnlyError, match="near"):
        client.sync_replicas(replica_indices=[0])
    world.read_only = frozenset({"near", "far"})
    with pytest.raises(ReadOnlyError):
        world.client().sync_replicas()


def test_R4_freshness_is_told_by_the_stamp_not_by_size_and_time(world, client):
    client.sync_replicas()
    client.write("a", b"b")
    assert len(world.near.content("a")) == len(b"b")
    result = client.sync_replicas()
    assert [counts.copied for counts in result.replicas] == [1, 1]
    assert world.near.content("a") == world.far.content("a") == b"b"


def test_a_change_while_it_is_copied_is_copied_too(world, client):
    changed = []

    def change(key):
        if key == "a" and not changed:
            changed.append(True)
            client.write("a", b"B")

    world.near.before["put"] = change
    client.sync_replicas(replica_indices=[0])
    assert world.near.content("a") == b"B"


@pytest.mark.parametrize("listed", [True, False], ids=["listed", "not listed"])
def test_R4_a_link_that_points_elsewhere_is_not_fresh(world, client, monkeypatch, listed):
    """All links have the same content, which is none."""
    if not listed:
        for store in (world.primary, world.near):
            monkeypatch.setattr(store, "list", partial(_list_without_metadata, store))
    keys = ("link", "was a link", "is a link")
    for key in keys:
        Store.make_symlink(world.near, key, "old")
    world.primary.make_symlink("link", "new")
    Store.put(world.primary, "was a link", b"")
    world.primary.make_symlink("is a link", "old")
    Store.put(world.near, "is a link", b"")
    for key in keys:
        dry = client.sync_replicas(key, replica_indices=[0], dryrun=True).replicas[0]
        done = client.sync_replicas(key, replica_indices=[0]).replicas[0]
        again = client.sync_replicas(key, replica_indices=[0]).replicas[0]
        assert [(counts.copied, counts.fresh) for counts in (dry, done, again)] == [(1, 0), (1, 0), (0, 1)]
    assert [world.near.head(key).symlink_target for key in keys] == ["new", None, "old"]


def _list_without_metadata(store, *arguments, **options):
    for entry in Store.list(store, *arguments, **options):
        yield replace(entry, metadata=None, symlink_target=None, type="file", content_hash="")


# -- deleting -------------------------------------------------------------------------------------------------------


@pytest.fixture
def surplus(world, client):
    client.sync_replicas()
    for key in ("b", "d/3", "z"):
        Store.put(world.near, key, b"surplus")
    client.delete("d/1")
    return client


def test_unmatched_objects_stay_unless_they_are_to_go(world, surplus):
    surplus.sync_replicas()
    assert world.near.keys() == ["a", "b", "d/1", "d/2", "d/3", "d2/1", "z"]
    result = surplus.sync_replicas(delete_unmatched_files=True)
    assert [counts.deleted for counts in result.replicas] == [4, 1]
    assert world.near.keys() == world.far.keys() == ["a", "d/2", "d2/1"]


def test_deleting_stays_below_the_path(world, surplus):
    surplus.sync_replicas("d", delete_unmatched_files=True)
    assert world.near.keys() == ["a", "b", "d/2", "d2/1", "z"]


@pytest.mark.parametrize("side", ["primary", "replica"])
def test_nothing_is_deleted_when_a_listing_breaks_off(world, surplus, side):
    store = world.primary if side == "primary" else world.near
    last = "d2/1"

    def break_off(key):
        if key == last:
            raise StoreUnavailableError("connection lost", store=store.profile)

    store.before["entry"] = break_off
    before = world.near.keys()
    with pytest.raises(SyncError, match="connection lost"):
        surplus.sync_replicas(delete_unmatched_files=True)
    assert world.near.keys() == before
    assert world.near.calls["delete"] == 0


def test_an_object_that_came_back_after_the_listing_is_not_deleted(world, surplus):
    def come_back(key):
        if key == "d2/1":
            Store.put(world.primary, "b", b"came back")

    world.primary.before["entry"] = come_back
    surplus.sync_replicas(delete_unmatched_files=True)
    assert world.near.keys() == ["a", "b", "d/2", "d2/1"]
    assert world.near.content("b") == b"came back"


def test_very_many_unmatched_keys_are_read_back_right(world, client, monkeypatch):
    for number in range(2000):
        Store.put(world.near, f"surplus/{'x' * 600}/{number}é\n", b"")
    result = client.sync_replicas(delete_unmatched_files=True)
    assert [counts.deleted for counts in result.replicas] == [2000, 0]
    assert world.near.keys() == ["a", "d/1", "d/2", "d2/1"]


# -- dry run --------------------------------------------------------------------------------------------------------


def test_a_dry_run_tells_what_would_be_done_and_changes_nothing(world, surplus):
    surplus.write("d/2", b"XXX")
    before = (world.near.keys(), world.near.calls["put"], world.near.calls["delete"])
    result = surplus.sync_replicas(delete_unmatched_files=True, dryrun=True)
    assert result.dryrun
    assert result.replicas[0] == ReplicaSync("near", copied=1, fresh=2, deleted=4, bytes=3)
    assert (world.near.keys(), world.near.calls["put"], world.near.calls["delete"]) == before


# -- failures -------------------------------------------------------------------------------------------------------


def test_a_failing_object_is_counted_and_raised_when_all_the_rest_is_done(world, client):
    world.near.before["put"] = lambda key: _deny() if key == "d/1" else None
    with pytest.raises(SyncError) as raised:
        client.sync_replicas()
    error = raised.value
    assert str(error) == "1 failed: near: d/1: not allowed"
    assert error.failures == (("near", "d/1", "not allowed"),)
    assert error.result.replicas[0] == ReplicaSync("near", copied=3, failed=1, bytes=8)
    assert world.far.keys() == ["a", "d/1", "d/2", "d2/1"]
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.failures, again.result) == (str(error), error.failures, error.result)


def _deny():
    raise AccessDeniedError("not allowed", store="near")


def test_a_replica_that_is_down_is_given_up_and_the_others_are_served(world, client, monkeypatch):
    monkeypatch.setattr(module, "MOST_FAILURES_IN_A_ROW", 3)
    for number in range(50):
        client.write(f"n{number}", b"x")
    world.near.before["put"] = lambda _: _unavailable()
    with pytest.raises(SyncError) as raised:
        client.sync_replicas(num_workers=2)
    assert "given up" in raised.value.failures[-1][2]
    assert world.near.calls["put"] < 10
    assert len(world.far.keys()) == 54


def _unavailable():
    raise StoreUnavailableError("unreachable", store="near")


def test_L6_a_replica_whose_disk_is_not_mounted_is_given_up_at_once(world, client):
    world.near.down = StoreMissingError("the directory is not there", store="near")
    with pytest.raises(SyncError, match="not there"):
        client.sync_replicas(num_workers=1)
    assert len(world.far.keys()) == 4


def test_the_replicas_do_not_wait_for_each_other(world, client):
    gate = Gate()
    world.near.before["put"] = gate
    done = threading.Event()

    def progress(counts):
        if counts == ReplicaSync("far", copied=4, bytes=11):
            done.set()

    worker = threading.Thread(target=lambda: client.sync_replicas(num_workers=1, on_progress=progress), daemon=True)
    worker.start()
    assert done.wait(20)
    gate.open()
    worker.join(20)
    assert not worker.is_alive()


def test_who_will_not_hear_of_the_progress_any_more_gets_his_own_error_and_waits_for_nobody(world, client):
    for number in range(50):  # more than the queue holds
        client.write(f"n{number}", b"x")
    ended = threading.Event()

    def refuse(_counts):
        raise BrokenPipeError("nobody reads")

    def sync():
        with pytest.raises(BrokenPipeError, match="nobody reads"):
            client.sync_replicas(num_workers=2, on_progress=refuse)
        ended.set()

    threading.Thread(target=sync, daemon=True).start()
    assert ended.wait(20)


def test_the_primary_being_down_is_a_failure_and_deletes_nothing(world, surplus):
    world.primary.fail()
    with pytest.raises(SyncError, match="near: data: unreachable; far: data: unreachable") as raised:
        surplus.sync_replicas(delete_unmatched_files=True)
    assert raised.value.failures[0] == ("near", "", "data: unreachable")
    assert world.near.calls["delete"] == 0
