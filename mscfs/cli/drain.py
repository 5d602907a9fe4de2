"""`mscfs drain`: wait until the replicas have everything."""

from __future__ import annotations

import enum
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from mscfs.cli import completion
from mscfs.cli.mount import ConfigFile
from mscfs.cli.mount_table import real_path
from mscfs.cli.program import examples
from mscfs.errors import MountError
from mscfs.printable import printable
from mscfs.telemetry import control, registry
from mscfs.telemetry.lag import Behind, what_replicas_lack
from mscfs.telemetry.registry import MountRecord

if TYPE_CHECKING:
    from mscfs.client.drain import DrainProgress

_PATIENCE = 30.0
"""Seconds beyond its request until a mount that is silent counts as one that does not answer."""
_STEP = 1.0
"""Seconds that one request to a mount lasts: the line that shows what is left changes that often."""


class Outcome(enum.StrEnum):
    """How a drain ended."""

    DRAINED = "drained"
    """Nothing waits any more."""
    STUCK = "stuck"
    """All that is left was tried and would fail again, or is nothing that the command could do."""
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Report:
    """How a drain ended, and what is left. `remaining` also counts journal entries that wait for no replica."""

    profile: str
    mountpoint: str | None
    outcome: Outcome
    remaining: int
    replicas: Sequence[Behind]

    @property
    def waiting(self) -> str:
        """What is left, and why."""
        return _waiting(self.mountpoint or self.profile, self.remaining, self.replicas)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "mscfs drain /mnt/data --timeout 600", "mscfs drain training-data", "mscfs drain training-data --json"
        )
    )(drain)


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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object in the end: how it ended and what is left.")
    ] = False,
    config_file: ConfigFile = None,
) -> None:
    """Wait until everything written is on the primary and on every replica that wants it.

    A profile that is not mounted is drained by this command itself. Ends with 0 when nothing waits any more, and with
    1 and the reasons when all that waits would fail again or the time is over.
    """
    records = registry.find_profile(target)
    if not records and (record := registry.find(real_path(Path(target)))):
        records = [record]
    deadline = time.monotonic() + timeout if timeout is not None else None
    with Console(stderr=True).status(f"draining {target}") as shown:
        if records:
            report = _drain_mounts(records, deadline, shown.update)
        else:
            report = _drain_unmounted(target, deadline, config_file, shown.update)
    if as_json:
        print(json.dumps(asdict(report), indent=2))  # noqa: T201 - the answer
    if report.outcome is not Outcome.DRAINED:
        raise MountError(report.waiting)


def _drain_mounts(records: Sequence[MountRecord], deadline: float | None, show: Callable[[str], None]) -> Report:
    """The report of the first mount that is not drained, or of the last one."""
    for record in records:
        report = _drain_mount(record, deadline, show)
        if report.outcome is not Outcome.DRAINED:
            break
    return report


def _drain_mount(record: MountRecord, deadline: float | None, show: Callable[[str], None]) -> Report:
    began = time.monotonic()
    while True:
        left = _STEP if deadline is None else max(0.0, min(_STEP, deadline - time.monotonic()))
        arguments = {"timeout": left, "elapsed": time.monotonic() - began}
        answer: dict[str, Any] = control.request(Path(record.socket), "drain", arguments, timeout=left + _PATIENCE)
        remaining, replicas = answer["remaining"], [Behind(**behind) for behind in answer["replicas"]]
        outcome = None
        if not remaining:
            outcome = Outcome.DRAINED
        elif answer["hopeless"] >= remaining:
            outcome = Outcome.STUCK
        elif deadline is not None and time.monotonic() >= deadline:
            outcome = Outcome.TIMEOUT
        if outcome is not None:
            return Report(record.profile, record.mountpoint, outcome, remaining, replicas)
        show(escape(printable(_waiting(record.mountpoint, remaining, replicas))))


def _drain_unmounted(
    profile: str, deadline: float | None, config_file: Path | None, show: Callable[[str], None]
) -> Report:
    from mscfs.client.drain import drain as drain_journal  # noqa: PLC0415 - imports the SDKs of the stores in use
    from mscfs.config.load import load_config  # noqa: PLC0415
    from mscfs.store import open_store  # noqa: PLC0415

    def on_progress(progress: DrainProgress) -> None:
        show(f"{progress.done} done, {progress.remaining} journal entries wait")

    manager = open_store(load_config(config_file), profile)
    try:
        timeout = None if deadline is None else max(0.0, deadline - time.monotonic())
        result = drain_journal(manager, timeout=timeout, on_progress=on_progress)
        is_late = deadline is not None and time.monotonic() >= deadline
        lag = manager.journal.lag() if manager.journal is not None and manager.journal.path.exists() else {}
        configured = [replica.profile for replica in manager.replicas]
    finally:
        manager.close()
    reasons = {failure.profile: failure.reason for failure in result.failures if failure.profile in lag}
    replicas = [
        replace(behind, last_error=reasons.get(behind.profile, behind.last_error))
        for behind in what_replicas_lack(configured, lag)
    ]
    ended = Outcome.TIMEOUT if is_late else Outcome.STUCK
    outcome = Outcome.DRAINED if result.complete else ended
    return Report(profile, None, outcome, result.remaining, replicas)


def _waiting(what: str, remaining: int, replicas: Sequence[Behind]) -> str:
    # An error mostly names its store already.
    why = "".join(
        f"; {behind.profile}: {behind.last_error.removeprefix(f'{behind.profile}:').lstrip()}"
        for behind in replicas
        if behind.last_error
    )
    return f"{what}: {remaining} journal entries wait{why}"
