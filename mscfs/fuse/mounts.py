"""What is mounted where on this machine, read without touching the mounts: a hung one must not hang who looks."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the mount table."""

    mountpoint: Path
    type: str
    source: str
    device: str
    """The number of the file system; no other has it as long as anybody uses it."""


def mounted_at(path: Path) -> Mounted | None:
    """What is mounted exactly there (the topmost, where several lie on one another)."""
    return next((entry for entry in reversed(_table()) if entry.mountpoint == path), None)


def _table() -> list[Mounted]:
    return [_parse(line) for line in Path("/proc/self/mountinfo").read_bytes().splitlines()]


def _parse(line: bytes) -> Mounted:
    # proc(5): ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - TYPE SOURCE OPTIONS
    fields = line.split(b" ")
    kind, source = fields[fields.index(b"-", 6) + 1 :][:2]
    return Mounted(Path(_unescape(fields[4])), _unescape(kind), _unescape(source), fields[2].decode())


def _unescape(text: bytes) -> str:
    return os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text))
