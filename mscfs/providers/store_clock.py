"""The time at a store, which the answer to a write does not tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

from mscfs.types import from_ns

_SECOND = 1_000_000_000
_VALID = 60.0
"""Seconds for which what was learned is believed: a store's clock may be set."""


def _since_boot() -> float:
    """Seconds, those included in which this machine was suspended: the store's clock went on."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class StoreClock:
    """Learns from an object that was just written and asked about, so that the next ones need not be asked about.

    What it tells is never earlier than the store's own word for an object written before, and at most some seconds
    later: a copy may then count as older than it is, never as fresher (contract R4). This machine's clock, which may
    be wrong, plays no part. Thread-safe; `monotonic` gives seconds.
    """

    def __init__(self, monotonic: Callable[[], float] = _since_boot) -> None:
        self.monotonic = monotonic
        self._learned: tuple[float, float] | None = None
        """When, and how far the store's clock was ahead of ours at most."""

    def learn(self, began: float, last_modified: datetime) -> None:
        """An object whose writing began at `began` (monotonic) was last modified then, told in whole seconds."""
        ahead = (last_modified + timedelta(seconds=1)).timestamp() - began
        self._learned = self.monotonic(), ahead

    def now(self) -> datetime | None:
        """The time at the store, in whole seconds; None when it has to be learned."""
        learned, now = self._learned, self.monotonic()
        if learned is None or now - learned[0] > _VALID:
            return None
        return from_ns(int(now + learned[1]) * _SECOND)
