"""Nothing is left behind, however the benchmark ends."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PATIENCE = 20.0
"""Seconds that a process is given to end before it is killed."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the benchmark as Ctrl-C does, which a shell lets its background processes ignore."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending(process: subprocess.Popen[Any], number: int = signal.SIGTERM) -> Iterator[None]:
    """A process that was started in a session of its own is gone afterwards, with all of its session.

    It is told by the signal `number`, and killed when that does not help.
    """
    try:
        yield
    finally:
        if process.poll() is None:
            _signal(process, number)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()


@contextmanager
def scratch(parent: Path | None, prefix: str = "mscfs-bench-") -> Iterator[Path]:
    """A directory that is removed, unless something is still mounted below: that would lose what the mount shows."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent)).resolve()
    try:
        yield directory
    finally:
        if any(Path(mountpoint).is_relative_to(directory) for mountpoint in mountpoints()):
            print(f"{directory} stays: something is mounted below it", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def mountpoints() -> list[str]:
    """Where something is mounted."""
    with open("/proc/self/mountinfo") as table:
        # Spaces and the like are octal numbers there.
        return [re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4]) for line in table]


def _signal(process: subprocess.Popen[Any], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
