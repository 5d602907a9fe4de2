"""How responsive the daemon is: by how much its event loop is late, which is what every request of the kernel waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import trio

INTERVAL = 0.25
KEPT = 240
"""Measurements: the last minute."""


class LoopDelay:
    """Measures while `run` runs. Times in seconds."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._delays: deque[float] = deque(maxlen=KEPT)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = self._clock() + INTERVAL
            await trio.sleep_until(due)
            self._delays.append(max(0.0, self._clock() - due))

    @property
    def mean(self) -> float:
        """The mean delay of the last minute."""
        return sum(self._delays) / len(self._delays) if self._delays else 0.0

    @property
    def worst(self) -> float:
        """The longest delay of the last minute."""
        return max(self._delays, default=0.0)
