"""`mscfs status`: how the mounts are."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from mscfs.cli import completion
from mscfs.cli.lines import console
from mscfs.cli.mount_table import MSCFS_TYPE, probe, real_path
from mscfs.cli.program import examples
from mscfs.cli.status_view import render
from mscfs.errors import MountError
from mscfs.fuse.mounts import mounted_at
from mscfs.journal import is_alive
from mscfs.telemetry import control, registry
from mscfs.telemetry.registry import MountRecord
from mscfs.telemetry.status import MountState, MountStatus, PrimaryStatus

_ANSWER_TIMEOUT = 5.0
"""Seconds until a mount that is silent counts as one that does not answer."""
_PROBE_TIMEOUT = 1.0
"""Seconds; a dead mountpoint says so at once."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("mscfs status", "mscfs status /mnt/data --json"))(status)


def status(
    mountpoint: Annotated[
        str | None,
        typer.Argument(
            metavar="MOUNTPOINT", help="One mount; else all of them.", autocompletion=completion.mountpoints
        ),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object for MOUNTPOINT; else a list of such objects.")
    ] = False,
) -> None:
    """Show how the mounts are: stores, what they served, what waits for replicas, cache and staging."""
    records = all_mounts() if mountpoint is None else [_find_any(Path(mountpoint))]
    documents = [status_of(record) for record in records]
    if as_json:
        print(json.dumps(documents if mountpoint is None else documents[0], indent=2))  # noqa: T201 - the answer
        return
    out = console()
    for document in documents:
        out.print(render(msgspec.convert(document, MountStatus)))
    if not documents:
        out.print("nothing is mounted")


def all_mounts() -> list[MountRecord]:
    """The running mounts, and the killed ones whose dead mountpoints are there still, oldest first."""
    running = registry.mounts()
    places = {record.mountpoint for record in running}
    dead: dict[str, MountRecord] = {}
    for record in registry.left():
        entry = mounted_at(Path(record.mountpoint))
        if entry is None or entry.type != MSCFS_TYPE or record.mountpoint in places:
            registry.forget(record)
        elif _is_dead(entry.mountpoint):
            dead[record.mountpoint] = record
    return sorted([*dead.values(), *running], key=lambda record: record.started)


def _is_dead(mountpoint: Path) -> bool:
    try:
        return probe(mountpoint, timeout=_PROBE_TIMEOUT) == "dead"
    except OSError:  # of a mount that is another user's by now
        return False


def _find_any(mountpoint: Path) -> MountRecord:
    """The mount at a place, the killed one if that is all there is. Raises MountError."""
    place = str(real_path(mountpoint))
    found = [record for record in all_mounts() if record.mountpoint == place]
    return found[-1] if found else find_mount(mountpoint)


def find_mount(mountpoint: Path) -> MountRecord:
    """The running mount at a place. Raises MountError."""
    record = registry.find(real_path(mountpoint))
    if record is None:
        raise MountError(f"no mount of mscfs runs at {mountpoint}; `mscfs status` lists the mounts")
    return record


def status_of(record: MountRecord, *, look: bool = True) -> dict[str, Any]:
    """The status document of a mount; of one that does not answer, what its record tells.

    With `look` the mount asks its stores first how they are.
    """
    try:
        document: dict[str, Any] = control.request(
            Path(record.socket), "status", {"look": look}, timeout=_ANSWER_TIMEOUT
        )
    except MountError:
        silent = MountStatus(
            profile=record.profile,
            mountpoint=record.mountpoint,
            pid=record.pid,
            state=MountState.UNRESPONSIVE if is_alive(record.process) else MountState.DEAD,
            primary=PrimaryStatus(profile=record.profile),
            started=record.started,
            uptime=time.time() - record.started,
        )
        document = msgspec.to_builtins(silent)
    return document
