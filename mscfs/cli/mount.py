"""`mscfs mount`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from sdnotify import SystemdNotifier

from mscfs.cli import completion, daemon, preflight
from mscfs.cli.mount_options import MountOptions, apply_overrides, parse_options
from mscfs.cli.program import EXIT_BUG, examples, note
from mscfs.config.load import check_config, find_profile
from mscfs.config.values import Config
from mscfs.directories import cache_directory, runtime_directory, state_directory
from mscfs.errors import ConfigError, MscfsError
from mscfs.telemetry import registry
from mscfs.telemetry.log import configure_logging

logger = logging.getLogger(__name__)

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="The configuration file; else MSC_CONFIG and the usual places.")
]


@dataclass(frozen=True)
class Plan:
    """A mount that passed every check that can be made before it starts."""

    config: Config
    profile: str
    mountpoint: Path
    read_only: bool
    allow_other: bool
    options: tuple[str, ...] = ()
    """The `-o` items that are already part of `config`: a daemon reads the file anew and needs them."""

    @property
    def config_file(self) -> Path | None:
        """The main configuration file, absolute: the daemon works in another directory."""
        return self.config.files[0].absolute() if self.config.files else None


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
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log details.")] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Mount a profile; returns when the mount answers."""
    report = daemon.Report(ready_fd)
    try:
        asked = parse_options(",".join(options or []))
        plan = make_plan(
            profile,
            Path(mountpoint),
            asked,
            read_only=read_only,
            allow_other=allow_other,
            config_file=config_file,
            quiet=ready_fd is not None,
        )
        if foreground:
            serve(plan, report.ready, verbose=verbose)
        else:
            start(plan, verbose=verbose)
    except MscfsError as error:
        report.error(str(error), error.exit_code)
        raise
    except Exception as error:
        if foreground:
            logger.exception("the mount ends because of a bug")
        report.error(f"internal error: {type(error).__name__}: {error}", EXIT_BUG)
        raise


def make_plan(
    profile: str,
    mountpoint: Path,
    asked: MountOptions,
    *,
    read_only: bool = False,
    allow_other: bool = False,
    config_file: Path | None = None,
    quiet: bool = False,
) -> Plan:
    """Read the configuration and check everything; the command line's own switches win over `-o`.

    Raises ConfigError, UsageError or MountError with one line.
    """
    report = check_config(config_file or asked.config_file)
    if report.config is None:
        raise ConfigError("\n".join(map(str, report.of_kind("error"))))
    config = apply_overrides(report.config, find_profile(report.config, profile), asked.overrides)
    allow_other = allow_other or (config.posix.allow_other if asked.allow_other is None else asked.allow_other)
    preflight.check_fuse(allow_other=allow_other)
    mountpoint = preflight.check_mountpoint(mountpoint)
    cache = config.cache.location if config.cache and config.cache.location else cache_directory()
    preflight.check_own_directories(config, profile, mountpoint, state_directory(), runtime_directory(), cache)
    plan = Plan(config, profile, mountpoint, read_only or bool(asked.read_only), allow_other, asked.items)
    if quiet:
        return plan
    for problem in report.of_kind("warning"):
        if problem.profile in {"", *preflight.stores_of(config, profile)}:
            note(str(problem))
    if not preflight.is_empty(mountpoint):
        note(f"{mountpoint} is not empty; its files are hidden while mounted")
    return plan


def start(plan: Plan, *, verbose: bool = False) -> int:
    """Mount in the background; returns the daemon's pid when the mount answers. Raises daemon.StartError."""
    arguments = ["-o", ",".join(plan.options)] if plan.options else []
    arguments += ["--config", str(plan.config_file)] if plan.config_file else []
    arguments += ["--read-only"] if plan.read_only else []
    arguments += ["--allow-other"] if plan.allow_other else []
    arguments += ["--verbose"] if verbose else []
    return daemon.start([*arguments, "--", plan.profile, str(plan.mountpoint)], plan.profile, plan.mountpoint)


def serve(plan: Plan, report_ready: Callable[[], None], *, verbose: bool = False) -> None:
    """Mount in this process; returns when unmounted. Nothing stays mounted, whatever happens.

    Under systemd it tells when it is ready and when it stops (sd_notify(3)).
    """
    configure_logging(verbose=verbose)
    from mscfs.fuse.session import Mount, MountRequest, run  # noqa: PLC0415 - trio, pyfuse3: only where a mount runs
    from mscfs.telemetry.service import MountService  # noqa: PLC0415

    systemd = SystemdNotifier()

    def announce() -> None:
        registry.register(
            plan.profile,
            plan.mountpoint,
            started=time.time(),
            config_file=plan.config_file,
            shutdown_timeout=plan.config.profiles[plan.profile].mscfs.shutdown_timeout,
        )
        systemd.notify(f"READY=1\nSTATUS=profile {plan.profile} on {plan.mountpoint}")
        report_ready()

    async def answer_commands(running: Mount) -> None:
        await MountService(running).serve()

    async def tell_stopping(running: Mount) -> None:
        await running.wait_stop()
        systemd.notify("STOPPING=1\nSTATUS=uploading what is not on the primary yet")

    request = MountRequest(plan.config, plan.profile, plan.mountpoint, plan.read_only, plan.allow_other)
    try:
        run(request, announce, services=(answer_commands, tell_stopping))
    finally:
        registry.unregister()
        daemon.leave_nothing(plan.mountpoint)
