"""`mscfs recover`: what a crash or an outage left unsent, in the hands of a person."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mscfs.cli import completion
from mscfs.cli.lines import console
from mscfs.cli.mount import ConfigFile
from mscfs.cli.program import examples, note, what_failed
from mscfs.cli.status_view import human_size
from mscfs.config.load import load_config
from mscfs.directories import drafted, state_directory
from mscfs.errors import MscfsError, NotFoundError, StorageError, UsageError
from mscfs.journal import Journal, PendingUpload
from mscfs.printable import printable

if TYPE_CHECKING:
    from mscfs.replicas.manager import ReplicaManager

A_MOUNT_DOES = "a mount uploads it when the primary answers"

Profile = Annotated[
    str, typer.Argument(metavar="PROFILE", help="The profile it was written to.", autocompletion=completion.profiles)
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="ID...", help="Which, as `list` shows them.", autocompletion=completion.left_behind),
]
All = Annotated[bool, typer.Option("--all", help="Everything that is listed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(
    help="Contents that were written and are not on the primary: after a crash, or while it was down.\n\n"
    "A mount uploads by itself what still fits; nothing is ever dropped or sent over something newer by itself.",
    no_args_is_help=True,
)


def register(parent: typer.Typer) -> None:
    """Add the group of commands."""
    parent.add_typer(app, name="recover")


@app.command("list", epilog=examples("mscfs recover list training-data", "mscfs recover list training-data --json"))
def list_(profile: Profile, *, as_json: AsJson = False, config_file: ConfigFile = None) -> None:
    """Show what there is, oldest first, and why it is not on the primary."""
    with _opened(profile, config_file) as place:
        if as_json:
            _print_json([_document(content) for content in place.contents])
        else:
            _show_table(place.contents)


@app.command(epilog=examples("mscfs recover show training-data 12"))
def show(
    profile: Profile,
    identifier: Annotated[str, typer.Argument(metavar="ID", autocompletion=completion.left_behind)],
    *,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Show one content beside what the primary holds now."""
    with _opened(profile, config_file) as place:
        (content,) = place.chosen([identifier])
        found = _document(content) | {"primary": place.on_primary(content.key)}
    if as_json:
        _print_json(found)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for name, value in found.items():
        table.add_row(Text(name, style="dim"), Text(printable(_described(name, value))))
    console().print(table)


@app.command(
    epilog=examples(
        "mscfs recover upload training-data 12 13",
        "mscfs recover upload training-data --all",
        "mscfs recover upload training-data 12 --overwrite",
        "mscfs recover upload training-data 12 --key rescued/model.bin",
    )
)
def upload(
    profile: Profile,
    identifiers: Ids = None,
    *,
    everything: All = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what the primary holds, whoever wrote it since.")
    ] = False,
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help="Upload it under this key, which must be free.")
    ] = "",
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Upload contents, each if the primary still holds what it was made from.

    What fails stays and does not stop the rest; the exit code tells.
    """
    from mscfs.vfs.leftbehind import bring_home  # noqa: PLC0415 - loads the file system

    def act(place: _Place, content: PendingUpload) -> str:
        written, _ = bring_home(place.manager, place.journal, content, key=key, overwrite=overwrite)
        return written.key

    with _opened(profile, config_file) as place:
        contents = place.chosen(identifiers, everything=everything)
        if key and len(contents) != 1:
            raise UsageError("--key goes with one ID")
        place.each(contents, act, "uploaded", as_json=as_json)


@app.command(
    epilog=examples("mscfs recover discard training-data 12", "mscfs recover discard training-data --all --yes")
)
def discard(
    profile: Profile,
    identifiers: Ids = None,
    *,
    everything: All = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Delete contents for good."""
    from mscfs.vfs.leftbehind import forget  # noqa: PLC0415 - loads the file system

    def act(place: _Place, content: PendingUpload) -> str:
        forget(place.journal, content)
        return content.key

    with _opened(profile, config_file) as place:
        contents = place.chosen(identifiers, everything=everything)
        if contents and not yes:
            _show_table(contents, stderr=True)
            typer.confirm("Delete for good what is listed above?", abort=True, err=True)
        place.each(contents, act, "discarded", as_json=as_json)


@app.command(
    epilog=examples("mscfs recover save training-data ./rescued", "mscfs recover save training-data ./rescued 12")
)
def save(
    profile: Profile,
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="Made if it is not there.")],
    identifiers: Ids = None,
    *,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Move contents, all or those named, into a directory of yours, under their keys."""
    from mscfs.vfs.leftbehind import claimed  # noqa: PLC0415 - loads the file system

    def act(place: _Place, content: PendingUpload) -> str:
        target = directory / _inside(content.key)
        if target.exists():
            raise UsageError(f"{target} exists: choose another directory")
        target.parent.mkdir(parents=True, exist_ok=True)
        # Moved first, forgotten then: after a crash in between, the next recovery forgets what is not there any more.
        with claimed(place.journal, content):
            _move(content.staging, target)
            place.journal.drop_upload(content.id)
        return str(target)

    with _opened(profile, config_file) as place:
        place.each(place.chosen(identifiers, everything=not identifiers), act, "saved", as_json=as_json)


@dataclass(frozen=True)
class _Place:
    """A profile's state directory and its primary."""

    manager: ReplicaManager
    journal: Journal
    contents: Sequence[PendingUpload]

    def chosen(self, identifiers: Sequence[str] | None, *, everything: bool = False) -> Sequence[PendingUpload]:
        if everything:
            if identifiers:
                raise UsageError("--all goes without IDs")
            return self.contents
        if not identifiers:
            raise UsageError("say which: an ID as `mscfs recover list` shows it, or --all")
        by_id = {str(content.id): content for content in self.contents}
        unknown = [identifier for identifier in identifiers if identifier not in by_id]
        if unknown:
            raise UsageError(f"there is no {unknown[0]!r}: `mscfs recover list` shows what there is")
        return [by_id[identifier] for identifier in dict.fromkeys(identifiers)]

    def on_primary(self, key: str) -> dict[str, Any] | None:
        """What the primary holds under a key; None: nothing, or it cannot be asked."""
        try:
            present = self.manager.primary.head(key) if key else None
        except NotFoundError:
            return None
        except StorageError as error:
            return {"error": str(error)}
        if present is None:
            return None
        return {"size": present.content_length, "modified": present.last_modified.timestamp()}

    def each(
        self,
        contents: Sequence[PendingUpload],
        act: Callable[[_Place, PendingUpload], str],
        done: str,
        *,
        as_json: bool,
    ) -> None:
        """Do something with each; what fails does not stop the rest, and is raised at the end."""
        results: list[dict[str, str]] = []
        failed: OSError | UsageError | None = None
        for content in contents:
            try:
                where = act(self, content)
            except (OSError, UsageError) as error:
                failed = failed or error
                reason = str(error) if isinstance(error, MscfsError) else what_failed(error)
                results.append({"id": str(content.id), "key": content.key, "error": reason})
                if not as_json and len(contents) > 1:
                    note(f"{content.id}: {reason}")
            else:
                results.append({"id": str(content.id), "key": content.key, done: where})
                if not as_json:
                    note(f"{done} {where}")
        if as_json:
            _print_json(results)
        if failed is not None:
            raise failed


@contextmanager
def _opened(profile: str, config_file: Path | None) -> Iterator[_Place]:
    from mscfs.fuse.ownership import shared  # noqa: PLC0415 - not needed to complete a command line
    from mscfs.store import open_store  # noqa: PLC0415 - imports the SDKs of the stores in use
    from mscfs.vfs.leftbehind import left_behind  # noqa: PLC0415 - loads the file system
    from mscfs.vfs.recovery import adopt  # noqa: PLC0415
    from mscfs.vfs.staging import staging_directories  # noqa: PLC0415

    manager = open_store(load_config(config_file), profile)
    try:
        journal = manager.journal
        assert journal is not None
        # To a mount elsewhere we are blind: what its programs are writing would seem to be left behind.
        with shared(state_directory()):
            staging = staging_directories(journal.path)
            if staging.is_dir():
                adopt(journal, staging)
            yield _Place(manager, journal, left_behind(journal) if journal.path.exists() else [])
    finally:
        manager.close()


def _document(content: PendingUpload) -> dict[str, Any]:
    status = content.staging.stat()
    return {
        "id": str(content.id),
        "key": content.key,
        "size": status.st_size,
        "written": status.st_mtime,
        "problem": content.problem,
        "base": content.base.token if content.base is not None else None,
        "file": os.fspath(content.staging),
    }


def _described(name: str, value: object) -> str:
    if name == "written" and isinstance(value, float):
        return f"{_moment(value)} UTC"
    if name == "problem":
        return str(value or A_MOUNT_DOES)
    if name == "base":
        return str(value or "nothing: the file was new")
    if isinstance(value, dict):
        if "error" in value:
            return f"cannot be asked: {value['error']}"
        return f"{human_size(value['size'])}, written {_moment(value['modified'])} UTC"
    if name == "primary":
        return "nothing"
    return human_size(value) if isinstance(value, int) else str(value)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _show_table(contents: Sequence[PendingUpload], *, stderr: bool = False) -> None:
    out = console(stderr=stderr)
    if not contents:
        out.print("nothing was left behind")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("id", "key", "size", "written (UTC)", "why it is not on the primary"):
        table.add_column(column)
    for content in contents:
        status = content.staging.stat()
        table.add_row(
            str(content.id),
            Text(printable(content.key)),
            human_size(status.st_size),
            _moment(status.st_mtime),
            Text(printable(content.problem or A_MOUNT_DOES)),
        )
    out.print(table)


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2))  # noqa: T201 - the answer


def _move(source: Path, target: Path) -> None:
    """Also to another disk: there the file has its name, whole and safe, before it goes here. Raises OSError."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as reader, drafted(target) as writer:
            shutil.copyfileobj(reader, writer)
            writer.flush()
            os.fsync(writer.fileno())
        source.unlink()


def _inside(key: str) -> PurePosixPath:
    """The key as a path that cannot lead out of a directory."""
    return PurePosixPath(*(part for part in PurePosixPath(key).parts if part not in {"/", ".."}))
