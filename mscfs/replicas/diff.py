"""What a replica lacks, holds stale or holds in excess below a prefix: two listings walked side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from mscfs.errors import NotFoundError
from mscfs.providers.base import StorageProvider
from mscfs.replicas.freshness import comparable_hashes, is_copy_of, is_up_to_date
from mscfs.replicas.source import Replica
from mscfs.types import ObjectMetadata, Version

State = Literal["missing", "stale", "fresh", "unmatched", "uncertain"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One key and how the replica stands: `missing`, `stale`, `fresh`, or `unmatched` (only the replica has it).

    `uncertain`: the listings do not tell whether it is stale or fresh; `decide` does. `size` in bytes: of the primary's
    object, for `unmatched` of the replica's. `wanted` is the primary's version where it has one. `may_be_link`: the
    listings do not tell whether it is a symbolic link, which is no more than its target.
    """

    key: str
    state: State
    size: int
    wanted: Version | None = None
    may_be_link: bool = False


def compare(
    primary: StorageProvider, replica: Replica, prefix: str = "", *, decide_all: bool = True
) -> Iterator[Difference]:
    """Compare all objects below `prefix`, in key order, streaming both listings.

    A listing carries no user metadata: where sizes agree and no hash decides, the replica is asked for the object's
    version with one HEAD (where it may be a symbolic link, both stores), or, without `decide_all`, the key is given as
    `uncertain` for the caller to `decide` on many at once. Directory markers are left out.
    """
    ours = _objects(primary, prefix)
    theirs = _objects(replica.provider, prefix)
    here, there = next(ours, None), next(theirs, None)
    while here is not None or there is not None:
        if there is None or (here is not None and _order(here) < _order(there)):
            assert here is not None
            yield Difference(here.key, "missing", here.content_length, here.version)
            here = next(ours, None)
        elif here is None or _order(there) < _order(here):
            yield Difference(there.key, "unmatched", there.content_length)
            there = next(theirs, None)
        else:
            may_be_link = _may_be_link(here) or _may_be_link(there)
            state = _state(here, there, replica)
            found = Difference(here.key, state, here.content_length, here.version, may_be_link)
            yield decide(found, primary, replica) if decide_all else found
            here, there = next(ours, None), next(theirs, None)


def decide(difference: Difference, primary: StorageProvider, replica: Replica) -> Difference:
    """Settle an `uncertain` difference with one HEAD, or one of each store; others are given back as they are."""
    if difference.state != "uncertain" or difference.wanted is None:
        return difference
    try:
        copy = replica.provider.head(difference.key)
    except NotFoundError:
        return replace(difference, state="missing")
    if difference.may_be_link:
        try:
            fresh = is_up_to_date(copy, primary.head(difference.key), profile=replica.profile)
        except NotFoundError:
            fresh = False  # it was removed since it was listed: whoever brings the copy up to date sees that
    else:
        fresh = is_copy_of(copy, difference.wanted, profile=replica.profile)
    return replace(difference, state="fresh" if fresh else "stale")


def _state(here: ObjectMetadata, there: ObjectMetadata, replica: Replica) -> State:
    if _may_be_link(here) or _may_be_link(there):
        return "uncertain"
    if here.symlink_target is not None or there.symlink_target is not None:
        return "fresh" if here.symlink_target == there.symlink_target else "stale"
    if here.content_length != there.content_length:
        return "stale"
    if comparable_hashes(here.content_hash, there.content_hash):
        return "fresh" if here.content_hash == there.content_hash else "stale"
    if there.metadata is None:
        return "uncertain"
    return "fresh" if is_copy_of(there, here.version, profile=replica.profile) else "stale"


def _may_be_link(listed: ObjectMetadata) -> bool:
    """Object stores keep a symbolic link as an empty object, whose user metadata not every listing tells."""
    return listed.symlink_target is None and not listed.content_length and listed.metadata is None


def _objects(provider: StorageProvider, prefix: str) -> Iterator[ObjectMetadata]:
    return (entry for entry in provider.list(prefix) if not entry.is_directory)


def _order(metadata: ObjectMetadata) -> bytes:
    return metadata.key.encode("utf-8", "surrogateescape")
