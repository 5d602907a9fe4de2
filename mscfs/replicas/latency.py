"""How long a store takes to answer, lately: what tells a slow answer from a usual one, and a slow store from its peers.

Two durations of each read: until the answer begins, which depends on the store, and until its last byte, which also
depends on how much was asked for, so that it is kept for three classes of sizes.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

RECENT = 64
"""Reads that are remembered for each store and class."""
ENOUGH = 8
"""Fewer reads say nothing about what is usual."""
SHORTEST_WAIT = 0.03
"""Nothing faster (seconds) is ever slow: threads and processes wait for each other longer than that now and then."""
UNKNOWN_WAIT = 1.0
UNKNOWN_WHOLE = (2.0, 3.0, 6.0)
"""What is slow (seconds) while too few reads have told what is usual: to begin, and as a whole for each class."""
LONGEST_WAIT = 2.0
LONGEST_WHOLE = (2.0, 4.0, 30.0)
"""What is slow (seconds) however usual it is."""
WHOLE_FACTOR = 2.0
"""How much longer than the p95 of its class a whole answer may take. Its beginning may take the p95 and no longer."""
SLOWER_THAN_PEERS = 5.0
NOTICEABLE = 0.1
"""A store whose median is so many times, and so many seconds, longer than a peer's is far slower than its peers."""
CLASSES = (256 << 10, 2 << 20)
"""The largest sizes, in bytes, of all classes but the last."""


def size_class(size: int) -> int:
    """The class of answers of so many bytes."""
    return sum(size > largest for largest in CLASSES)


class Waits(NamedTuple):
    """How long (seconds) an answer may take before it is slow: to begin, and as a whole for each class of sizes."""

    first: float = UNKNOWN_WAIT
    whole: tuple[float, ...] = UNKNOWN_WHOLE


class Latency:
    """Of one store, in one thread. Knows nothing at first."""

    def __init__(self) -> None:
        self._first: deque[float] = deque(maxlen=RECENT)
        self._whole: list[deque[float]] = [deque(maxlen=RECENT) for _ in range(len(CLASSES) + 1)]

    def add(self, first: float, whole: float | None = None, size: int = 0) -> None:
        """A read took so many seconds to begin, and, if it came to its end, so many for `size` bytes."""
        self._first.append(first)
        if whole is not None:
            self._whole[size_class(size)].append(whole)

    def forget(self) -> None:
        """What was usual is so no more."""
        self._first.clear()
        for whole in self._whole:
            whole.clear()

    @property
    def p95(self) -> float | None:
        """Of the time until an answer begins; None while too little is known."""
        return _quantile(self._first, 0.95)

    @property
    def median(self) -> float | None:
        """Likewise."""
        return _quantile(self._first, 0.5)

    def waits(self) -> Waits:
        """What is slow now."""
        first = _quantile(self._first, 0.95)
        return Waits(
            UNKNOWN_WAIT if first is None else min(max(first, SHORTEST_WAIT), LONGEST_WAIT),
            tuple(map(_whole_wait, self._whole, UNKNOWN_WHOLE, LONGEST_WHOLE)),
        )


def is_far_slower(ours: float, theirs: float) -> bool:
    """Whether an answer that took so many seconds is far slower than the other."""
    return ours > SLOWER_THAN_PEERS * theirs and ours - theirs > NOTICEABLE


def _whole_wait(samples: deque[float], unknown: float, longest: float) -> float:
    usual = _quantile(samples, 0.95)
    return unknown if usual is None else min(WHOLE_FACTOR * max(usual, SHORTEST_WAIT), longest)


def _quantile(samples: deque[float], share: float) -> float | None:
    if len(samples) < ENOUGH:
        return None
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * share))]
