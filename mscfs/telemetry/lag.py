"""What the replicas of a profile lack, as commands tell it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mscfs.journal import Lag


@dataclass(frozen=True, slots=True)
class Behind:
    """What a replica lacks, in the words of the status document."""

    profile: str
    pending: int = 0
    pending_bytes: int = 0
    last_error: str = ""
    """Why one of them was not carried out."""


def what_replicas_lack(replicas: Iterable[str], lag: Mapping[str, Lag]) -> list[Behind]:
    """For each of the `replicas`, then for those that the journal knows of besides."""
    return [
        Behind(name, behind.entries, behind.bytes, behind.last_error)
        for name in dict.fromkeys([*replicas, *lag])
        for behind in [lag.get(name, Lag())]
    ]
