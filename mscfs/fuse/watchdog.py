"""Notices when a mount stops answering (contract L3).

The mount is asked something through the kernel, every few seconds, as any program would. A thread of its own looks
whether the answers come, so that an event loop that is stuck is noticed too: it logs what the loop is doing.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from mscfs.fuse.xattrs import OURS

logger = logging.getLogger(__name__)

INTERVAL = 5.0
"""Seconds between an answer and the next question."""
PATIENCE = 20.0
"""Seconds without an answer after which it is said."""
_LOOKS = 4
"""How often the thread looks in that time."""


def ask(mountpoint: Path) -> None:
    """Ask a mount for something that it knows without any store. Any answer will do, also that there is no mount."""
    with suppress(OSError):
        os.getxattr(mountpoint, OURS + b"profile")


class Watchdog:
    """One mount's. `alive` is told of each answer: systemd restarts a service of which it hears nothing."""

    def __init__(
        self,
        question: Callable[[], None],
        alive: Callable[[], object],
        *,
        interval: float = INTERVAL,
        patience: float = PATIENCE,
    ) -> None:
        self._question = question
        self._alive = alive
        self._interval = interval
        self._patience = patience
        self._answered = time.monotonic()
        self._over = threading.Event()

    async def run(self) -> None:
        """Watch until cancelled. A question that is never answered holds up nobody: its thread is left behind."""
        in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True, limiter=trio.CapacityLimiter(2))
        self._answered = time.monotonic()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(in_thread, self._watch, threading.current_thread())
                while True:
                    await in_thread(self._question)
                    self._answered = time.monotonic()
                    self._alive()
                    await trio.sleep(self._interval)
        finally:
            self._over.set()

    def _watch(self, loop: threading.Thread) -> None:
        silent_since = 0.0
        while not self._over.wait(self._patience / _LOOKS):
            answered = self._answered
            if silent_since and answered > silent_since:
                logger.warning("the mount answers again, after %.0f s", answered - silent_since)
                silent_since = 0.0
            elif not silent_since and time.monotonic() - answered > self._interval + self._patience:
                silent_since = answered
                logger.error("the mount does not answer since %.0f s; its loop is at:\n%s", *self._state(loop))

    def _state(self, loop: threading.Thread) -> tuple[float, str]:
        frame = sys._current_frames().get(loop.ident or 0)  # noqa: SLF001 - documented, for debuggers
        where = "".join(traceback.format_stack(frame)) if frame is not None else "its end"
        return time.monotonic() - self._answered, where
