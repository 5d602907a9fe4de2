"""All commands of the program `mscfs`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Annotated

import typer

from mscfs.cli.program import DEBUG_VARIABLE


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - loads long

        print(f"mscfs {version('mscfs')}")  # noqa: T201 - the answer
        raise typer.Exit


def _options(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ[DEBUG_VARIABLE] = "1"


MODULES = {
    "mount": "mount",
    "umount": "umount",
    "status": "status",
    "metrics": "metrics",
    "drain": "drain",
    "recover": "recover",
    **dict.fromkeys(("ls", "info", "cat", "cp", "rm", "where"), "objects"),
    "sync-replicas": "replicas",
    "demo": "demo",
    "config": "config",
}
"""Where each command is, in the order of the help."""


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """The commands; only those beside the one that the arguments name, if they do: all of them load long."""
    app = typer.Typer(
        help="Mount object storage with its replicas as a directory; read from the nearest healthy copy.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    named = MODULES.get(arguments[0]) if arguments else None
    for module in [named] if named else dict.fromkeys(MODULES.values()):
        importlib.import_module(f"mscfs.cli.{module}").register(app)
    return app
