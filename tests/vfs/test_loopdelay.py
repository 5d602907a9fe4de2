"""How late the event loop is."""

from __future__ import annotations

import pytest
import trio

from mscfs.vfs.loopdelay import INTERVAL, KEPT, LoopDelay


@pytest.fixture
def measured():
    """A measurement whose clock is late by what a test puts into the list, one number for each interval."""

    class Measured:
        def __init__(self):
            self.late = []
            self._asked = 0
            self.delay = LoopDelay(self.clock)

        def clock(self):
            # Asked before the sleep, and after it.
            self._asked += 1
            now = trio.current_time()
            return now if self._asked % 2 else now + (self.late.pop(0) if self.late else 0.0)

        async def intervals(self, number):
            with trio.move_on_after((number + 0.5) * INTERVAL):
                await self.delay.run()

    return Measured()


def test_nothing_measured_is_no_delay():
    delay = LoopDelay(lambda: 0.0)
    assert (delay.mean, delay.worst) == (0.0, 0.0)


async def test_a_loop_in_time_has_no_delay(measured, autojump_clock):
    await measured.intervals(20)
    assert measured.delay.worst == pytest.approx(0.0)


async def test_the_mean_and_the_worst_delay_are_told(measured, autojump_clock):
    measured.late = [0.0, 0.3, 0.0, 0.1]
    await measured.intervals(4)
    assert measured.delay.mean == pytest.approx(0.1)
    assert measured.delay.worst == pytest.approx(0.3)


async def test_a_clock_that_seems_early_is_no_delay(measured, autojump_clock):
    measured.late = [-0.1, 0.2]
    await measured.intervals(2)
    assert measured.delay.mean == pytest.approx(0.1)


async def test_what_is_older_than_a_minute_is_forgotten(measured, autojump_clock):
    measured.late = [5.0]
    await measured.intervals(KEPT)
    assert measured.delay.worst == pytest.approx(5.0)
    await measured.intervals(1)
    assert measured.delay.worst == pytest.approx(0.0)
    assert pytest.approx(60.0) == KEPT * INTERVAL
