"""Which file is the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mscfs.errors import ConfigError

_SUFFIXES = ("yaml", "json")


def find_file(environment: Mapping[str, str]) -> Path:
    """The file `MSC_CONFIG` names, else the first that exists of `places`.

    ConfigError when there is none, or when the file that `MSC_CONFIG` names does not exist: going on with another
    one would mount something that was not asked for.
    """
    named = environment.get("MSC_CONFIG")
    if named:
        if not Path(named).exists():
            raise ConfigError(f"MSC_CONFIG names {named}, which does not exist: correct the variable or unset it")
        return Path(named)
    searched = list(places(environment))
    for path in searched:
        if path.exists():
            return path
    names = ", ".join(map(str, searched))
    raise ConfigError(f"no configuration file found: name one with --config or MSC_CONFIG, or create one of {names}")


def places(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where a configuration file is looked for, in this order."""
    if user := environment.get("XDG_CONFIG_HOME"):
        yield from _both(Path(user) / "msc", "config")
    if home := environment.get("HOME"):
        yield from _both(Path(home), ".msc_config")
        yield from _both(Path(home) / ".config" / "msc", "config")
    for directory in (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        if directory.strip():
            yield from _both(Path(directory.strip()) / "msc", "config")
    yield from _both(Path("/etc"), "msc_config")


def _both(directory: Path, name: str) -> Iterator[Path]:
    return (directory / f"{name}.{suffix}" for suffix in _SUFFIXES)
