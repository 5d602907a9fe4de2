"""Where a key is: which stores hold it, fresh or stale, and which one serves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mscfs.errors import NotFoundError, StorageError, StoreUnavailableError
from mscfs.replicas.freshness import is_copy_of
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Source
from mscfs.types import ObjectMetadata, Version

CopyState = Literal["primary", "fresh", "stale", "missing", "down", "unknown"]


@dataclass(frozen=True, slots=True)
class Placement:
    """One store's answer. A copy of what the primary does not hold is `stale`, also when that holds nothing.

    `unknown`: the primary cannot be asked, and nothing is known against the copy.
    """

    profile: str
    read_priority: int
    """0 for the primary."""
    state: CopyState
    serves: bool
    size: int = 0
    version: str = ""
    detail: str = ""


def locate(manager: ReplicaManager, key: str) -> list[Placement]:
    """Ask every store for `key`: replicas in reading order, then the primary. One HEAD each, none if it is down.

    Raises NotFoundError when the primary says there is no such object and no replica holds it either.
    """
    wanted: Version | None = None
    try:
        present = _head(manager.primary_source, key)
        wanted = present.version
        primary = Placement(manager.profile, 0, "primary", False, present.content_length, wanted.tag)
    except NotFoundError:
        primary = Placement(manager.profile, 0, "missing", serves=False)
    except StorageError as error:
        primary = Placement(manager.profile, 0, "down", serves=False, detail=error.message)
    placements: list[Placement] = []
    served = False
    for replica in manager.replicas:
        state, size, tag, detail = _state(manager, replica.profile, key, wanted)
        if state == "unknown" and (primary.state == "missing" or manager.is_behind(replica.profile, key)):
            state = "stale"
        serves = not served and state in {"fresh", "unknown"}
        served = served or serves
        placements.append(Placement(replica.profile, replica.read_priority, state, serves, size, tag, detail))
    if primary.state == "missing" and all(placement.state in {"missing", "down"} for placement in placements):
        raise NotFoundError("no such object", store=manager.profile, key=key)
    if primary.state == "primary" and not served:
        primary = Placement(manager.profile, 0, "primary", True, primary.size, primary.version)
    return [*placements, primary]


def _state(manager: ReplicaManager, profile: str, key: str, wanted: Version | None) -> tuple[CopyState, int, str, str]:
    try:
        copy = _head(manager.replica(profile), key)
    except NotFoundError:
        return "missing", 0, "", ""
    except StorageError as error:
        return "down", 0, "", error.message
    if wanted is None:
        return "unknown", copy.content_length, copy.tag, ""
    fresh = is_copy_of(copy, wanted, profile=profile)
    return ("fresh" if fresh else "stale"), copy.content_length, copy.tag, ""


def _head(source: Source, key: str) -> ObjectMetadata:
    """A store's answer. Whoever looks into an outage need not wait for a store that is known to be down."""
    if not source.health.healthy:
        raise StoreUnavailableError(source.health.last_error, store=source.profile, key=key)
    try:
        return source.provider.head(key)
    except StorageError as error:
        source.failed(error)
        raise
