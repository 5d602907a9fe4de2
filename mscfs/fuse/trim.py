"""Freed memory goes back to the system.

glibc keeps what was freed below something that is still used. The columns of a directory of a million names leave 42 MB
so, outgrown on the way to their last size. malloc_trim(3) gives all whole free pages back, wherever they lie; it took
22 ms, on a busy machine, in a process that had 48 MB to give in 480 pieces. Other C libraries have no such function,
and their own ways.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import trio

from mscfs.vfs.transport import RunBlocking

INTERVAL = 60.0
"""Seconds. What is freed and used again sooner costs nothing."""


def find_trim() -> Callable[[], object] | None:
    """What gives freed memory of this process back (blocking, some milliseconds); None where there is nothing."""
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    malloc_trim.argtypes = [ctypes.c_size_t]

    def trim() -> object:
        return malloc_trim(0)

    return trim


async def run(run_blocking: RunBlocking, trim: Callable[[], object] | None) -> None:
    """Trim at intervals until cancelled."""
    while trim is not None:
        await trio.sleep(INTERVAL)
        await run_blocking(trim)
