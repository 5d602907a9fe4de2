"""Content that was written and is not on the primary, of processes that are gone or have given it up (W4).

Blocking; for the recovery at mount, for the status, and for `mscfs recover`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from mscfs.errors import StorageError, VersionMismatchError
from mscfs.journal import Journal, PendingUpload
from mscfs.providers.sources import holds_file
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata
from mscfs.vfs.kept import without_content_keys
from mscfs.vfs.renames import on_primary


class InOtherHandsError(StorageError):
    """Another process is uploading it just now, or has done so."""


def left_behind(journal: Journal) -> list[PendingUpload]:
    """All of it that the journal knows; `recovery.adopt` tells it of the rest."""
    return [upload for upload in journal.uploads_left_behind() if upload.staging.exists()]


def bring_home(
    manager: ReplicaManager, journal: Journal, content: PendingUpload, *, key: str = "", overwrite: bool = False
) -> tuple[ObjectMetadata, bool]:
    """Put content onto the primary, if that still holds what it was made from; the staging file and its row go then.

    Returns what the primary holds now, and whether it had to be sent. `key`: another name, which must be free.
    `overwrite`: whatever the primary holds by now. Raises VersionMismatchError when the object was changed elsewhere,
    InOtherHandsError, and what the primary says.
    """
    with claimed(journal, content):
        target = key or content.key
        present = on_primary(manager, target)
        must_send = present is None or not holds_file(manager.primary, present, content.staging)
        if must_send:
            expected = content.base if target == content.key else None
            if not overwrite and (present.version if present is not None else None) != expected:
                raise VersionMismatchError("the object was changed elsewhere since", key=target)
            present = manager.primary.put(
                target,
                content.staging,
                if_absent=present is None,
                expected=present.version if present is not None else None,
                metadata=without_content_keys(present.metadata) if present is not None else None,
            )
        assert present is not None
        journal.finish_upload(content.id, manager.replication_wishes(target, present.content_length))
        journal.finish_delete(target)  # of what it replaced, which may have looked just like it
        content.staging.unlink()
        return present, must_send


def forget(journal: Journal, content: PendingUpload) -> None:
    """Delete content for good."""
    with claimed(journal, content):
        content.staging.unlink(missing_ok=True)
        journal.drop_upload(content.id)


@contextlib.contextmanager
def claimed(journal: Journal, content: PendingUpload) -> Iterator[None]:
    """Have content in hand: nobody else touches it. It is given back afterwards if it is still there."""
    if not journal.claim_upload(content.id):
        raise InOtherHandsError("another process uploads it just now, or has done so", key=content.key)
    try:
        yield
    finally:
        journal.release_upload(content.id)
