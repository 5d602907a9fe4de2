"""`mscfs metrics`: the numbers of the mounts, for Prometheus."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from mscfs.cli import completion
from mscfs.cli.mount_table import real_path
from mscfs.cli.names import ending_with_the_reader
from mscfs.cli.program import examples
from mscfs.cli.status import all_mounts, status_of
from mscfs.errors import MountError
from mscfs.telemetry.registry import MountRecord
from mscfs.telemetry.status import MountStatus


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("mscfs metrics", "mscfs metrics training-data", "mscfs metrics /mnt/data /mnt/runs"))(
        metrics
    )


def metrics(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROFILE|MOUNTPOINT…",
            help="Mounts, or all mounts of a profile; else all mounts.",
            autocompletion=completion.profiles_and_mountpoints,
        ),
    ] = None,
) -> None:
    """Print the metrics of the mounts in Prometheus' text format.

    A mount that does not answer has the state `unresponsive`, one that was killed `dead`. No store is asked.
    """
    from mscfs.telemetry.metrics import expose  # noqa: PLC0415 - imports prometheus_client

    documents = [status_of(record, look=False) for record in _youngest(_records(targets or ()))]
    exposition = expose([msgspec.convert(document, MountStatus) for document in documents])
    with ending_with_the_reader():
        sys.stdout.buffer.write(exposition)


def _records(targets: Sequence[str]) -> list[MountRecord]:
    """The mounts that are meant, oldest first. Raises MountError for a name that means none."""
    running = all_mounts()
    wanted: set[int] = set()
    for target in targets:
        mountpoint = str(real_path(Path(target)))
        found = [record for record in running if target == record.profile or mountpoint == record.mountpoint]
        if not found:
            raise MountError(f"no mount of mscfs runs at or of {target}; `mscfs status` lists the mounts")
        wanted.update(record.pid for record in found)
    return [record for record in running if not targets or record.pid in wanted]


def _youngest(records: Sequence[MountRecord]) -> list[MountRecord]:
    """Of two mounts at one place, the older of which still uploads, the one that programs see."""
    return list({(record.profile, record.mountpoint): record for record in records}.values())
