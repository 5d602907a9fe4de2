from __future__ import annotations

import os
import threading

import pytest

from mscfs.errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    StorageError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.replicas.health import FIRST_PAUSE, LONGEST_PAUSE, LONGEST_TRIAL, RELAPSE, Health
from mscfs.replicas.lock import ProcessLock
from mscfs.replicas.source import Replica, Source
from tests.doubles import Clock
from tests.journal.processes import forked
from tests.replicas.stores import memory

RESET = StoreUnavailableError("reset")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(clock=clock)


def opened(health: Health) -> Health:
    health.failed(StoreTimeoutError("silent"))
    return health


def test_R9_three_failures_in_a_row_open(health: Health) -> None:
    for _ in range(2):
        health.failed(RESET)
        assert health.healthy
        assert health.may_try()
    health.failed(IntegrityError("short"))
    assert not health.healthy
    assert not health.may_try()
    assert health.last_error == "short"


def test_R9_a_success_between_failures_keeps_closed(health: Health) -> None:
    for _ in range(10):
        health.failed(RESET)
        health.failed(RESET)
        health.succeeded()
    assert health.healthy


@pytest.mark.parametrize("error", [StoreTimeoutError("silent"), StoreMissingError("no disk")])
def test_R9_costly_failures_open_at_once(health: Health, error: StorageError) -> None:
    health.failed(error)
    assert not health.may_try()


@pytest.mark.parametrize("error", [NotFoundError("no"), VersionMismatchError("other"), AccessDeniedError("you")])
def test_answers_are_no_failures(health: Health, error: StorageError) -> None:
    for _ in range(10):
        health.failed(error)
    assert health.healthy


def test_R9_a_replica_that_refuses_us_is_skipped_and_a_primary_is_not() -> None:
    replica, primary = Replica("r", memory("r")), Source("p", memory("p"))
    for _ in range(3):
        replica.failed(AccessDeniedError("expired"))
        primary.failed(AccessDeniedError("expired"))
    assert not replica.health.healthy
    assert primary.health.healthy
    assert replica.statistics.errors == 3


def test_plain_answers_are_not_counted_as_errors() -> None:
    source = Source("p", memory("p"))
    source.failed(NotFoundError("no"))
    source.failed(VersionMismatchError("other"))
    assert source.statistics.errors == 0


def test_R9_after_the_pause_one_caller_tries(health: Health, clock: Clock) -> None:
    opened(health)
    clock.now += FIRST_PAUSE - 0.01
    assert not health.may_try()
    clock.now += 0.02
    assert not health.pausing
    assert health.may_try()
    assert health.pausing
    assert not health.may_try()
    health.succeeded()
    assert health.healthy
    assert health.may_try()
    assert health.last_error == ""


def test_R9_failed_trials_pause_twice_as_long_up_to_a_minute(health: Health, clock: Clock) -> None:
    opened(health)
    expected = FIRST_PAUSE
    for _ in range(10):
        clock.now += expected - 0.01
        assert not health.may_try()
        clock.now += 0.02
        assert health.may_try()
        health.failed(RESET)
        expected = min(expected * 2, LONGEST_PAUSE)
    assert expected == LONGEST_PAUSE


def test_R9_a_burst_of_failures_is_one_failure(health: Health, clock: Clock) -> None:
    """Sixteen readers wait for a store when it goes silent: the pause must not double sixteen times."""
    for _ in range(16):
        health.failed(StoreTimeoutError("silent"))
    clock.now += FIRST_PAUSE + 0.01
    assert health.may_try()


def test_R9_a_trial_nobody_reports_is_given_to_another_caller(health: Health, clock: Clock) -> None:
    opened(health)
    clock.now += FIRST_PAUSE + 0.01
    assert health.may_try()
    clock.now += LONGEST_TRIAL - 0.01
    assert not health.may_try()
    clock.now += 0.02
    assert health.may_try()


def test_R9_a_store_that_fails_again_soon_is_left_alone_at_once_and_for_longer(health: Health, clock: Clock) -> None:
    opened(health)
    clock.now += FIRST_PAUSE + 0.01
    health.succeeded()
    health.failed(RESET)
    assert not health.healthy
    clock.now += 2 * FIRST_PAUSE - 0.01
    assert not health.may_try()
    clock.now += 0.02
    assert health.may_try()
    health.succeeded()
    clock.now += RELAPSE
    health.failed(RESET)
    assert health.healthy, "that was long ago"


def test_R9_a_store_can_be_left_alone_although_it_answers(health: Health, clock: Clock) -> None:
    changes: list[bool] = []
    health.on_change = lambda: changes.append(health.healthy)
    health.open("slow")
    assert (health.healthy, health.last_error) == (False, "slow")
    clock.now += FIRST_PAUSE + 0.01
    assert health.may_try()
    health.succeeded()
    assert changes == [False, True]


def test_R9_changes_and_failures_are_told_once(health: Health) -> None:
    changes: list[bool] = []
    failures: list[StorageError] = []
    health.on_change = lambda: changes.append(health.healthy)
    source = Source("p", memory("p"), health, on_failure=failures.append)
    for _ in range(5):
        source.failed(RESET)
    source.failed(NotFoundError("no"))
    assert changes == [False, True]
    refused = AccessDeniedError("you")
    source.failed(refused)
    assert failures == [RESET] * 5 + [refused]
    assert source.statistics.errors == 6


def test_R9_who_follows_tries_nothing_by_itself(health: Health, clock: Clock) -> None:
    health.follow(down=False)
    assert health.may_try()
    opened(health)
    clock.now += 1e6
    assert not health.may_try(), "it waits for the word of who sees more"
    health.succeeded()
    assert not health.healthy
    health.follow(down=False)
    assert health.may_try()
    health.follow(down=True)
    health.succeeded()
    clock.now += 1e6
    assert not health.may_try()


def test_exactly_one_of_many_threads_tries(health: Health, clock: Clock) -> None:
    opened(health)
    clock.now += FIRST_PAUSE + 0.01
    barrier = threading.Barrier(8)
    allowed: list[bool] = []

    def ask() -> None:
        barrier.wait()
        allowed.append(health.may_try())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(allowed) == [False] * 7 + [True]


def test_a_lock_held_in_the_parent_is_free_in_a_forked_child() -> None:
    lock = ProcessLock()
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            inside.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()

    def child() -> None:
        with lock:
            assert os.getpid()

    try:
        forked(child)()
    finally:
        done.set()
        thread.join()
