"""Renaming objects: on the store's server, journaled, so that a crash in between is finished or undone (W7)."""

from __future__ import annotations

import contextlib

from mscfs.errors import NotFoundError, VersionMismatchError
from mscfs.journal import Journal, PendingRename
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata, Version


def rename_object(
    manager: ReplicaManager, journal: Journal, source: str, target: str, version: Version, *, no_replace: bool
) -> ObjectMetadata:
    """Give the object `source`, which is of `version`, the key `target` (blocking); returns its new metadata.

    Raises VersionMismatchError when the source is of another version by now, AlreadyExistsError with `no_replace`.
    Until it returns a crash leaves the old name or both; `settle_rename` puts that right at the next mount.
    """
    primary = manager.primary
    row = journal.begin_rename(source, target, version)
    try:
        renamed = primary.rename(source, target, expected=version, if_absent=no_replace)
    except BaseException:
        journal.finish_rename(row)
        raise
    wishes = [*manager.replication_wishes(target, renamed.content_length), *manager.deletion_wishes(source)]
    journal.finish_rename(row, wishes)
    return renamed


def settle_rename(manager: ReplicaManager, journal: Journal, rename: PendingRename) -> None:
    """Finish or undo a rename that a crash cut short (blocking).

    Both names hold the same content: the copy was made, so the old name goes. Otherwise either the rename was not
    begun (the old name stays) or it was complete (nothing is left to do).
    """
    primary = manager.primary
    source, target = _head(manager, rename.source), _head(manager, rename.target)
    moved = target is not None and _same_content(target, rename.version)
    if source is not None and source.version == rename.version and moved:
        with contextlib.suppress(VersionMismatchError):
            primary.delete(rename.source, expected=rename.version)
    wishes = [*manager.replication_wishes(rename.target, rename.version.size), *manager.deletion_wishes(rename.source)]
    journal.finish_rename(rename.id, wishes if moved else ())


def _same_content(copy: ObjectMetadata, version: Version) -> bool:
    if copy.version == version:
        return True
    hashes = (copy.content_hash, version.content_hash)
    return copy.content_length == version.size and hashes[0] != "" and hashes[0] == hashes[1]


def _head(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    try:
        return manager.primary.head(key)
    except NotFoundError:
        return None
