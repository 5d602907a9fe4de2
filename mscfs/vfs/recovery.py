"""What an ended mount left behind, put right before the next one answers (contract W4, W7, W8)."""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mscfs.errors import NotFoundError, StorageError, VersionMismatchError
from mscfs.journal import Journal, PendingDelete, PendingUpload, StagedUpload, is_alive
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata
from mscfs.vfs.renames import settle_rename
from mscfs.vfs.staging_log import LOG, read_log
from mscfs.vfs.trees import settle_move

log = logging.getLogger(__name__)

NOT_CLOSED = "it was not closed when the mount ended"
NOT_KNOWN = "the machine went down before it was on disk what this is"


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
    adopt(journal, staging)
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
    _remove_empty(staging)
    return result


def adopt(journal: Journal, staging: Path) -> None:
    """Have the journal know what ended processes left staged, and remove what the primary holds (blocking).

    Raises StorageError when the journal cannot be written. Harmless when it is done again, or by two at once.
    """
    for directory in staging.iterdir():
        if not is_alive(directory.name):
            try:
                _adopt(journal, directory)
            except StorageError:
                raise
            except OSError as error:
                log.warning(
                    "what is staged in %s cannot be looked at, it stays for the next mount: %s", directory, error
                )


def _adopt(journal: Journal, directory: Path) -> None:
    log = read_log(directory)
    known = {upload.staging for upload in journal.uploads()}
    left = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(LOG):
            continue
        staged = log.get(path.name)
        if staged is not None and staged.state == "sending":
            left.append(StagedUpload(staged.key, path, staged.mode, staged.base))
        elif staged is not None and staged.state == "writing" and path.stat().st_size:
            left.append(StagedUpload(staged.key, path, staged.mode, staged.base, NOT_CLOSED))
        elif path in known:
            pass
        elif staged is None and path.stat().st_size:
            left.append(StagedUpload(f"lost+found/{directory.name}/{path.name}", path, problem=NOT_KNOWN))
        else:
            path.unlink(missing_ok=True)
    journal.adopt_uploads(left, directory.name)


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
    journal.finish_delete(upload.key)  # of what it replaced, which may have looked just like it
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


def _remove_empty(staging: Path) -> None:
    """Remove the directories of ended processes that hold nothing any more."""
    for directory in staging.iterdir():
        if not is_alive(directory.name) and all(path.name.startswith(LOG) for path in directory.iterdir()):
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _logged(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # a store's, or the local disk's
        log.warning("%s cannot be settled now, it stays for the next mount: %s", key, error)
