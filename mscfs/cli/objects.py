"""`mscfs ls`, `info`, `cat`, `rm`, and the registration of the other commands about objects."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mscfs.cli import copying, where
from mscfs.cli.lines import console
from mscfs.cli.mount import ConfigFile
from mscfs.cli.names import NAME_HELP, Clients, ending_with_the_reader, parse_remote
from mscfs.cli.program import examples
from mscfs.cli.status_view import human_size
from mscfs.errors import NotFoundError, UsageError
from mscfs.printable import printable
from mscfs.types import ByteRange, ObjectMetadata

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(epilog=examples("mscfs ls data:", "mscfs ls -r data:train", "mscfs ls -r --json data: | jq .size"))(ls)
    app.command(epilog=examples("mscfs info data:train/part-0001.tar"))(info)
    app.command(epilog=examples("mscfs cat data:notes.txt", "mscfs cat --range 0:512 data:a.tar | xxd"))(cat)
    copying.register(app)
    app.command(epilog=examples("mscfs rm data:old.tar", "mscfs rm -r data:runs/17", "mscfs rm -rf data:tmp"))(rm)
    where.register(app)


def ls(
    name: Annotated[str, typer.Argument(metavar="PROFILE[:PATH]", help=f"{NAME_HELP} PROFILE alone: all of it.")],
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Everything below, not one level.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """List objects: size, time of the last change, key. Directories end in `/`."""
    remote = parse_remote(name)
    with Clients(config_file) as clients, ending_with_the_reader():
        client = clients.of(remote.profile)
        found = client.info(remote.key)
        entries: Iterable[ObjectMetadata] = [found]
        if found.is_directory:
            entries = client.list(found.key, include_directories=not recursive)
            if not recursive:
                # One level comes in the store's own order.
                entries = sorted(entries, key=lambda entry: entry.key)
        out = console()
        for entry in entries:
            if as_json:
                print(json.dumps(_document(entry)))  # noqa: T201 - the answer
            else:
                out.print(_line(entry))


def info(
    name: Annotated[str, typer.Argument(metavar="NAME", help=NAME_HELP)],
    *,
    as_json: AsJson = False,
    config_file: ConfigFile = None,
) -> None:
    """Show what the store says about an object: size, time, version, attributes."""
    remote = parse_remote(name)
    with Clients(config_file) as clients:
        found = clients.of(remote.profile).info(remote.key)
    document = _document(found)
    if as_json:
        print(json.dumps(document, indent=2))  # noqa: T201 - the answer
        return
    table = Table.grid(padding=(0, 2))
    for field, value in document.items():
        if field == "size":
            table.add_row(field, f"{human_size(found.content_length)} ({found.content_length:,} bytes)")
        elif field == "attributes":
            for attribute, text in (value or {}).items():
                table.add_row(Text(f"attribute {printable(attribute)}"), Text(printable(text)))
        elif value not in {None, ""}:
            table.add_row(field, Text(printable(str(value))))
    console().print(table)


def cat(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help=NAME_HELP)],
    *,
    byte_range: Annotated[
        str | None, typer.Option("--range", metavar="OFFSET:SIZE", help="Only these bytes of each object.")
    ] = None,
    config_file: ConfigFile = None,
) -> None:
    """Write objects to standard output, byte for byte."""
    from mscfs.client import transfer  # noqa: PLC0415 - imports what only clients need

    wanted = _parse_range(byte_range) if byte_range is not None else None
    with Clients(config_file) as clients, ending_with_the_reader():
        for remote in map(parse_remote, names):
            transfer.download_into(clients.of(remote.profile).store, remote.key, sys.stdout.buffer, byte_range=wanted)


def rm(
    names: Annotated[list[str], typer.Argument(metavar="NAME", help=NAME_HELP)],
    *,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Directories, with all below them.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Ask nothing; what is not there is no error.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Remove objects from the primary. Replicas keep their copies unless the profile propagates deletes."""
    with Clients(config_file) as clients:
        for remote in map(parse_remote, names):
            client = clients.of(remote.profile)
            try:
                found = client.info(remote.key)
            except NotFoundError:
                if force:
                    continue
                raise
            if found.is_directory and not recursive:
                raise UsageError(f"{remote} is a directory: give -r to remove it and all below it")
            if found.is_directory and not (force or yes):
                _ask(f"Remove {remote} and everything below it?")
            client.delete(remote.key, recursive)


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked: give --yes to remove directories")
    typer.confirm(printable(question), abort=True, err=True)


def _parse_range(text: str) -> ByteRange:
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None:
        raise UsageError(f"--range {text}: must be OFFSET:SIZE, two numbers of bytes")
    return ByteRange(int(match[1]), int(match[2]))


def _line(entry: ObjectMetadata) -> Text:
    text = Text()
    if entry.is_directory:
        text.append(f"{'-':>10}  {'-':16}  ", style="dim")
    else:
        text.append(f"{human_size(entry.content_length):>10}  ")
        text.append(f"{entry.last_modified.astimezone():%Y-%m-%d %H:%M}  ", style="dim")
    text.append(printable(entry.key), style="blue" if entry.is_directory else "")
    if entry.symlink_target is not None:
        text.append(f" -> {printable(entry.symlink_target)}")
    return text


def _document(entry: ObjectMetadata) -> dict[str, Any]:
    directory = entry.is_directory
    return {
        "key": entry.key,
        "type": entry.type,
        "size": entry.content_length,
        "modified": None if directory else entry.last_modified.isoformat(),
        "version": entry.tag,
        "content_type": entry.content_type,
        "storage_class": entry.storage_class,
        "symlink_target": entry.symlink_target,
        "attributes": None if entry.metadata is None else dict(entry.metadata),
    }
