"""Sizes, durations and addresses as people write them."""

from __future__ import annotations

import re

_UNITS = "KMGT"
_SIZE = re.compile(rf"([0-9]+)([{_UNITS}]?)", re.IGNORECASE)
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
_ADDRESS = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^:\[\]/@\s]*)):(?P<port>[0-9]{1,5})", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_size(text: str) -> int:
    """Bytes of a size such as `4096`, `512K`, `64M`, `10G` or `1T` (powers of 1024). ValueError for anything else."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("must be a size in whole units, such as 512M or 10G")
    number, unit = match.groups()
    return int(number) << (10 * (_UNITS.index(unit.upper()) + 1) if unit else 0)


def format_size(size: int) -> str:
    """The shortest exact form of a number of bytes; `parse_size` is its inverse."""
    unit = ""
    for larger in _UNITS:
        if size == 0 or size % 1024:
            break
        size, unit = size // 1024, larger
    return f"{size}{unit}"


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `60`, `0.5`, `60s`, `250ms`, `5m` or `1h`. ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("must be a duration such as 60, 60s, 250ms, 5m or 1h")
    number, unit = match.groups()
    return float(number) * _SECONDS[unit or "s"]


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `[IPV6]:PORT` or `:PORT` (no host). ValueError for anything else."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65535:
        raise ValueError("must be HOST:PORT with a port from 1 to 65535, such as 127.0.0.1:9464, [::1]:9464 or :9464")
    return match["ipv6"] or match["host"], int(match["port"])
