"""What an ended mount left behind, put right before the next one answers (contract W4, W7, W8)."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscfs.errors import NotFoundError, StorageError, VersionMismatchError
from mscfs.journal import Journal, PendingDelete, PendingUpload, is_alive
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata
from mscfs.vfs.renames import settle_rename
from mscfs.vfs.staging import DIRTY
from mscfs.vfs.trees import settle_move

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovered:
    """What recovery did: files uploaded, found on the primary already, and kept because somebody must decide."""

    uploaded: int = 0
    found: int = 0
    kept: int = 0


def recover(manager: ReplicaManager, journal: Journal, staging: Path) -> Recovered:
    """Settle uploads, parts, renames, moves and deletes whose process is gone (blocking).

    `staging` holds one directory a process.

    Nothing is dropped and nothing newer is overwritten: staged content goes to the primary only if that still holds
    the version it was made from. What a store in trouble prevents stays for the next mount.
    """
    result = Recovered()
    for upload in journal.uploads(orphaned=True):
        with _logged(upload.key):
            _settle_upload(manager, journal, upload, result)
    for parts in journal.parts(orphaned=True):
        with _logged(parts.key):
            manager.primary.abort_upload(parts.key, parts.token)
            journal.finish_parts(parts.id)
    for rename in journal.renames(orphaned=True):
        with _logged(rename.source):
            settle_rename(manager, journal, rename)
    for move in journal.moves(orphaned=True):
        with _logged(move.source):
            settle_move(manager, journal, move)
    for delete in journal.deletes(orphaned=True):
        with _logged(delete.key):
            _settle_delete(manager, journal, delete)
    _remove_clean(staging)
    return result


def _settle_upload(manager: ReplicaManager, journal: Journal, upload: PendingUpload, result: Recovered) -> None:
    if not upload.staging.exists():
        journal.drop_upload(upload.id)
        return
    if upload.problem:
        result.kept += 1
        return
    present = _head(manager, upload.key)
    if present is not None and _holds(manager, present, upload.staging):
        result.found += 1
    elif (present.version if present is not None else None) == upload.base:
        written = manager.primary.put(
            upload.key, upload.staging, if_absent=upload.base is None, expected=upload.base,
            metadata=present.metadata if present is not None else None,
        )  # fmt: skip
        result.uploaded += 1
        present = written
    else:
        journal.keep_upload(upload.id, "the object was changed elsewhere since")
        log.error("%s: unsent content is kept in %s, the object was changed elsewhere", upload.key, upload.staging)
        result.kept += 1
        return
    journal.finish_upload(upload.id, manager.replication_wishes(upload.key, present.content_length))
    upload.staging.unlink()


def _settle_delete(manager: ReplicaManager, journal: Journal, delete: PendingDelete) -> None:
    with contextlib.suppress(VersionMismatchError):  # somebody made it anew
        manager.primary.delete(delete.key, expected=delete.version)
    journal.finish_delete(delete.key, manager.deletion_wishes(delete.key))


def _holds(manager: ReplicaManager, present: ObjectMetadata, staged: Path) -> bool:
    """Whether the primary holds exactly the staged bytes: the crash came between the upload and its record."""
    if present.content_length != staged.stat().st_size:
        return False
    with manager.primary.get(present.key, expected=present.version) as content, staged.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in content)


def _head(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    try:
        return manager.primary.head(key)
    except NotFoundError:
        return None


def _remove_clean(staging: Path) -> None:
    """Remove the directories of ended processes that hold no unsent content."""
    for directory in staging.iterdir():
        if not is_alive(directory.name) and not any(directory.glob(f"*{DIRTY}")):
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _logged(key: str) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        log.warning("%s cannot be settled now, it stays for the next mount: %s", key, error)
