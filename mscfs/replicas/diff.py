"""What a replica lacks, holds stale or holds in excess below a prefix: two listings walked side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mscfs.errors import NotFoundError
from mscfs.providers.base import StorageProvider
from mscfs.replicas.freshness import comparable_hashes, is_copy_of
from mscfs.replicas.source import Replica
from mscfs.types import ObjectMetadata

State = Literal["missing", "stale", "fresh", "unmatched"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One key and how the replica stands: `missing`, `stale`, `fresh`, or `unmatched` (only the replica has it).

    `size` in bytes: of the primary's object, for `unmatched` of the replica's.
    """

    key: str
    state: State
    size: int


def compare(primary: StorageProvider, replica: Replica, prefix: str = "") -> Iterator[Difference]:
    """Compare all objects below `prefix`, in key order, streaming both listings.

    A listing carries no user metadata: where sizes agree and no hash decides, the replica is asked for the object's
    version with one HEAD. Directory markers are left out.
    """
    ours = _objects(primary, prefix)
    theirs = _objects(replica.provider, prefix)
    here, there = next(ours, None), next(theirs, None)
    while here is not None or there is not None:
        if there is None or (here is not None and _order(here) < _order(there)):
            assert here is not None
            yield Difference(here.key, "missing", here.content_length)
            here = next(ours, None)
        elif here is None or _order(there) < _order(here):
            yield Difference(there.key, "unmatched", there.content_length)
            there = next(theirs, None)
        else:
            yield Difference(here.key, _state(here, there, replica), here.content_length)
            here, there = next(ours, None), next(theirs, None)


def _state(here: ObjectMetadata, there: ObjectMetadata, replica: Replica) -> State:
    if here.content_length != there.content_length:
        return "stale"
    if comparable_hashes(here.content_hash, there.content_hash):
        return "fresh" if here.content_hash == there.content_hash else "stale"
    if there.metadata is None:
        try:
            there = replica.provider.head(there.key)
        except NotFoundError:
            return "missing"
    return "fresh" if is_copy_of(there, here.version, profile=replica.profile) else "stale"


def _objects(provider: StorageProvider, prefix: str) -> Iterator[ObjectMetadata]:
    return (entry for entry in provider.list(prefix) if not entry.is_directory)


def _order(metadata: ObjectMetadata) -> bytes:
    return metadata.key.encode("utf-8", "surrogateescape")
