"""What is slow, and what is far slower than its peers (R9)."""

from __future__ import annotations

import pytest

from mscfs.replicas.latency import (
    ENOUGH,
    LONGEST_WAIT,
    LONGEST_WHOLE,
    NOTICEABLE,
    RECENT,
    SHORTEST_WAIT,
    UNKNOWN_WAIT,
    UNKNOWN_WHOLE,
    WHOLE_FACTOR,
    Latency,
    Waits,
    is_far_slower,
    size_class,
)


def of(*seconds: float) -> Latency:
    latency = Latency()
    for each in seconds:
        latency.add(each)
    return latency


def test_R9_what_is_slow_is_unknown_until_enough_reads_told() -> None:
    latency = Latency()
    for _ in range(ENOUGH - 1):
        latency.add(0.2, 0.3, 100)
    assert latency.waits() == Waits(UNKNOWN_WAIT, UNKNOWN_WHOLE)
    assert latency.p95 is latency.median is None
    latency.add(0.2, 0.3, 100)
    assert latency.waits() == Waits(0.2, (WHOLE_FACTOR * 0.3, *UNKNOWN_WHOLE[1:]))


def test_R9_an_answer_may_take_the_p95_to_begin() -> None:
    latency = of(*(0.1 + number / 1000 for number in range(40)))
    assert latency.p95 == pytest.approx(0.138)
    assert latency.waits().first == latency.p95
    assert latency.median == pytest.approx(0.12)


def test_R9_old_reads_are_forgotten() -> None:
    latency = of(*[0.9] * RECENT, *[0.1] * RECENT)
    assert latency.waits().first == 0.1
    latency.forget()
    assert latency.waits() == Waits()


def test_R9_a_fast_store_is_not_slow_for_a_moments_delay() -> None:
    latency = Latency()
    for _ in range(ENOUGH):
        latency.add(0.0001, 0.0002, 100)
    assert latency.waits().first == SHORTEST_WAIT
    assert latency.waits().whole[0] == WHOLE_FACTOR * SHORTEST_WAIT


def test_R9_whole_answers_are_compared_with_those_of_their_size() -> None:
    assert [size_class(size) for size in (0, 256 << 10, (256 << 10) + 1, 2 << 20, 8 << 20)] == [0, 0, 1, 1, 2]
    latency = Latency()
    for _ in range(ENOUGH):
        latency.add(0.1, 0.2, 1000)
        latency.add(0.1, 0.4, 1 << 20)
        latency.add(0.1, 0.8, 8 << 20)
    assert latency.waits().whole == pytest.approx((0.4, 0.8, 1.6))


def test_R9_nobody_waits_for_long_however_usual_it_is() -> None:
    latency = Latency()
    for _ in range(ENOUGH):
        latency.add(100.0, 200.0, 1000)
    assert latency.waits() == Waits(LONGEST_WAIT, (LONGEST_WHOLE[0], *UNKNOWN_WHOLE[1:]))


@pytest.mark.parametrize(
    ("ours", "theirs", "is_slower"),
    [(0.5, 0.06, True), (0.5, 0.11, False), (0.01, 0.001, False), (NOTICEABLE, 0.0, False), (0.001, 5.0, False)],
)
def test_R9_far_slower_is_many_times_slower_and_noticeably(ours: float, theirs: float, *, is_slower: bool) -> None:
    assert is_far_slower(ours, theirs) == is_slower
