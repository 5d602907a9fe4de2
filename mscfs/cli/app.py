"""All commands of the program `mscfs`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated

import typer

from mscfs.cli import mount
from mscfs.cli.program import DEBUG_VARIABLE


def _show_version(wanted: bool) -> None:
    if wanted:
        import importlib.metadata  # noqa: PLC0415 - loads long

        print(f"mscfs {importlib.metadata.version('mscfs')}")  # noqa: T201 - the answer
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


def make_app(arguments: Sequence[str]) -> typer.Typer:
    """The commands; only `mount` when it is what the arguments name, as a node waits for it and the rest loads long."""
    app = typer.Typer(
        help="Mount object storage with its replicas as a directory; read from the nearest healthy copy.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    mount.register(app)
    if list(arguments[:1]) == ["mount"]:
        return app
    from mscfs.cli import config, demo, objects, recover, replicas, status, umount  # noqa: PLC0415 - see above

    for commands in (umount, status, recover, objects, replicas, demo):
        commands.register(app)
    app.add_typer(config.app, name="config")
    return app
