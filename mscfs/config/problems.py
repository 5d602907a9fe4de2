"""What can be wrong with a configuration, as one line that names file, line, key and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from mscfs.config.secrets import mask, secret_depth
from mscfs.printable import printable as on_one_line

Location = tuple[str | int, ...]
"""The way from the top of a file to a key: names, and positions in lists."""

Kind = Literal["error", "unusable", "unsupported", "warning"]
"""`error`: the file is refused. `unusable`: one profile is refused, when it is used. `unsupported`: the same, for
something that is valid in the shared format and not offered by mscfs. `warning`: told, and refused by `--strict`."""

_LONGEST = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding. `str()` is the line for the user; it never holds an option's value."""

    kind: Kind
    message: str
    file: str
    line: int | None = None
    location: Location = field(default=(), repr=False)

    @property
    def profile(self) -> str:
        """The profile it lies in; empty for everything else."""
        return str(self.location[1]) if self.location[:1] == ("profiles",) and len(self.location) > 1 else ""

    @property
    def key(self) -> str:
        """The dotted key path, as `profiles.data.replicas[0].read_priority`; it ends at the name of a secret."""
        depth = secret_depth(self.location)
        steps = self.location if depth is None else self.location[: depth + 1]
        return "".join(f"[{step}]" if isinstance(step, int) else f".{printable(step)}" for step in steps).removeprefix(
            "."
        )

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.location else f"{place}: {self.message}"


def printable(name: str) -> str:
    """A key or name from a file, fit for one line.

    In `{secret_key:abc}` the missing space makes `secret_key:abc` the key: what follows `:` or `=` is cut off.
    """
    head = re.split(r"=|:(?!//)", name, maxsplit=1)[0][:_LONGEST]
    shown = on_one_line(str(mask(head)))
    return shown if head == name else f"{shown}…"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known name, else nothing."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{printable(nearest[0])}'?" if nearest else ""
