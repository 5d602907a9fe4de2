"""Bring one replica to the primary's present state for one key: the only way bytes reach a replica."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from mscfs.errors import NotFoundError, StorageError, StoreUnavailableError, VersionMismatchError
from mscfs.replicas.freshness import is_copy_of
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica
from mscfs.types import STAMP_KEY, ObjectMetadata

ROUNDS = 5
"""How often a copy is begun anew because the primary's object changed meanwhile, before the wish is postponed."""

Outcome = Literal["fresh", "copied", "deleted", "absent", "undone"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What was done: `fresh` nothing was to do, `copied`, `deleted` from the replica, `absent` on the primary and left
    alone on the replica, `undone` a copy that was made while the primary's object was deleted. `bytes` moved.
    """

    outcome: Outcome
    bytes: int = 0


def bring_up_to_date(manager: ReplicaManager, profile: str, key: str, *, delete: bool = False) -> StepResult:
    """Make the replica `profile` hold `key` as the primary holds it now.

    After each copy the primary is asked again, so that an overwrite or a delete under way never leaves an older or a
    deleted object behind. `delete`: remove the key from the replica when the primary has none. A crash at any point
    leaves the old copy or a whole new one, and the wish. Raises StorageError: try again later if it is transient.
    """
    replica = manager.replica(profile)
    try:
        result = _directory_step(manager, replica, key, delete=delete) if key.endswith("/") else None
        result = result or _object_step(manager, replica, key, delete=delete)
    except StorageError as error:
        if error.store == replica.profile:
            replica.health.failed(error)
            replica.statistics.add(errors=1)
        raise
    replica.health.succeeded()
    return result


def _object_step(manager: ReplicaManager, replica: Replica, key: str, *, delete: bool) -> StepResult:
    moved = 0
    had_none = False
    written: ObjectMetadata | None = None
    for _ in range(ROUNDS):
        try:
            wanted = manager.primary.head(key)
        except NotFoundError:
            return _without_primary(replica, key, written if had_none else None, delete=delete, moved=moved)
        copy = written or _head_or_none(replica, key)
        if copy is not None and _is_fresh(copy, wanted, replica.profile):
            return StepResult("copied" if written else "fresh", moved)
        had_none = had_none or copy is None
        try:
            written = _copy(manager, replica, wanted)
        except (NotFoundError, VersionMismatchError) as error:
            if error.store == replica.profile:
                raise
            continue  # the primary's object changed while it was read
        moved += wanted.content_length
    raise StoreUnavailableError("the object keeps changing on the primary", store=manager.profile, key=key)


def _copy(manager: ReplicaManager, replica: Replica, wanted: ObjectMetadata) -> ObjectMetadata:
    if wanted.symlink_target is not None:
        return replica.provider.make_symlink(wanted.key, wanted.symlink_target)
    stamp = {**(wanted.metadata or {}), STAMP_KEY: wanted.version.stamp()}
    with manager.open_version(wanted.key, None, wanted.version, without=replica.profile) as content:
        written = replica.provider.put(wanted.key, content, metadata=stamp, content_type=wanted.content_type)
    if wanted.mode is not None and replica.provider.capabilities.posix_attributes:
        replica.provider.set_posix_attributes(wanted.key, mode=wanted.mode)
    # The store that took the metadata need not repeat it in its answer to a put.
    return written if written.metadata else replace(written, metadata=stamp)


def _without_primary(
    replica: Replica, key: str, written: ObjectMetadata | None, *, delete: bool, moved: int
) -> StepResult:
    if delete:
        replica.provider.delete(key)
        return StepResult("deleted", moved)
    if written is None:
        return StepResult("absent", moved)
    try:
        replica.provider.delete(key, expected=written.version)
    except VersionMismatchError:
        return StepResult("absent", moved)  # somebody else's object by now
    return StepResult("undone", moved)


def _directory_step(manager: ReplicaManager, replica: Replica, directory: str, *, delete: bool) -> StepResult:
    if manager.primary.has_directory(directory):
        replica.provider.make_directory(directory)
        return StepResult("copied")
    if delete:
        try:
            replica.provider.remove_directory(directory)
        except StorageError as error:
            if error.transient:
                raise
            return StepResult("absent")  # not empty, or not there: the replica's own affair
        return StepResult("deleted")
    return StepResult("absent")


def _head_or_none(replica: Replica, key: str) -> ObjectMetadata | None:
    try:
        return replica.provider.head(key)
    except NotFoundError:
        return None


def _is_fresh(copy: ObjectMetadata, wanted: ObjectMetadata, profile: str) -> bool:
    if wanted.symlink_target is not None or copy.symlink_target is not None:
        return copy.symlink_target == wanted.symlink_target
    return is_copy_of(copy, wanted.version, profile=profile)
