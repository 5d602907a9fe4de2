"""What a mount's processes cost: memory and CPU time of a process and all its descendants."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PERIOD = 0.2
"""Seconds between two looks at the memory."""


@dataclass(frozen=True)
class Memory:
    """Proportional set size in bytes: all of it, and the part that is no page of a file (anonymous and shared)."""

    pss: int = 0
    private: int = 0

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.pss + other.pss, self.private + other.private)


def family(roots: Iterable[int]) -> Iterator[int]:
    """The processes and all their descendants."""
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        yield pid
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                waiting += map(int, children.read_text().split())


def memory_of(pids: Iterable[int]) -> Memory:
    """Memory of these processes together; one that has ended has none."""
    total = Memory()
    for pid in pids:
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
            values = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}
            total += Memory(values["Pss"], values.get("Pss_Anon", 0) + values.get("Pss_Shmem", 0))
    return total


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these processes and of the children they have waited for."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))
    return total / _TICKS


@dataclass
class Watch:
    """Looks at some processes while a piece of work runs: peak memory, CPU time used. A context manager."""

    roots: list[int]
    peak: Memory = field(default_factory=Memory)
    cpu: float = 0.0
    _begun: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._begun = cpu_seconds(family(self.roots))
        if self.roots:
            self._thread = threading.Thread(target=self._look)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.cpu = cpu_seconds(family(self.roots)) - self._begun
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._note()

    def _look(self) -> None:
        while not self._stop.wait(_PERIOD):
            self._note()

    def _note(self) -> None:
        now = memory_of(family(self.roots))
        self.peak = Memory(max(self.peak.pss, now.pss), max(self.peak.private, now.private))
