"""How many requests the kernel made, how long they took and how they failed, by operation: plain numbers, for metrics.

Every request passes here, so it has to cost little: two looks at the clock and a few additions, 0.6 µs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict

BOUNDS = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0, 30.0)
"""Seconds: answered from memory, from a worker process, by a near store, by a far one … at `read_deadline`."""


class OperationCounts:
    """The numbers of one operation since the mount started."""

    __slots__ = ("begun", "durations", "errors", "seconds")

    def __init__(self) -> None:
        self.begun = 0
        self.seconds = 0.0
        """How long all that ended took together."""
        self.durations = [0] * (len(BOUNDS) + 1)
        """How many took up to each of `BOUNDS` and more than the one before; the last ones took longer."""
        self.errors: Counter[int] = Counter()
        """By errno."""

    def ended(self, seconds: float) -> None:
        """One request was answered, or cancelled."""
        self.seconds += seconds
        self.durations[bisect_left(BOUNDS, seconds)] += 1


class RequestCounts(defaultdict[str, OperationCounts]):
    """Those of all operations that there were, by the name of their handler."""

    def __init__(self) -> None:
        super().__init__(OperationCounts)
