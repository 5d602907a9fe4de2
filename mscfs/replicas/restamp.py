"""Other user metadata for an object, and for its copies, without moving the bytes again.

On some stores an object has another version afterwards (Azure; S3, when it was sent in parts), and every copy of it
would be stale although its bytes are right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mscfs.errors import StorageError, VersionMismatchError
from mscfs.replicas.freshness import trusted_stamp
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica
from mscfs.types import STAMP_KEY, ObjectMetadata, Version

Change = Callable[[Mapping[str, str]], Mapping[str, str]]


def change_metadata(manager: ReplicaManager, key: str, version: Version, change: Change) -> ObjectMetadata:
    """Let `change` make user metadata of those that the primary has, provided it holds `version`; blocking.

    A replica that answers and holds a copy of that very version gets them too. For the others there is a wish: they are
    brought up to date later, if the version changed. A crash in between leaves copies that are stale, at worst.
    """
    present = manager.present(key)
    if present.version != version:
        raise VersionMismatchError("the object has changed", store=manager.profile, key=key)
    metadata = dict(change(present.metadata or {}))
    if metadata == present.metadata:
        return present
    written = manager.primary.set_metadata(key, metadata, expected=version)
    done = {replica.profile for replica in manager.replicas if _follow(replica, key, version, written, metadata)}
    manager.wish([wish for wish in manager.replication_wishes(key, version.size) if wish.replica not in done])
    return written


def _follow(replica: Replica, key: str, version: Version, written: ObjectMetadata, metadata: Mapping[str, str]) -> bool:
    """Whether a replica's copy of `version` became one of what was written."""
    if replica.read_only or not replica.health.healthy:
        return False
    try:
        copy = replica.provider.head(key)
        if trusted_stamp(copy) != version:
            return False
        stamped = {**metadata, STAMP_KEY: written.version.stamp()}
        replica.provider.set_metadata(key, stamped, expected=copy.version)
    except StorageError as error:
        replica.failed(error)
        return False
    return True
