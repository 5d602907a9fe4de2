"""`mount.mscfs`: what mount(8) runs for `mount -t mscfs PROFILE DIR`, for fstab lines and for systemd mount units."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from mscfs.cli.daemon import Daemon, start
from mscfs.cli.program import note, run
from mscfs.errors import UsageError

_SCHEME = "msc://"


@dataclass
class Call:
    """The arguments as mount(8) gives them: `SOURCE DIRECTORY [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`."""

    source: str = ""
    directory: str = ""
    options: list[str] = field(default_factory=list)
    fake: bool = False
    sloppy: bool = False
    verbose: bool = False


def main() -> None:
    """Mount, and end with 0 only when the mount answers: mount(8) believes it."""
    run(lambda: mount(sys.argv[1:]))


def mount(arguments: list[str]) -> None:
    """Do what `mount -t mscfs` asked for. Raises UsageError, ConfigError or MountError."""
    call = parse_call(arguments)
    with Daemon() as daemon:
        from mscfs.cli.mount_options import parse_options  # noqa: PLC0415 - the daemon loads something else meanwhile
        from mscfs.cli.plan import make_plan  # noqa: PLC0415

        asked = parse_options(",".join(call.options), sloppy=call.sloppy)
        plan = make_plan(profile_of(call.source), Path(call.directory), asked)
        if call.verbose:
            note(f"mounting profile '{plan.profile}' on {plan.mountpoint}{' (not really: -f)' if call.fake else ''}")
        if not call.fake:
            start(plan, daemon)


def is_call_of_mount(arguments: list[str]) -> bool:
    """Whether the program was run by `mount -t fuse.mscfs`, as `mscfs PROFILE DIRECTORY -o OPTIONS`."""
    return len(arguments) == 4 and arguments[2] == "-o" and arguments[1].startswith("/")


def parse_call(arguments: list[str]) -> Call:
    """Read mount(8)'s arguments in any order. Raises UsageError."""
    call = Call()
    names: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-") or argument == "-":
            names.append(argument)
            continue
        for position, letter in enumerate(argument[1:], start=2):
            if letter in "oNt":
                value = argument[position:] or next(rest, None)
                if value is None:
                    raise UsageError(f"option -{letter} needs a value")
                if letter == "o":
                    call.options.append(value)
                break
            if letter == "f":
                call.fake = True
            elif letter == "s":
                call.sloppy = True
            elif letter == "v":
                call.verbose = True
            elif letter != "n":
                raise UsageError(f"unknown option -{letter}; usage: mount.mscfs PROFILE DIRECTORY [-sfnv] [-o OPTIONS]")
    if len(names) != 2:
        raise UsageError("usage: mount.mscfs PROFILE DIRECTORY [-sfnv] [-o OPTIONS]")
    call.source, call.directory = names
    return call


def profile_of(source: str) -> str:
    """The profile in `PROFILE`, `msc://PROFILE` or `msc://PROFILE/`. Raises UsageError for a path behind it."""
    profile = source.removeprefix(_SCHEME).removesuffix("/") if source.startswith(_SCHEME) else source
    if source.startswith(_SCHEME) and "/" in profile:
        raise UsageError(f"{source}: only a whole profile can be mounted: {_SCHEME}{profile.split('/')[0]}/")
    return profile


if __name__ == "__main__":
    main()
