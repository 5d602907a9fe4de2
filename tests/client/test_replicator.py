from __future__ import annotations

import threading
import time

import pytest

from mscfs.client.replicator import Replicator
from mscfs.errors import AccessDeniedError, NoSpaceError, StoreUnavailableError
from mscfs.journal import Journal, Wish
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
from tests.client.stores import Gate, Store


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "mscfs-replicator"]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr("mscfs.journal.journal.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("mscfs.replicas.health.FIRST_PAUSE", 0.05)
    monkeypatch.setattr("mscfs.client.replicator.SHORTEST_PAUSE", 0.02)


@pytest.fixture(autouse=True)
def no_threads_of_earlier_tests():
    wait_until(lambda: not threads())


class Pool:
    def __init__(self, path, *, threads=4, idle_seconds=0.2, replicas=("near",), read_only=()):
        self.primary = Store("data")
        self.stores = {name: Store(name) for name in replicas}
        made = [
            Replica(name, store, index=index, read_only=name in read_only)
            for index, (name, store) in enumerate(self.stores.items())
        ]
        self.journal = Journal(path / "journal.db")
        self.manager = ReplicaManager(Source("data", self.primary), made, self.journal)
        self.replicator = Replicator(self.manager, self.journal, threads=threads, idle_seconds=idle_seconds)

    def wish(self, *keys, replica="near"):
        self.journal.wish([Wish(replica, key, "replicate") for key in keys])
        self.replicator.wake()


@pytest.fixture
def pool(tmp_path):
    made = Pool(tmp_path)
    yield made
    made.replicator.stop(made.manager.close)


def test_nothing_runs_before_the_first_wish(pool):
    assert threads() == []
    pool.primary.put("k", b"x")
    pool.wish("k")
    wait_until(lambda: pool.journal.pending() == 0)
    assert pool.stores["near"].content("k") == b"x"


def test_the_pool_is_bounded_and_used(tmp_path):
    pool = Pool(tmp_path, threads=3)
    names = [f"k{number}" for number in range(10)]
    for name in names:
        pool.primary.put(name, b"x")
    gate = threading.Barrier(3)
    pool.stores["near"].before["put"] = lambda _: gate.wait(20) if pool.stores["near"].calls["put"] <= 3 else None
    pool.wish(*names)
    wait_until(lambda: pool.journal.pending() == 0)
    assert len(threads()) <= 3
    pool.replicator.stop(pool.manager.close)


def test_threads_end_when_there_is_nothing_to_do_and_come_back(pool):
    for key in ("a", "b"):
        pool.primary.put(key, b"x")
        pool.wish(key)
        wait_until(lambda: pool.journal.pending() == 0)
        wait_until(lambda: not threads())


def test_no_wish_is_lost_between_the_last_look_and_the_end_of_a_thread(tmp_path):
    pool = Pool(tmp_path, threads=1, idle_seconds=0.0)
    for number in range(200):
        pool.primary.put(f"k{number}", b"x")
        pool.wish(f"k{number}")
        wait_until(lambda: pool.journal.pending() == 0)


def test_W2_a_failed_wish_is_tried_again_when_it_is_due(pool):
    pool.primary.put("k", b"x")
    failures = iter([StoreUnavailableError("busy", store="near"), AccessDeniedError("no", store="near")])
    pool.stores["near"].before["put"] = lambda _: _raise_next(failures)
    pool.wish("k")
    wait_until(lambda: pool.journal.pending() == 0)
    assert pool.stores["near"].content("k") == b"x"


def _raise_next(failures):
    for failure in failures:
        raise failure


def test_a_bug_in_one_step_costs_one_copy_only(pool, caplog):
    pool.primary.put("bad", b"x")
    pool.primary.put("good", b"x")
    failures = iter([ZeroDivisionError("a bug")])
    pool.stores["near"].before["put"] = lambda key: _raise_next(failures) if key == "bad" else None
    pool.wish("bad", "good")
    wait_until(lambda: pool.journal.pending() == 0)
    assert pool.stores["near"].keys() == ["bad", "good"]
    assert "ZeroDivisionError" in caplog.text


def test_a_replica_in_trouble_is_tried_with_one_wish_at_a_time(tmp_path):
    pool = Pool(tmp_path, threads=4)
    near = pool.stores["near"]
    near.fail()
    names = [f"k{number}" for number in range(50)]
    for name in names:
        pool.primary.put(name, b"x")
    pool.wish(*names)
    wait_until(lambda: not pool.manager.replica("near").health.healthy)
    wait_until(lambda: near.calls["head"] >= 6)
    assert near.calls["head"] <= 20
    near.down = None
    wait_until(lambda: pool.journal.pending() == 0)
    assert near.keys() == sorted(names)
    pool.replicator.stop(pool.manager.close)


def test_a_slow_replica_does_not_hold_up_another(tmp_path):
    pool = Pool(tmp_path, threads=2, replicas=("near", "far"))
    gate = Gate()
    pool.stores["near"].before["put"] = gate
    names = [f"k{number}" for number in range(5)]
    for name in names:
        pool.primary.put(name, b"x")
    pool.wish(*names)
    gate.wait_reached()
    pool.wish(*names, replica="far")
    wait_until(lambda: pool.stores["far"].keys() == names)
    gate.open()
    wait_until(lambda: pool.journal.pending() == 0)
    pool.replicator.stop(pool.manager.close)


def test_wishes_of_unknown_and_read_only_replicas_stay_and_keep_nobody_busy(tmp_path):
    pool = Pool(tmp_path, replicas=("near", "far"), read_only=("far",))
    pool.primary.put("k", b"x")
    pool.wish("k", replica="gone")
    pool.wish("k", replica="far")
    wait_until(lambda: not threads())
    assert pool.journal.pending() == 2
    assert pool.stores["far"].keys() == []


def test_claims_of_dead_processes_are_taken_over(pool):
    pool.primary.put("k", b"x")
    pool.journal.wish([Wish("near", "k", "replicate")])
    pool.journal.claim(1)
    with pool.journal._database.transaction() as connection:
        connection.execute("UPDATE wishes SET owner = '1-1'")
    pool.replicator.wake()
    wait_until(lambda: pool.journal.pending() == 0)


def test_stop_waits_for_nothing_and_closes_when_the_last_step_is_over(pool):
    gate = Gate()
    pool.stores["near"].before["put"] = gate
    for key in ("a", "b", "c"):
        pool.primary.put(key, b"x")
    pool.wish("a")
    gate.wait_reached()
    closed = threading.Event()
    pool.replicator.stop(closed.set)
    pool.wish("b", "c")
    assert not closed.is_set()
    gate.open()
    assert closed.wait(10)
    assert pool.stores["near"].keys() == ["a"]
    assert pool.journal.pending() == 2


def test_a_journal_that_cannot_be_used_ends_the_thread_not_the_program(pool, monkeypatch, caplog):
    monkeypatch.setattr(pool.journal, "claim", lambda *_, **__: _raise_next(iter([NoSpaceError("disk full")])))
    pool.replicator.wake()
    wait_until(lambda: not threads())
    assert "disk full" in caplog.text
    monkeypatch.undo()
    pool.primary.put("k", b"x")
    pool.wish("k")
    wait_until(lambda: pool.journal.pending() == 0)
