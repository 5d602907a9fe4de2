"""`mscfs sync-replicas`: bring everything below a prefix to the replicas now."""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from mscfs.cli.lines import console
from mscfs.cli.mount import ConfigFile
from mscfs.cli.names import Clients, parse_remote
from mscfs.cli.program import examples
from mscfs.cli.status_view import human_size
from mscfs.errors import SyncError, UsageError
from mscfs.printable import printable

if TYPE_CHECKING:
    from mscfs.client.sync import ReplicaSync, SyncResult


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "sync-replicas",
        epilog=examples(
            "mscfs sync-replicas data",
            "mscfs sync-replicas data train/2024 --replica-indices 0",
            "mscfs sync-replicas data --delete-unmatched-files --dry-run",
        ),
    )(sync_replicas)


def sync_replicas(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="The profile that lists the replicas.")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="An object or directory; else everything.")] = "",
    *,
    indices: Annotated[
        str | None,
        typer.Option("--replica-indices", metavar="0,1", help="Only these replicas, counted in reading order from 0."),
    ] = None,
    delete: Annotated[
        bool, typer.Option("--delete-unmatched-files", help="Remove from the replicas what the primary does not have.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be done.")] = False,
    num_workers: Annotated[
        int | None, typer.Option("--num-workers", min=1, help="Copies at the same time, over all replicas.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Copy what the replicas lack or hold stale from the primary, and show what was done.

    What fails does not stop the rest; the exit code tells.
    """
    remote = parse_remote(profile)
    failed: SyncError | None = None
    with Clients(config_file) as clients, _Display() as display:
        try:
            result = clients.of(remote.profile).sync_replicas(
                path or remote.key,
                replica_indices=_parse_indices(indices),
                delete_unmatched_files=delete,
                dryrun=dry_run,
                num_workers=num_workers,
                on_progress=display.show,
            )
        except SyncError as error:
            failed, result = error, cast("SyncResult", error.result)
    if as_json:
        print(json.dumps(_document(result, failed), indent=2))  # noqa: T201 - the answer
    else:
        console().print(_table(result))
    if failed is not None:
        raise failed


class _Display:
    """One line for each replica on a terminal, counting up; nothing elsewhere."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), SpinnerColumn(), TextColumn("{task.fields[counts]}"))
        self._progress = Progress(
            *columns,
            TimeElapsedColumn(),
            console=Console(stderr=True, highlight=False),
            transient=True,
            disable=not sys.stderr.isatty(),
        )
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def show(self, counts: ReplicaSync) -> None:
        """Called from the threads that copy."""
        with self._lock:
            if counts.profile not in self._tasks:
                name = escape(printable(counts.profile))
                self._tasks[counts.profile] = self._progress.add_task(name, total=None, counts="")
        text = (
            f"{counts.copied:,} copied ({human_size(counts.bytes)}), {counts.fresh:,} fresh, {counts.failed:,} failed"
        )
        self._progress.update(self._tasks[counts.profile], counts=text)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()


def _parse_indices(text: str | None) -> list[int] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError(f"--replica-indices {text}: must be numbers, as 0,1")
    return [int(part) for part in parts]


def _document(result: SyncResult, failed: SyncError | None) -> dict[str, Any]:
    failures = failed.failures if failed else ()
    return {
        "dry_run": result.dryrun,
        "replicas": [asdict(counts) for counts in result.replicas],
        "failures": [{"profile": profile, "key": key, "reason": reason} for profile, key, reason in failures],
    }


def _table(result: SyncResult) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("replica")
    names = ("copied", "bytes", "fresh", "deleted", "failed")
    for name in (f"would be {name}" if result.dryrun and name in {"copied", "deleted"} else name for name in names):
        table.add_column(name, justify="right")
    for counts in result.replicas:
        table.add_row(
            Text(printable(counts.profile)),
            f"{counts.copied:,}",
            human_size(counts.bytes),
            f"{counts.fresh:,}",
            f"{counts.deleted:,}",
            Text(f"{counts.failed:,}", style="red" if counts.failed else ""),
        )
    return table
