"""Who owns a row or a directory: a process, told apart from every later one with the same pid."""

from __future__ import annotations

import functools
import os
from pathlib import Path


def process_token() -> str:
    """This process, for rows and directories that it owns. The first call in a process may raise OSError."""
    return _own_token(os.getpid())


def is_alive(token: str | None) -> bool:
    """Whether the process of a token still runs. A process of another pid namespace counts as ended.

    When we cannot look, say for want of a descriptor, it counts as running: what it has in hand stays its own.
    """
    pid = (token or "").partition("-")[0]
    try:
        return pid.isdecimal() and token == _token(int(pid))
    except OSError:
        return True


@functools.lru_cache(maxsize=1)
def _own_token(pid: int) -> str:
    return _token(pid)


def _token(pid: int) -> str:
    # Start times count from the boot of the machine, so they repeat: the boot is part of the token.
    return f"{pid}-{_start_time(pid)}-{boot()}"


def _start_time(pid: int) -> str:
    # Field 22 of /proc/PID/stat, counted behind the command name, which may hold spaces (proc(5)).
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: another user's
        return "ended"
    # A zombie has ended; in a container nobody may ever collect it.
    return "ended" if fields[0] in "ZX" else fields[19]


@functools.cache
def boot() -> str:
    """This boot of this machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().replace("-", "")[:12]
    except OSError:
        return ""
