"""A faster way for pyfuse3's tasks to wait for the kernel's next request.

pyfuse3 serves each request with: take a lock, wait until the descriptor is readable, receive, give the lock to another
task, handle. As trio has it, that is two or three turns of the scheduler and two system calls that arm and disarm the
descriptor, for each request: more than half of the daemon's time when requests are many and small. Here a task that
has handled its request without waiting for anything looks at once whether the next one is there, and takes it. After
`EAGER` requests it lets everybody else have a turn.

What pyfuse3 sees as the module `trio` is replaced by one that differs in these two things only; `install` says whether
that was possible. Measured: docs/adr/0007-requests-are-taken-eagerly.md.
"""

from __future__ import annotations

import select
from collections import deque
from types import ModuleType
from typing import Any

import trio

EAGER = 16
"""Requests that one task takes in a row before others have a turn."""


class TurnLock:
    """A lock whose holder may take it again before those who wait get their turn, as long as it does not wait itself.

    Taking it when it is free is no checkpoint.
    """

    def __init__(self) -> None:
        self._held = False
        self._parked: deque[trio.lowlevel.Task] = deque()
        self._is_waking = False

    async def __aenter__(self) -> None:
        while self._held:
            task = trio.lowlevel.current_task()
            self._parked.append(task)

            def abort(_: object, task: trio.lowlevel.Task = task) -> trio.lowlevel.Abort:
                self._parked.remove(task)
                return trio.lowlevel.Abort.SUCCEEDED

            await trio.lowlevel.wait_task_rescheduled(abort)
            self._is_waking = False
        self._held = True

    async def __aexit__(self, *_: object) -> None:
        self._held = False
        if self._parked and not self._is_waking:
            # It runs when this task waits for something, and finds the lock taken when it does so for a request.
            self._is_waking = True
            trio.lowlevel.reschedule(self._parked.popleft())


class EagerWait:
    """`wait_readable` that looks before it waits."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._descriptor = -1
        self._taken = 0

    async def __call__(self, descriptor: int) -> None:
        """Return when the descriptor can be read."""
        if descriptor != self._descriptor:
            if self._descriptor >= 0:
                self._poll.unregister(self._descriptor)
            self._poll.register(descriptor, select.POLLIN)
            self._descriptor = descriptor
        self._taken += 1
        if self._taken < EAGER and self._poll.poll(0):
            return
        self._taken = 0
        await trio.lowlevel.wait_readable(descriptor)


class _Overlay:
    """A module in which some names mean something else."""

    def __init__(self, module: ModuleType, **changed: Any) -> None:
        self._module = module
        self.__dict__.update(changed)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def install(pyfuse3: Any) -> bool:
    """Have pyfuse3 wait so; False when it is built in another way than expected, and stays as it is."""
    if getattr(pyfuse3, "trio", None) is not trio:
        return False
    pyfuse3.trio = _Overlay(trio, Lock=TurnLock, lowlevel=_Overlay(trio.lowlevel, wait_readable=EagerWait()))
    return True
