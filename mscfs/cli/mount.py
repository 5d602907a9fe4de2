"""`mscfs mount`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mscfs.cli import completion
from mscfs.cli.daemon import start
from mscfs.cli.mount_options import parse_options
from mscfs.cli.plan import make_plan
from mscfs.cli.program import examples
from mscfs.cli.serving import serve

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The configuration file; else MSC_CONFIG and the usual places.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "mscfs mount training-data /mnt/data",
            "mscfs mount training-data /mnt/data --read-only -o metadata_ttl=5m",
            "mscfs mount training-data /mnt/data -o uid=1000,umask=022 --allow-other",
        )
    )(mount)


def mount(
    context: typer.Context,
    profile: Annotated[
        str,
        typer.Argument(
            metavar="PROFILE",
            help="The profile to mount, as the configuration names it.",
            autocompletion=completion.profiles,
        ),
    ],
    # A string: typer looks at a Path, and would wait for a mount there that does not answer.
    mountpoint: Annotated[str, typer.Argument(metavar="MOUNTPOINT", help="An existing directory.")],
    *,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "-o", metavar="NAME[=VALUE],…", help="Mount options; also any key of the profile's `mscfs:` block."
        ),
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Refuse every change.")] = False,
    allow_other: Annotated[
        bool, typer.Option("--allow-other", help="Let other users in; the kernel checks permissions.")
    ] = False,
    config_file: ConfigFile = None,
    foreground: Annotated[
        bool, typer.Option("--foreground", "-f", help="Stay in this terminal (or service) until unmounted.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log each request to the stores.")] = False,
) -> None:
    """Mount a profile; returns when the mount answers."""
    asked = parse_options(",".join(options or []))
    plan = make_plan(
        profile,
        Path(mountpoint),
        asked,
        read_only=read_only,
        allow_other=allow_other,
        config_file=config_file,
        verbose=verbose,
    )
    if foreground:
        serve(plan)
    else:
        start(plan, context.obj)
