"""Mounts as commands look at them and take them away: a hung one must not hang the command."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal

from mscfs.errors import MountError
from mscfs.fuse.mounts import mounted_at

MSCFS_TYPE = "fuse.mscfs"
ANSWER_TIMEOUT = 10.0
"""Seconds in which a mount, or a process of ours, does what takes a moment."""


class BusyError(MountError):
    """The mount is in use."""


def real_path(path: Path) -> Path:
    """The path without symbolic links, asking no mounted file system of ours where that can be avoided."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would look at the mount itself
    for candidate in (absolute, Path(os.path.realpath(absolute.parent)) / absolute.name):
        if mounted_at(candidate) is not None:
            return candidate
    return Path(os.path.realpath(absolute))


def probe(path: Path, *, timeout: float) -> Literal["answers", "dead", "hangs"]:
    """Whether the file system at a path answers within `timeout` seconds. Raises other errors of statvfs(2)."""
    outcome: list[OSError | None] = []

    def ask() -> None:
        try:
            os.statvfs(path)
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    in_time(ask, timeout)
    if not outcome:
        return "hangs"
    if outcome[0] is None:
        return "answers"
    # ECONNABORTED: the connection was cut by hand or by a watchdog.
    if outcome[0].errno in {errno.ENOTCONN, errno.ECONNABORTED}:
        return "dead"
    raise outcome[0]


def in_time(look: Callable[[], object], timeout: float) -> None:
    """Wait at most `timeout` seconds for a call into a file system, which must raise nothing.

    One into a file system that hangs ends only with the process: nobody waits for its thread.
    """
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    thread.join(timeout)


def unmount(path: Path, *, lazy: bool = False) -> None:
    """Take a mount away; `lazy` detaches it now and lets programs that use it finish.

    Raises BusyError when it is in use, MountError with the system's line otherwise.
    """
    if shutil.which("fusermount3"):
        command = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", str(path)]
    else:
        command = ["umount", *(["-l"] if lazy else []), "--", str(path)]
    done = subprocess.run(  # noqa: S603 - a fixed command, the path behind `--`
        command, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise (BusyError if "busy" in said else MountError)(said or f"{command[0]} failed")


def leave_nothing(mountpoint: Path) -> None:
    """Take away what a process of ours that is gone left mounted; a mount that answers is somebody else's by now."""
    entry = mounted_at(mountpoint)
    if entry is not None and entry.type == MSCFS_TYPE and probe(mountpoint, timeout=ANSWER_TIMEOUT) == "dead":
        with suppress(MountError):
            unmount(mountpoint, lazy=True)


def holders(mountpoint: Path) -> list[str]:
    """Who uses a mount, as `name (pid)`: working directories, open files, mappings. Reads only /proc."""
    place, below = str(mountpoint), f"{mountpoint}/"
    return [
        f"{_name(process)} ({process.name})"
        for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name))
        if any(name == place or name.startswith(below) for name in _used(process))
    ]


def _used(process: Path) -> Iterator[str]:
    links = [process / "cwd", process / "root", process / "exe"]
    try:
        links += (process / "fd").iterdir()
        maps = os.fsdecode((process / "maps").read_bytes())
    except OSError:
        return  # it ended meanwhile, or belongs to somebody else
    for link in links:
        try:
            yield str(link.readlink())
        except OSError:
            continue
    for line in maps.splitlines():
        yield line.split(" ", 5)[-1].strip()


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip()
    except OSError:
        return "?"
