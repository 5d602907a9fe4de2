"""A mount as a process of its own, which reports when it answers, or why it does not.

The report is one line: `ready "TROUBLE"`, which is empty when all is well, or `error CODE "MESSAGE"`. The command that
started it returns 0 only after it has seen the mount answer by itself, and leaves nothing mounted and nothing running
when it has not (contract L1).

Loading takes most of the time until a mount answers. So the daemon is forked at once and loads what a mount needs,
while the command loads other things and finds out what to mount (docs/adr/0015-a-mount-starts-once.md).
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import select
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from mscfs.cli.mount_table import ANSWER_TIMEOUT, MSCFS_TYPE, leave_nothing, probe
from mscfs.cli.program import EXIT_BUG, note, run, what_failed
from mscfs.descriptors import close_from_3_but
from mscfs.directories import digest, private, state_directory
from mscfs.errors import MountError, MscfsError
from mscfs.fuse.mounts import mounted_at

if TYPE_CHECKING:
    from mscfs.cli.plan import Plan

START_TIMEOUT = 900.0
"""Seconds until a daemon must have reported. Mostly it takes one; but first it uploads what a crash left."""
PATIENCE = 10.0
"""Seconds after which somebody who waits is told where to look."""


class StartError(MountError):
    """The daemon could not start; the command ends with the code it reported."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Child:
    """A child process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.ended = os.pidfd_open(pid)
        """A descriptor that can be read when it has ended."""
        self._status: int | None = None

    def wait(self, timeout: float) -> int:
        """Its exit status, or the negative number of the signal that ended it. Raises TimeoutError."""
        if self._status is None:
            if not select.select([self.ended], [], [], timeout)[0]:
                raise TimeoutError
            self._status = 0
            with suppress(ChildProcessError):  # whoever started us has SIGCHLD ignored
                self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def stop(self) -> None:
        """Have it end; return when it has."""
        self._send(signal.SIGTERM)
        try:
            self.wait(ANSWER_TIMEOUT)
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """End it."""
        self._send(signal.SIGKILL)
        self.wait(ANSWER_TIMEOUT)

    def close(self) -> None:
        """Let go of it; it may run on."""
        os.close(self.ended)

    def _send(self, number: signal.Signals) -> None:
        if self._status is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.ended, number)


class Daemon:
    """Forked from this process, which must have no threads; a context that ends the process unless it was started."""

    def __init__(self) -> None:
        # Where standard streams are closed, what is opened now would take their place.
        while (free := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(free)
        self._connection, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            _become(theirs)
        theirs.close()
        self.process = Child(pid)
        self._is_told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_told:
            self.process.kill()
        self.process.close()
        self._connection.close()

    def start(self, plan: Plan) -> None:
        """Return when the mount answers. Raises StartError; then, or interrupted, it is gone and nothing is mounted."""
        log = log_file(plan.profile, plan.mountpoint)
        self._is_told = True
        try:
            with suppress(ConnectionError):  # it has died: seen below
                self._connection.sendall(pickle.dumps((plan, log)))
                self._connection.shutdown(socket.SHUT_WR)
            trouble = _wait(self.process, self._connection.fileno(), log)
            _see_answer(plan.mountpoint, log)
            if trouble:
                note(f"mounted degraded, the primary is down ({trouble}): until it is back writes fail at close()")
        except BaseException:
            self.process.stop()
            leave_nothing(plan.mountpoint)
            raise


def start(plan: Plan, daemon: Daemon | None = None) -> None:
    """Mount in the background, with a daemon that was made for it before, or a new one. As `Daemon.start`."""
    if daemon is not None:
        daemon.start(plan)
        return
    with Daemon() as made:
        made.start(plan)


def log_file(profile: str, mountpoint: Path) -> Path:
    """The log of a mount, made 0600 when it is not there."""
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', profile)}-{digest(str(mountpoint))[:8]}.log"
    path = private(state_directory() / "log") / name
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return path


class Report:
    """The daemon's side of the report."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def ready(self, trouble: str = "") -> None:
        """The mount answers; `trouble` is what is wrong with the primary, if it is down."""
        self._say(f"ready {json.dumps(trouble)}")

    def error(self, message: str, code: int) -> None:
        """The mount cannot start; nothing after `ready` is reported."""
        self._say(f"error {code} {json.dumps(message)}")

    def _say(self, line: str) -> None:
        # Whoever started us may be gone: the mount is wanted all the same.
        with suppress(OSError):
            self._connection.sendall(os.fsencode(line) + b"\n")
        self._connection.close()


def _become(connection: socket.socket) -> NoReturn:
    """What the child does instead of all that its parent was about to do."""
    status = 1
    try:
        os.setsid()
        close_from_3_but(connection.fileno())
        run(lambda: _serve(connection))
    except SystemExit as end:
        status = int(end.code or 0)
    finally:
        logging.shutdown()
        os._exit(status)


def _serve(connection: socket.socket) -> None:
    """Load, and mount what the other end of the connection says; nothing when it is closed."""
    from mscfs.cli import serving  # noqa: PLC0415 - the parent loads something else meanwhile

    with suppress(Exception):  # said when a mount needs it
        serving.load()
    with connection.makefile("rb") as stream:
        received = stream.read()
    if not received:
        return
    plan, log = pickle.loads(received)  # noqa: S301 - from our parent, over a socket nobody else holds
    os.chdir("/")  # a daemon keeps no directory busy
    for path, flags, descriptors in ((Path(os.devnull), os.O_RDONLY, (0,)), (log, os.O_WRONLY | os.O_APPEND, (1, 2))):
        opened = os.open(path, flags)
        for descriptor in descriptors:
            os.dup2(opened, descriptor)
        os.close(opened)
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 - it was perhaps none
    report = Report(connection)
    try:
        serving.serve(plan, report.ready, log)
    except MscfsError as error:
        report.error(str(error), error.exit_code)
        raise
    except OSError as error:
        report.error(what_failed(error), 1)
        raise
    except Exception as error:
        report.error(f"internal error: {type(error).__name__}: {error}", EXIT_BUG)
        raise


def _wait(process: Child, reading: int, log: Path) -> str:
    """What is wrong with the primary of a mount that answers. Raises StartError."""
    deadline = time.monotonic() + START_TIMEOUT
    timeout = PATIENCE
    received = b""
    while not received.endswith(b"\n"):
        readable, _, _ = select.select([reading, process.ended], [], [], timeout)
        timeout = max(0.0, deadline - time.monotonic())
        if not readable and timeout:
            note(f"still starting; the log is {log}")
            continue
        if not readable:
            raise StartError(f"the mount was not ready within {START_TIMEOUT:g} s; its log is {log}")
        data = b""
        if reading in readable:
            with suppress(ConnectionError):  # it died before it had read everything
                data = os.read(reading, 65536)
        if not data:
            code = process.wait(ANSWER_TIMEOUT)
            how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
            raise StartError(f"the daemon {how} before the mount was ready; its log is {log}")
        received += data
    line = os.fsdecode(received).rstrip("\n")
    if line.startswith("ready "):
        return str(json.loads(line.removeprefix("ready ")))
    with suppress(TimeoutError):
        process.wait(ANSWER_TIMEOUT)  # it still writes to its log
    _, exit_code, message = line.split(" ", 2)
    raise StartError(json.loads(message), int(exit_code))


def _see_answer(mountpoint: Path, log: Path) -> None:
    entry = mounted_at(mountpoint)
    if entry is None or entry.type != MSCFS_TYPE or probe(mountpoint, timeout=ANSWER_TIMEOUT) != "answers":
        raise StartError(f"{mountpoint} does not answer although the daemon started; its log is {log}")
