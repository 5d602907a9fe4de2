"""`mscfs recover`: what a crash left unsent, and what must not be sent because the object is another one by now."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mscfs.cli import completion
from mscfs.cli.mount import ConfigFile
from mscfs.cli.program import examples, note, printable
from mscfs.cli.status_view import human_size
from mscfs.config.load import load_config
from mscfs.errors import UsageError
from mscfs.journal import Journal, PendingUpload


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("mscfs recover training-data", "mscfs recover training-data --save ./rescued"))(recover)


def recover(
    profile: Annotated[
        str,
        typer.Argument(metavar="PROFILE", help="The profile it was written to.", autocompletion=completion.profiles),
    ],
    *,
    save: Annotated[
        str | None, typer.Option("--save", metavar="DIRECTORY", help="Move it there, and forget it here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """List contents that were written and kept: after a crash the object was another one, or nobody closed the file.

    The next mount uploads by itself what was unsent and still fits; this is what does not. Nothing here is ever
    dropped or sent by itself: save it, compare, and copy what you want with `mscfs cp`.
    """
    from mscfs.store import open_store  # noqa: PLC0415 - imports the SDKs of the stores in use

    manager = open_store(load_config(config_file), profile)
    try:
        journal = manager.journal
        kept = _kept(journal) if journal is not None and journal.path.exists() else []
        if as_json:
            print(json.dumps([_document(upload) for upload in kept], indent=2))  # noqa: T201 - the answer
        elif save is None:
            _show(kept)
        if save is not None and journal is not None:
            _save(journal, kept, Path(save))
    finally:
        manager.close()


def _kept(journal: Journal) -> list[PendingUpload]:
    return [upload for upload in journal.uploads() if upload.problem and upload.staging.exists()]


def _document(upload: PendingUpload) -> dict[str, object]:
    status = upload.staging.stat()
    return {
        "key": upload.key,
        "size": status.st_size,
        "written": status.st_mtime,
        "problem": upload.problem,
        "file": str(upload.staging),
    }


def _show(kept: list[PendingUpload]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    if not kept:
        console.print("nothing was kept")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("key", "size", "written (UTC)", "why it was kept"):
        table.add_column(column, no_wrap=True)
    for upload in kept:
        status = upload.staging.stat()
        written = datetime.fromtimestamp(status.st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(Text(printable(upload.key)), human_size(status.st_size), written, Text(printable(upload.problem)))
    console.print(table)
    console.print(Text("Save it with --save DIRECTORY, then copy what you want with `mscfs cp`.", style="dim"))


def _save(journal: Journal, kept: list[PendingUpload], directory: Path) -> None:
    """Move first, forget then: after a crash in between, the next recovery forgets what is not there any more."""
    for upload in kept:
        target = directory / _inside(upload.key)
        if target.exists():
            raise UsageError(f"{target} exists: choose another directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(upload.staging, target)
        journal.drop_upload(upload.id)
        note(f"saved {target}")


def _inside(key: str) -> PurePosixPath:
    """The key as a path that cannot lead out of a directory."""
    return PurePosixPath(*(part for part in PurePosixPath(key).parts if part not in {"/", ".."}))
