"""`-o` options of a mount, as mount(8), fstab and people write them."""

from __future__ import annotations

import dataclasses
import grp
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mscfs.config.problems import did_you_mean
from mscfs.config.values import Config, MscfsOptions, ProfileConfig
from mscfs.errors import UsageError

# What mount(8) and systemd pass along that is not for a file system, what every mscfs mount is anyway, and times of
# access, which it does not keep.
IGNORED = frozenset(
    {"defaults", "auto", "noauto", "nofail", "fail", "_netdev", "user", "users", "nouser", "owner", "group"}
    | {"nosuid", "suid", "nodev", "dev", "async"}
    | {"atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"}
)
_PROFILE_OPTIONS = tuple(option.name for option in dataclasses.fields(MscfsOptions))
_KNOWN = ("ro", "rw", "noexec", "exec", "allow_other", "config", "uid", "gid", "umask", *_PROFILE_OPTIONS)


@dataclass(frozen=True)
class MountOptions:
    """What was asked for with `-o`. None means: not said, the configuration decides."""

    read_only: bool | None = None
    no_exec: bool = False
    allow_other: bool | None = None
    config_file: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values for `MscfsOptions`, by name."""
    items: tuple[str, ...] = ()
    """The options behind the overrides, as they were written."""


def parse_options(text: str, *, sloppy: bool = False) -> MountOptions:
    """The meaning of a comma-separated list; of an option given twice, the last counts.

    Raises UsageError for an option that is unknown (unless `sloppy`) or has an unusable value.
    """
    parsed = MountOptions()
    for item in text.split(","):
        name, assigned, value = item.strip().partition("=")
        if name in {"ro", "rw"}:
            parsed = dataclasses.replace(parsed, read_only=name == "ro")
        elif name in {"noexec", "exec"}:
            parsed = dataclasses.replace(parsed, no_exec=name == "noexec")
        elif name == "allow_other":
            parsed = dataclasses.replace(parsed, allow_other=True)
        elif not name or name in IGNORED or name.startswith(("x-", "X-", "comment")):
            continue
        elif name == "config":
            if not value:
                raise UsageError("option config needs a file: config=FILE")
            parsed = dataclasses.replace(parsed, config_file=Path(value))
        elif overrides := _overrides(name, value if assigned else None):
            merged = {**parsed.overrides, **overrides}
            parsed = dataclasses.replace(parsed, overrides=merged, items=(*parsed.items, item.strip()))
        elif not sloppy:
            raise UsageError(f"unknown mount option '{name}'{did_you_mean(name, _KNOWN)}")
    return parsed


def apply_overrides(config: Config, profile: ProfileConfig, overrides: Mapping[str, Any]) -> Config:
    """The configuration with other `mscfs` options for one profile."""
    new = dataclasses.replace(profile, mscfs=dataclasses.replace(profile.mscfs, **overrides))
    return dataclasses.replace(config, profiles={**config.profiles, profile.name: new})


def _overrides(name: str, value: str | None) -> dict[str, Any]:
    """What one option changes in `MscfsOptions`; empty for an unknown name."""
    if name == "umask":
        mask = _octal(value)
        return {"file_mode": 0o666 & ~mask, "directory_mode": 0o777 & ~mask}
    if name == "uid":
        return {"uid": _id(name, value, lambda user: pwd.getpwnam(user).pw_uid)}
    if name == "gid":
        return {"gid": _id(name, value, lambda group: grp.getgrnam(group).gr_gid)}
    return {name: _checked(name, value)} if name in _PROFILE_OPTIONS else {}


def _checked(name: str, value: str | None) -> Any:
    """The value as the configuration file would accept it: same types, same limits, same words."""
    import yaml  # noqa: PLC0415 - only where an option is given

    from mscfs.config.check import check  # noqa: PLC0415 - imports pydantic
    from mscfs.config.document import Document  # noqa: PLC0415
    from mscfs.config.schema import Mscfs  # noqa: PLC0415

    if value is None:
        scalar: Any = True
    elif name.endswith(("_mode", "_address")):
        scalar = value
    else:
        try:
            scalar = yaml.safe_load(value)
        except yaml.YAMLError:
            scalar = value
    block, problems = check(Mscfs, {name: scalar}, Document({}, source="-o", base=None), ())
    if block is None:
        raise UsageError(f"mount option {name}: {problems[0].message}")
    return block[name]


def _octal(value: str | None) -> int:
    try:
        mask = int(value or "", 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise UsageError("mount option umask: must be three octal digits, such as 022")
    return mask


def _id(name: str, value: str | None, look_up: Callable[[str], int]) -> int:
    if value and value.isascii() and value.isdigit():
        return int(_checked(name, value))
    try:
        return look_up(value or "")
    except KeyError:
        raise UsageError(f"mount option {name}: must be a number or a name this machine knows") from None
