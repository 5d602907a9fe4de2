from __future__ import annotations

import threading
import time

import pytest

from mscfs.client import drain as module
from mscfs.client.drain import DrainFailure, drain
from mscfs.client.replicator import carry_out
from mscfs.errors import AccessDeniedError, NoSpaceError, StoreUnavailableError
from mscfs.journal import Wish
from tests.client.stores import Gate

pytestmark = pytest.mark.usefixtures("no_background")


@pytest.fixture
def client(world):
    return world.client()


def test_W2_drain_waits_until_every_replica_has_everything(world, client):
    for number in range(30):
        client.write(f"k{number}", b"12345")
    seen = []
    result = drain(client.store, threads=3, on_progress=seen.append)
    assert (result.done, result.bytes, result.remaining, result.failures) == (60, 300, 0, ())
    assert result.complete
    assert len(world.near.keys()) == len(world.far.keys()) == 30


def test_a_drain_without_a_journal_has_nothing_to_do(world, client):
    assert client.drain().complete
    assert client.replicas[0].drain().complete


def test_wishes_that_are_not_due_yet_are_carried_out_too(world, client):
    client.write("k", b"x")
    for claimed in world.journal.claim(10):
        world.journal.postpone(claimed, "earlier failure")
    assert client.drain(timeout=30).complete


def test_passing_failures_are_tried_again(world, client, monkeypatch):
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    client.write("k", b"x")
    failures = iter([StoreUnavailableError("busy", store="near")] * 3)

    def fail(_key):
        for failure in failures:
            raise failure

    world.near.before["put"] = fail
    assert client.drain(timeout=30).complete
    assert world.near.content("k") == b"x"


def test_a_drain_ends_at_its_time_out_and_keeps_what_is_left(world, client):
    world.near.fail()
    client.write("k", b"x")
    begun = time.monotonic()
    result = client.drain(timeout=1)
    assert time.monotonic() - begun < 5
    assert (result.done, result.remaining) == (1, 1)
    assert result.failures == (DrainFailure("near", "k", "near: unreachable"),)
    assert world.far.content("k") == b"x"
    # Given back: the next one may take it at once.
    world.near.down = None
    assert client.drain(timeout=30).complete


def test_a_store_that_does_not_answer_does_not_hold_up_the_time_out(world, client):
    gate = Gate()
    world.near.before["put"] = gate
    client.write("k", b"x")
    begun = time.monotonic()
    result = client.drain(timeout=1)
    assert time.monotonic() - begun < 5
    assert result.remaining == 1
    gate.open()


def test_lasting_failures_are_tried_once_and_reported(world, client):
    client.write("denied", b"x")
    client.write("good", b"x")
    world.near.before["put"] = lambda key: _deny() if key == "denied" else None
    result = client.drain()
    assert result.failures == (DrainFailure("near", "denied", "near: not allowed"),)
    assert result.remaining == 1
    assert world.near.calls["put"] == 2


def _deny():
    raise AccessDeniedError("not allowed", store="near")


def test_a_replica_that_refuses_everything_is_given_up_after_a_while(world, client, monkeypatch):
    monkeypatch.setattr(module, "MOST_FAILING", 5)
    for number in range(50):
        client.write(f"k{number}", b"x")
    world.near.before["put"] = lambda _: _deny()
    result = drain(client.store, threads=2)
    assert world.near.calls["put"] < 10
    assert len(world.far.keys()) == 50
    assert result.remaining == 50


def test_what_other_processes_work_on_is_waited_for(world, client):
    client.write("k", b"x")
    elsewhere = world.client().store
    claimed = elsewhere.journal.claim(2)

    def finish():
        for wish in claimed:
            carry_out(elsewhere, wish)
            elsewhere.journal.finish(wish)

    timer = threading.Timer(0.5, finish)
    timer.start()
    result = client.drain(timeout=30)
    timer.join()
    assert result.complete
    assert result.done == 0


def test_wishes_for_what_is_no_replica_any_more_are_reported(world, client):
    world.journal.wish([Wish("gone", "a", "replicate"), Wish("gone", "b", "replicate")])
    result = client.drain()
    assert result.remaining == 2
    assert result.failures[0].profile == "gone"
    assert "2 wishes" in result.failures[0].reason


def test_a_wish_renewed_while_it_is_carried_out_is_carried_out_again(world, client):
    client.write("k", b"old")
    renewed = []

    def renew(_key):
        if not renewed:
            renewed.append(True)
            client.write("k", b"new")

    world.near.before["put"] = renew
    assert client.drain(timeout=30).complete
    assert world.near.content("k") == world.far.content("k") == b"new"


def test_a_bug_is_a_failure_of_one_key(world, client):
    client.write("k", b"x")
    world.near.before["put"] = lambda _: 1 // 0
    result = client.drain()
    assert [failure.reason for failure in result.failures] == [
        "ZeroDivisionError('integer division or modulo by zero')"
    ]
    assert world.far.content("k") == b"x"


def test_a_journal_that_breaks_is_an_error(world, client, monkeypatch):
    client.write("k", b"x")
    store = client.store

    def full(*_, **__):
        raise NoSpaceError("disk full")

    monkeypatch.setattr(store.journal, "finish", full)
    with pytest.raises(NoSpaceError):
        drain(store, timeout=30)


def test_progress_is_told(world, client):
    gate = Gate()
    world.near.before["put"] = gate
    client.write("k", b"12345")
    seen = []

    def watch(progress):
        seen.append(progress)
        gate.open()

    client.drain(on_progress=watch)
    assert seen[0].remaining >= 1
