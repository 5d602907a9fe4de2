"""What stands in the journal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mscfs.types import Version

WishKind = Literal["back-fill", "replicate", "delete", "hide"]
"""Weakest first. `back-fill` came from a read, `replicate` from a write, `delete` from an unlink that is propagated.
`hide` is fulfilled as soon as it is recorded: the object is gone from the primary and its copy on the replica stays,
but is not shown (while the primary is down, nobody else could tell).
"""

UploadMode = Literal["replace", "update", "create"]


@dataclass(frozen=True, slots=True)
class Wish:
    """One wanted state. `size` in bytes is what the replica lacks, as far as known."""

    replica: str
    key: str
    kind: WishKind
    size: int = 0


@dataclass(frozen=True, slots=True)
class ClaimedWish:
    """A wish this process works on. `serial` tells whether the wish was renewed meanwhile."""

    replica: str
    key: str
    kind: WishKind
    size: int
    serial: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a replica is behind: entries, bytes, the age of the oldest entry in seconds, and one of their errors."""

    entries: int = 0
    bytes: int = 0
    oldest_seconds: float = 0.0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class FinishedUpload:
    """An upload that the primary holds; see `Journal.finish_upload`."""

    row: int | None
    """None: it is not in the journal."""
    wishes: Sequence[Wish] = ()


@dataclass(frozen=True, slots=True)
class StagedUpload:
    """Staged content that an ended process left; with a `problem` a person decides what becomes of it."""

    key: str
    staging: Path
    mode: UploadMode = "replace"
    base: Version | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """Staged content on its way. `base` is the version it was made from; None: there was no such object."""

    id: int
    key: str
    staging: Path
    mode: UploadMode
    base: Version | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PendingParts:
    """An upload in parts on the primary, by its token there."""

    id: int
    key: str
    token: str


@dataclass(frozen=True, slots=True)
class PendingDelete:
    """A name that is gone on the mount; the object of that version is still to be removed."""

    key: str
    version: Version | None


@dataclass(frozen=True, slots=True)
class PendingRename:
    """A rename under way: `version` is what the source held when it began."""

    id: int
    source: str
    target: str
    version: Version


MoveState = Literal["copying", "removing"]
"""Until `removing` the old names are the truth; from then on the new ones are."""


@dataclass(frozen=True, slots=True)
class PendingMove:
    """A directory's rename under way. `replaced`: an empty directory of the new name was there before."""

    id: int
    source: str
    target: str
    state: MoveState
    replaced: bool
