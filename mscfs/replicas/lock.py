"""A lock for values that a forked child goes on with."""

from __future__ import annotations

import os
import threading
from types import TracebackType


class ProcessLock:
    """A lock of the threads of one process. A forked child finds it free, whoever held it in the parent."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def __enter__(self) -> None:
        self._of_this_process().acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._of_this_process().release()

    def _of_this_process(self) -> threading.Lock:
        pid = os.getpid()
        # `setdefault` is one step, so all threads of a new child get the same lock.
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.Lock())
