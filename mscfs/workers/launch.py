"""How worker processes come into being.

The first ones are forked from the daemon when it has loaded everything and before it has threads, a loop or
connections: they are ready at once, and what is loaded is in memory once. Later ones, in the place of one that died,
are programs of their own: a process with threads must not fork.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, Protocol

import trio

from mscfs.cache.arena import SharedMemory
from mscfs.descriptors import close_from_3_but
from mscfs.errors import MscfsError
from mscfs.workers import process

_COLLECTION = (700, 10, 10)
"""Python's own thresholds of garbage collection, whatever the daemon has set for itself."""


class WorkerProcess(Protocol):
    """What the pool needs of a process; `trio.Process` has it."""

    @property
    def pid(self) -> int:
        """Its number."""
        ...

    def kill(self) -> None:
        """End it at once; nothing when it has ended."""
        ...

    async def wait(self) -> int:
        """Return when it has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Launched:
    """A worker process that waits for its settings, and our end of its socket."""

    process: WorkerProcess
    connection: socket.socket


class ForkedProcess:
    """A child that was forked."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor = os.pidfd_open(pid)
        self._status: int | None = None

    def kill(self) -> None:
        """End it at once; nothing when it has ended."""
        if self._status is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    async def wait(self) -> int:
        """Return when it has ended, its exit status or the negative number of the signal that ended it."""
        if self._status is None:
            await trio.lowlevel.wait_readable(self._descriptor)
            _, status = os.waitpid(self.pid, 0)  # noqa: ASYNC222 - it has ended
            self._status = os.waitstatus_to_exitcode(status)
            os.close(self._descriptor)
        return self._status


def fork(memory: SharedMemory) -> Launched:
    """A worker process made of this one, which must have no threads and no connection to any store yet."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _become(theirs, memory.descriptor)
    theirs.close()
    return Launched(ForkedProcess(pid), ours)


async def run_anew(memory: SharedMemory) -> Launched:
    """A worker process that loads everything by itself. Raises MscfsError."""
    try:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                return Launched(await _run(theirs.fileno(), memory.descriptor), ours)
            except BaseException:
                ours.close()
                raise
    except OSError as error:
        raise MscfsError(f"no worker process can be started: {error}") from error


async def _run(connection: int, memory: int) -> WorkerProcess:
    # Custom providers are imported in the worker from where the daemon would.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return await trio.lowlevel.open_process(
        [sys.executable, "-P", "-m", "mscfs.workers.process", str(connection), str(memory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # whoever reads the daemon's must see its end
        pass_fds=(connection, memory),
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def _become(connection: socket.socket, memory: int) -> NoReturn:
    """What the child does instead of all that its parent was about to do."""
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 0)
        os.dup2(nowhere, 1)
        # Another worker's socket that stays open here would hide from that worker that the daemon is gone.
        close_from_3_but(connection.fileno(), memory)
        gc.set_threshold(*_COLLECTION)
        gc.enable()
        process.work(connection, memory)
    finally:
        os._exit(1)
