"""`mscfs status` and `mscfs drain`: how the mounts are, and waiting until the replicas have everything."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from mscfs.cli import completion
from mscfs.cli.lines import console
from mscfs.cli.mount import ConfigFile
from mscfs.cli.mount_table import MSCFS_TYPE, mounted_at, probe, real_path
from mscfs.cli.program import examples
from mscfs.cli.status_view import render
from mscfs.errors import MountError
from mscfs.journal import is_alive
from mscfs.printable import printable
from mscfs.telemetry import control, registry
from mscfs.telemetry.registry import MountRecord
from mscfs.telemetry.status import MountState, MountStatus, PrimaryStatus

_ANSWER_TIMEOUT = 5.0
"""Seconds until a mount that is silent counts as one that does not answer."""
_PROBE_TIMEOUT = 1.0
"""Seconds; a dead mountpoint says so at once."""
_DRAIN_PATIENCE = 30.0
"""Seconds beyond that until a mount that is silent counts as one that does not answer."""
_DRAIN_STEP = 1.0
"""Seconds that one drain request lasts: the line that shows what is left changes that often."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("mscfs status", "mscfs status /mnt/data --json"))(status)
    app.command(epilog=examples("mscfs drain /mnt/data --timeout 600", "mscfs drain training-data"))(drain)


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


def drain(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MOUNTPOINT|PROFILE",
            help="A mount, or a profile.",
            autocompletion=completion.profiles_and_mountpoints,
        ),
    ],
    *,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Give up after this long; else never.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Wait until everything written is on the primary and on every replica that wants it.

    A profile that is not mounted is drained by this command itself. Ends with 0 when nothing waits any more, and with
    1 and the reasons when all that waits would fail again.
    """
    records = registry.find_profile(target)
    if not records and (record := registry.find(real_path(Path(target)))):
        records = [record]
    deadline = time.monotonic() + timeout if timeout is not None else None
    with Console(stderr=True).status(f"draining {target}") as shown:
        if not records:
            _drain_unmounted(target, timeout, config_file, shown.update)
        for record in records:
            _drain_mount(record, deadline, shown.update)


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


def _drain_mount(record: MountRecord, deadline: float | None, show: Callable[[str], None]) -> None:
    began = time.monotonic()
    while True:
        left = _DRAIN_STEP if deadline is None else max(0.0, min(_DRAIN_STEP, deadline - time.monotonic()))
        arguments = {"timeout": left, "elapsed": time.monotonic() - began}
        answer = control.request(Path(record.socket), "drain", arguments, timeout=left + _DRAIN_PATIENCE)
        if not answer["remaining"]:
            return
        waiting = _waiting(record.mountpoint, answer["remaining"], answer["reasons"])
        if answer["hopeless"] >= answer["remaining"] or (deadline is not None and time.monotonic() >= deadline):
            raise MountError(waiting)
        show(escape(printable(waiting)))


def _waiting(what: object, remaining: int, reasons: Mapping[str, str]) -> str:
    """What is left of a drain, and why."""
    # An error mostly names its store already.
    why = "".join(f"; {replica}: {reason.removeprefix(f'{replica}:').lstrip()}" for replica, reason in reasons.items())
    return f"{what}: {remaining} journal entries wait{why}"


def _drain_unmounted(
    profile: str, timeout: float | None, config_file: Path | None, show: Callable[[str], None]
) -> None:
    from mscfs.client.drain import DrainProgress, drain  # noqa: PLC0415 - imports the SDKs of the stores in use
    from mscfs.config.load import load_config  # noqa: PLC0415
    from mscfs.store import open_store  # noqa: PLC0415

    def on_progress(progress: DrainProgress) -> None:
        show(f"{progress.done} done, {progress.remaining} journal entries wait")

    manager = open_store(load_config(config_file), profile)
    try:
        result = drain(manager, timeout=timeout, on_progress=on_progress)
    finally:
        manager.close()
    if not result.complete:
        reasons = {failure.profile: failure.reason for failure in result.failures}
        raise MountError(_waiting(profile, result.remaining, reasons))
