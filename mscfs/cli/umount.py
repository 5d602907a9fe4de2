"""`mscfs umount`: end a mount in order, and say what is in the way when that is not possible."""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mscfs.cli import completion
from mscfs.cli.mount_table import MSCFS_TYPE, BusyError, holders, leave_nothing, probe, real_path, unmount
from mscfs.cli.program import examples, note
from mscfs.errors import MountError
from mscfs.fuse.mounts import mounted_at
from mscfs.telemetry import control, registry
from mscfs.telemetry.registry import MountRecord

_GRACE = 15.0
"""Seconds beyond its own `shutdown_timeout` that a daemon is given to end."""
_PROBE_TIMEOUT = 5.0
_SHOWN_HOLDERS = 8
_TRIES = 10
_PAUSE = 0.1
"""Seconds between two of them."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("mscfs umount /mnt/data"))(umount)


def umount(
    mountpoint: Annotated[
        str, typer.Argument(metavar="MOUNTPOINT", help="Where it is mounted.", autocompletion=completion.mountpoints)
    ],
    *,
    lazy: Annotated[
        bool,
        typer.Option("--lazy", "-l", help="Detach now, although programs use it; it ends when they have finished."),
    ] = False,
) -> None:
    """Unmount; returns when everything written is on the primary and the mount's process has ended.

    Copies to replicas that still wait are kept and go on at the next mount, or with `mscfs drain PROFILE`.
    A mount whose process was killed is detached.
    """
    place = real_path(Path(mountpoint))
    entry = mounted_at(place)
    record = registry.find(place)
    if entry is None and record is None:
        raise MountError(f"{place} is not mounted; `mscfs status` lists the mounts")
    before = _status(record) if record is not None else {}
    if entry is not None:
        if entry.type != MSCFS_TYPE:
            raise MountError(f"{place} is a mount of type {entry.type}, not of mscfs")
        detach(place, lazy=lazy)
    if record is not None and not lazy:
        wait_for_end(record, before)
        # A mount can lie on a dead one that an earlier kill left there; one that answers was made meanwhile.
        leave_nothing(place)


def detach(place: Path, *, lazy: bool = False) -> None:
    """Take one mount away; a dead one always. Raises MountError that names who uses it."""
    for tries_left in reversed(range(_TRIES)):
        try:
            unmount(place, lazy=lazy)
        except BusyError:
            # Only now: a question to a mount that hangs keeps it busy.
            state = probe(place, timeout=_PROBE_TIMEOUT)
            if state == "dead":
                unmount(place, lazy=True)
                return
            users = holders(place)
            if users or state == "hangs" or not tries_left:
                shown = ", ".join(users[:_SHOWN_HOLDERS]) + (", …" if len(users) > _SHOWN_HOLDERS else "")
                in_use = f"{place} is in use by {shown or 'a program'}: end it, or detach with --lazy"
                raise MountError(in_use) from None
            # Nothing is open there: a call was under way, of a program that passes by or of the mount's own watchdog.
            time.sleep(_PAUSE)
        else:
            return


def wait_for_end(record: MountRecord, status: dict[str, Any]) -> None:
    """Wait until a mount's process has ended, showing what it uploads. `status` is the last that is known.

    Raises MountError when it takes too long.
    """
    try:
        process = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    deadline = time.monotonic() + record.shutdown_timeout + _GRACE
    try:
        with Console(stderr=True).status("ending the mount") as shown:
            while not select.select([process], [], [], 0.2)[0]:
                status = _status(record) or status
                shown.update(_describe(status))
                if time.monotonic() > deadline:
                    raise MountError(
                        f"{record.mountpoint} is unmounted, but its process {record.pid} still works after "
                        f"{record.shutdown_timeout + _GRACE:g} s ({_describe(status)})"
                    )
    finally:
        os.close(process)
    journal = status.get("journal", {})
    if kept := journal.get("kept"):
        note(f"{kept} contents are not on the primary: `mscfs recover list {record.profile}` shows them")
    if pending := journal.get("pending"):
        note(f"{pending} journal entries wait: the next mount goes on, or `mscfs drain {record.profile}`")


def _status(record: MountRecord) -> dict[str, Any]:
    """The status document; empty when there is no answer soon."""
    with suppress(MountError):
        document: dict[str, Any] = control.request(Path(record.socket), "status", timeout=1.0)
        return document
    return {}


def _describe(status: dict[str, Any]) -> str:
    staging = status.get("staging", {})
    if not staging.get("files"):
        return "ending the mount"
    return f"uploading {staging['files']} files, {staging['bytes'] / (1 << 20):.1f} MiB"
