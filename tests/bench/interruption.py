"""Nothing is left behind, however the benchmark ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_PATIENCE = 20.0
"""Seconds that a process is given to end before it is killed."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the benchmark as Ctrl-C does."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
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
    """A directory that is removed."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _signal(process: subprocess.Popen[Any], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
