"""How much memory a mount may use for bytes on their way."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

CGROUP_SHARE = 2
"""At most one part in so many of the cgroup's memory: the rest is for processes, page cache and the program."""

_CGROUPS = Path("/sys/fs/cgroup")
_OURS = Path("/proc/self/cgroup")


def memory_budget(limit: int, *, smallest: int, cgroups: Path = _CGROUPS, ours: Path = _OURS) -> int:
    """Bytes of buffers: `limit`, less in a small cgroup, never below `smallest`."""
    bound = _cgroup_limit(cgroups, ours)
    return max(smallest, limit if bound is None else min(limit, bound // CGROUP_SHARE))


def _cgroup_limit(cgroups: Path, ours: Path) -> int | None:
    """The smallest `memory.max` of our cgroup and those around it (version 2); None without one."""
    try:
        lines = ours.read_text().splitlines()
    except OSError:
        return None
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if path is None:
        return None
    directory = cgroups / path.lstrip("/")
    limits = []
    for place in (directory, *directory.parents):
        with suppress(OSError, ValueError):  # not there, or "max"
            limits.append(int((place / "memory.max").read_text()))
        if place == cgroups:
            break
    return min(limits, default=None)
