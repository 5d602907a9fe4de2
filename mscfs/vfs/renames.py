"""Renaming objects: on the store's server, journaled, so that a crash in between is finished or undone (W7)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from mscfs.errors import NotFoundError, VersionMismatchError
from mscfs.journal import Journal, PendingRename
from mscfs.providers.base import StorageProvider
from mscfs.replicas.freshness import comparable_hashes
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata, Version


def rename_object(
    manager: ReplicaManager,
    journal: Journal,
    source: str,
    target: str,
    version: Version,
    *,
    no_replace: bool,
    metadata: Mapping[str, str] | None = None,
) -> ObjectMetadata:
    """Give the object `source`, which is of `version`, the key `target` (blocking); returns its new metadata.

    With `metadata` its user metadata are replaced by these.

    Raises VersionMismatchError when the source is of another version by now, AlreadyExistsError with `no_replace`.
    Until it returns a crash leaves the old name or both; `settle_rename` puts that right at the next mount.
    """
    primary = manager.primary
    row = journal.begin_rename(source, target, version)
    try:
        renamed = primary.rename(source, target, metadata=metadata, expected=version, if_absent=no_replace)
    except BaseException:
        # The copy may have been made all the same: the replicas' copies of the target are to be looked at.
        journal.finish_rename(row, manager.replication_wishes(target, version.size))
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
    source, target = on_primary(manager, rename.source), on_primary(manager, rename.target)
    is_copied = source is not None and target is not None and same_content(manager, source, target)
    if source is not None and is_copied and source.version == rename.version:
        with contextlib.suppress(VersionMismatchError):  # somebody wrote it anew
            primary.delete(rename.source, expected=rename.version)
            source = None
    # Wishes are wanted states: where nothing changed they do no harm.
    wishes = [
        *(manager.replication_wishes(rename.target, target.content_length) if target is not None else ()),
        *(manager.deletion_wishes(rename.source) if source is None else ()),
    ]
    journal.finish_rename(rename.id, wishes)


def same_content(manager: ReplicaManager, source: ObjectMetadata, target: ObjectMetadata) -> bool:
    """Whether two objects hold the same bytes; reads them where no hash tells."""
    if source.content_length != target.content_length:
        return False
    if comparable_hashes(source.content_hash, target.content_hash):
        return source.content_hash == target.content_hash
    # S3 has no hash of large objects. `file` makes no copies: two names there are two files.
    return not manager.capabilities.real_directories and _same_bytes(manager.primary, source, target)


def _same_bytes(primary: StorageProvider, source: ObjectMetadata, target: ObjectMetadata) -> bool:
    with (
        primary.get(source.key, expected=source.version) as one,
        primary.get(target.key, expected=target.version) as other,
    ):
        pieces = iter(other)
        rest = memoryview(b"")
        for piece in one:
            wanted = memoryview(piece)
            while wanted:
                rest = rest or memoryview(next(pieces, b""))
                size = min(len(wanted), len(rest))
                if not size or wanted[:size] != rest[:size]:
                    return False
                wanted, rest = wanted[size:], rest[size:]
        return True


def on_primary(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    """What the primary holds under a key; None: nothing."""
    try:
        return manager.primary.head(key)
    except NotFoundError:
        return None
