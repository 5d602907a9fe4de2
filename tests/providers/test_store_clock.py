"""The store's clock: never early, whatever this machine believes (contract R4)."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime

import pytest

from mscfs.providers.store_clock import StoreClock
from mscfs.types import from_ns

SECOND = 1_000_000_000


def at(seconds: float) -> datetime:
    """What a store tells: whole seconds."""
    return from_ns(int(seconds) * SECOND)


def test_R4_the_store_s_clock_goes_on_while_this_machine_is_suspended(monkeypatch: pytest.MonkeyPatch) -> None:
    since_boot = {time.CLOCK_BOOTTIME: 1000.0}
    monkeypatch.setattr(time, "clock_gettime", since_boot.get)
    clock = StoreClock()
    clock.learn(clock.monotonic(), at(5000))
    assert clock.now() is not None
    since_boot[time.CLOCK_BOOTTIME] += 3600
    assert clock.now() is None


def test_nothing_is_told_before_something_is_learned() -> None:
    assert StoreClock().now() is None


def test_R4_what_is_told_is_never_before_the_store_s_own_word_and_little_after() -> None:
    chance = random.Random(1)
    for _ in range(2000):
        now = 100.0
        clock = StoreClock(lambda: now)  # noqa: B023 - called within the round
        offset = chance.uniform(-1e6, 1e9)
        began = now
        now += chance.uniform(0, 0.2)
        told = at(now + offset)
        now += chance.uniform(0, 0.2)
        clock.learn(began, told)
        now += chance.uniform(0, 50)
        written = at(now + offset)
        now += chance.uniform(0, 0.2)
        guessed = clock.now()
        assert guessed is not None
        assert 0 <= (guessed - written).total_seconds() <= 3


def test_what_was_learned_is_forgotten_after_a_minute() -> None:
    now = 0.0
    clock = StoreClock(lambda: now)
    clock.learn(0.0, datetime(2026, 1, 1, tzinfo=UTC))
    now = 60.0
    assert clock.now() is not None
    now = 60.1
    assert clock.now() is None
