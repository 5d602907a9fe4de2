"""What is slow in a worker process: with an injected clock, and looked at when the test says so (R9)."""

from __future__ import annotations

import threading

import pytest

from mscfs.replicas.latency import Waits
from mscfs.workers.watch import Watch
from tests.doubles import Clock

WAITS = {"near": Waits(0.1, (0.5, 1.0, 4.0)), "far": Waits(1.0, (5.0, 5.0, 5.0))}


@pytest.fixture
def clock():
    return Clock(100.0)


@pytest.fixture
def watch(clock):
    watch = Watch(clock=clock)
    watch.told = []
    watch.tell = lambda attempt: watch.told.append((attempt.id, attempt.store, tuple(attempt.tried)))
    watch.learn(WAITS)
    return watch


def never():
    return False


def test_R9_an_answer_that_does_not_begin_in_time_is_told_once(watch, clock):
    watch.begin(1, 1000, never).asking("near")
    clock.now += 0.099
    watch.look()
    assert watch.told == []
    assert not watch.is_stuck(1)
    clock.now += 0.001
    watch.look()
    watch.look()
    assert watch.told == [(1, "near", ())]
    assert watch.is_stuck(1)


def test_R9_each_store_has_its_own_time(watch, clock):
    attempt = watch.begin(1, 1000, never)
    attempt.asking("near")
    clock.now += 0.05
    attempt.asking("far")
    clock.now += 0.9
    watch.look()
    assert watch.told == []
    clock.now += 0.1
    watch.look()
    assert watch.told == [(1, "far", ("near",))]


@pytest.mark.parametrize(("size", "whole"), [(1000, 0.5), (1 << 20, 1.0), (8 << 20, 4.0)])
def test_R9_a_stream_that_stalls_or_trickles_is_told(watch, clock, size, whole):
    attempt = watch.begin(1, size, never)
    attempt.asking("near")
    clock.now += 0.05
    attempt.answered()
    assert attempt.first == pytest.approx(0.05)
    clock.now += whole - 0.06
    attempt.left -= size // 2
    watch.look()
    assert watch.told == []
    clock.now += 0.02
    watch.look()
    assert watch.told == [(1, "near", ())]
    assert attempt.took == pytest.approx(whole + 0.01)


def test_what_is_over_and_what_nobody_knows_the_usual_time_of_is_never_slow(watch, clock):
    attempt = watch.begin(1, 1000, never)
    attempt.asking("near")
    watch.end(attempt)
    watch.begin(2, 1000, never).asking("unheard of")
    watch.begin(3, 1000, never)
    clock.now += 1000
    watch.look()
    assert watch.told == []
    assert not watch.is_stuck(1)


def test_without_hedging_nothing_is_watched(clock):
    watch = Watch(clock=clock)
    watch.begin(1, 1000, never).asking("near")
    assert not watch._is_needed.is_set()
    clock.now += 1000
    watch.look()


def test_the_thread_that_looks_tells(watch):
    watch.clock = __import__("time").monotonic
    told = threading.Event()
    watch.tell = lambda _: told.set()
    threading.Thread(target=watch.run, daemon=True).start()
    watch.begin(1, 1000, never).asking("near")
    assert told.wait(30)
