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
def ending(process: subprocess.Popen[Any], *, group: bool = True) -> Iterator[None]:
    """The process, and with `group` all of its session, is gone afterwards."""
    try:
        yield
    finally:
        if process.poll() is None:
            _signal(process, signal.SIGTERM, group=group)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL, group=group)
                process.wait()


@contextmanager
def scratch(parent: Path | None, prefix: str = "mscfs-bench-") -> Iterator[Path]:
    """A directory that is removed."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _signal(process: subprocess.Popen[Any], number: int, *, group: bool) -> None:
    with suppress(ProcessLookupError):
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
