"""`mscfs where`: which stores hold an object, fresh or stale, and which one serves."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mscfs.cli.lines import console
from mscfs.cli.mount import ConfigFile
from mscfs.cli.mount_table import real_path
from mscfs.cli.names import Clients, RemoteName, parse
from mscfs.cli.program import examples
from mscfs.cli.status_view import human_size
from mscfs.errors import MountError
from mscfs.printable import printable
from mscfs.telemetry import control, registry

_PATIENCE = 60.0
"""Seconds: the mount waits for each store that does not answer."""
_COLOURS = {"primary": "green", "fresh": "green", "stale": "yellow", "down": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=examples("mscfs where /mnt/data/train/part-0001.tar", "mscfs where data:train/part-0001.tar"))(
        where
    )


def where(
    name: Annotated[
        str, typer.Argument(metavar="PATH|NAME", help="A file on a mount, PROFILE:KEY or msc://PROFILE/KEY.")
    ],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config_file: ConfigFile = None,
) -> None:
    """Show which stores hold an object, whether their copies are fresh, and which one serves a read now."""
    target = parse(name)
    placements = _ask_stores(target, config_file) if isinstance(target, RemoteName) else _ask_mount(target)
    if as_json:
        print(json.dumps(placements, indent=2))  # noqa: T201 - the answer
    else:
        console().print(_table(placements))


def _ask_stores(target: RemoteName, config_file: Path | None) -> list[dict[str, Any]]:
    from mscfs.replicas.placement import locate  # noqa: PLC0415 - not needed for a path on a mount

    with Clients(config_file) as clients:
        return [asdict(placement) for placement in locate(clients.of(target.profile).store, target.key)]


def _ask_mount(path: Path) -> list[dict[str, Any]]:
    # The name itself, not what a symbolic link in the mount points to.
    place = real_path(path.parent) / path.name
    inside = [record for record in registry.mounts() if place.is_relative_to(record.mountpoint)]
    if not inside:
        raise MountError(f"{path}: lies on no mount of mscfs that runs; for an object write PROFILE:KEY")
    record = max(inside, key=lambda found: (len(found.mountpoint), found.started))
    key = str(place.relative_to(record.mountpoint))
    placements: list[dict[str, Any]] = control.request(Path(record.socket), "where", {"key": key}, timeout=_PATIENCE)
    return placements


def _table(placements: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in ("store", "role", "copy", "serves", "size", "version", ""):
        table.add_column(column)
    for placement in placements:
        held = placement["state"] in {"primary", "fresh", "stale", "unknown"}
        role = f"replica {placement['read_priority']}" if placement["read_priority"] else "primary"
        state = "present" if placement["state"] == "primary" else placement["state"]
        table.add_row(
            Text(printable(placement["profile"]), style="bold" if placement["serves"] else ""),
            role,
            Text(state, style=_COLOURS.get(placement["state"], "")),
            "yes" if placement["serves"] else "",
            human_size(placement["size"]) if held else "",
            Text(printable(placement["version"])),
            Text(printable(placement["detail"]), style="red"),
        )
    return table
