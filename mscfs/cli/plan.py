"""What is to be mounted where, checked as far as that can be done before it starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mscfs.cli import preflight
from mscfs.cli.mount_options import MountOptions, apply_overrides
from mscfs.cli.program import note
from mscfs.config.load import check_config, find_profile
from mscfs.config.values import Config
from mscfs.directories import cache_directory, runtime_directory
from mscfs.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """A mount that passed every check that can be made before it starts."""

    config: Config
    profile: str
    mountpoint: Path
    read_only: bool
    allow_other: bool
    no_exec: bool = False
    verbose: bool = False

    @property
    def config_file(self) -> Path | None:
        """The main configuration file, absolute."""
        return self.config.files[0].absolute() if self.config.files else None


def make_plan(
    profile: str,
    mountpoint: Path,
    asked: MountOptions,
    *,
    read_only: bool = False,
    allow_other: bool = False,
    config_file: Path | None = None,
    verbose: bool = False,
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
    state = preflight.check_state_directory()
    preflight.check_own_directories(config, profile, mountpoint, state, runtime_directory(), cache)
    for problem in report.of_kind("warning"):
        if problem.profile in {"", *preflight.stores_of(config, profile)}:
            note(str(problem))
    if not preflight.is_empty(mountpoint):
        note(f"{mountpoint} is not empty; its files are hidden while mounted")
    return Plan(config, profile, mountpoint, read_only or bool(asked.read_only), allow_other, asked.no_exec, verbose)
