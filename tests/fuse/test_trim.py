"""Freed memory goes back to the system: L4."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from mscfs.fuse import trim

MEASURE = """
import os
from mscfs.fuse.trim import find_trim

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

pieces, small = [], []
for _ in range(1000):
    pieces.append(b"x" * 100_000)  # below what malloc asks the system for by itself
    small.append(bytes(1000))  # what stays, between
trim = find_trim()
del pieces
before = held()
trim()
print(before - held())
"""


def test_L4_holes_between_what_stays_are_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 80_000_000


async def test_L4_it_is_done_at_intervals(autojump_clock: MockClock) -> None:
    done: list[float] = []

    async def run_blocking(call: Any, *arguments: Any) -> Any:
        return call(*arguments)

    with trio.move_on_after(trim.INTERVAL * 3.5):
        await trim.run(run_blocking, lambda: done.append(trio.current_time()))
    assert [round(moment / trim.INTERVAL) for moment in done] == [1, 2, 3]
    await trim.run(run_blocking, None)


def test_a_c_library_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trim.ctypes, "CDLL", lambda _: object())
    assert trim.find_trim() is None
