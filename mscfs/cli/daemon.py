"""A mount as a process of its own, which reports through a pipe when it answers, or why it does not.

The report is one line: `ready`, or `error CODE "MESSAGE"`. The command that started it returns 0 only after it has seen
the mount answer by itself, and leaves nothing mounted and nothing running when it has not (contract L1).
"""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from mscfs.cli.mount_table import MSCFS_TYPE, mounted_at, probe, unmount
from mscfs.cli.program import note
from mscfs.directories import digest, private, state_directory
from mscfs.errors import MountError

START_TIMEOUT = 900.0
"""Seconds until a daemon must have reported. Mostly it takes one; but first it uploads what a crash left."""
PATIENCE = 10.0
"""Seconds after which somebody who waits is told where to look."""
ANSWER_TIMEOUT = 10.0
_LARGEST_LOG = 16 << 20


class StartError(MountError):
    """The daemon could not start; the command ends with the code it reported."""

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def start(arguments: list[str], profile: str, mountpoint: Path) -> int:
    """Start `mscfs mount --foreground` with these arguments in the background; returns its pid when the mount answers.

    Raises StartError. After an error, also an interruption, the process is gone and nothing is mounted.
    """
    log = log_file(profile, mountpoint)
    reading, writing = os.pipe()
    try:
        with log.open("ab") as output:
            command = [sys.executable, "-P", "-m", "mscfs.cli.main", "mount", "--foreground", f"--ready-fd={writing}"]
            process = subprocess.Popen(  # noqa: S603 - our own interpreter
                [*command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",  # a daemon keeps no directory busy
                pass_fds=[writing],
                start_new_session=True,
            )
    finally:
        os.close(writing)
    try:
        _wait(process, reading, log)
        _see_answer(mountpoint, log)
    except BaseException:
        _stop(process)
        leave_nothing(mountpoint)
        raise
    finally:
        os.close(reading)
    return process.pid


def log_file(profile: str, mountpoint: Path) -> Path:
    """The log of a mount, made 0600 when it is not there; one that grew large starts anew beside its predecessor."""
    name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', profile)}-{digest(str(mountpoint))[:8]}.log"
    path = private(state_directory() / "log") / name
    with suppress(FileNotFoundError):
        if path.stat().st_size > _LARGEST_LOG:
            path.replace(path.with_suffix(".log.1"))
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return path


def leave_nothing(mountpoint: Path) -> None:
    """Take away what a process of ours that is gone left mounted; a mount that answers is somebody else's by now."""
    entry = mounted_at(mountpoint)
    if entry is not None and entry.type == MSCFS_TYPE and probe(mountpoint, timeout=ANSWER_TIMEOUT) == "dead":
        with suppress(MountError):
            unmount(mountpoint, lazy=True)


class Report:
    """The daemon's end of the pipe; without a descriptor (in the foreground) it says nothing."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        if descriptor is not None:
            os.set_inheritable(descriptor, False)

    def ready(self) -> None:
        """The mount answers."""
        self._say("ready")

    def error(self, message: str, code: int) -> None:
        """The mount cannot start; nothing after `ready` is reported."""
        self._say(f"error {code} {json.dumps(message)}")

    def _say(self, line: str) -> None:
        if self._descriptor is not None:
            # Whoever started us may be gone: the mount is wanted all the same.
            with suppress(BrokenPipeError):
                os.write(self._descriptor, os.fsencode(line) + b"\n")
            os.close(self._descriptor)
            self._descriptor = None


def _wait(process: subprocess.Popen[bytes], reading: int, log: Path) -> None:
    ended = os.pidfd_open(process.pid)
    deadline = time.monotonic() + START_TIMEOUT
    timeout = PATIENCE
    received = b""
    try:
        while not received.endswith(b"\n"):
            readable, _, _ = select.select([reading, ended], [], [], timeout)
            timeout = max(0.0, deadline - time.monotonic())
            if not readable and timeout:
                note(f"still starting; the log is {log}")
                continue
            if not readable:
                raise StartError(f"the mount was not ready within {START_TIMEOUT:g} s; its log is {log}")
            data = os.read(reading, 65536) if reading in readable else b""
            if not data:
                code = process.wait(timeout=ANSWER_TIMEOUT)
                how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
                raise StartError(f"the daemon {how} before the mount was ready; its log is {log}")
            received += data
    finally:
        os.close(ended)
    line = os.fsdecode(received).rstrip("\n")
    if line != "ready":
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=ANSWER_TIMEOUT)  # it still writes to its log
        _, exit_code, message = line.split(" ", 2)
        raise StartError(json.loads(message), int(exit_code))


def _see_answer(mountpoint: Path, log: Path) -> None:
    entry = mounted_at(mountpoint)
    if entry is None or entry.type != MSCFS_TYPE or probe(mountpoint, timeout=ANSWER_TIMEOUT) != "answers":
        raise StartError(f"{mountpoint} does not answer although the daemon started; its log is {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=ANSWER_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
