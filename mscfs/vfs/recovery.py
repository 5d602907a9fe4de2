"""What an ended mount left behind, put right by the next one (contract W4, W7, W8)."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mscfs.errors import StorageError
from mscfs.journal import Journal, PendingDelete, PendingParts, PendingUpload, StagedUpload, is_alive
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata
from mscfs.vfs.deletes import settle_delete
from mscfs.vfs.leftbehind import InOtherHandsError, bring_home, left_behind
from mscfs.vfs.renames import settle_rename
from mscfs.vfs.staging_log import LOG, read_log
from mscfs.vfs.trees import settle_move
from mscfs.vfs.unsettled import Unsettled

log = logging.getLogger(__name__)

NOT_CLOSED = "it was not closed when the mount ended"
NOT_KNOWN = "the machine went down before it was on disk what this is"


@dataclass(slots=True)
class Recovered:
    """What recovery did: files uploaded, found on the primary already, and kept because somebody must decide."""

    uploaded: int = 0
    found: int = 0
    kept: int = 0


@dataclass(slots=True)
class _Work:
    """Something to settle. `names` are those that may be about to change: see `Unsettled`."""

    key: str
    settle: Callable[[], None]
    names: tuple[str, ...] = ()


@dataclass
class Recovery:
    """Settles uploads, parts, renames, moves and deletes whose process is gone (blocking).

    Nothing is dropped and nothing newer is overwritten: staged content goes to the primary only if that still holds
    the version it was made from. `staging` holds one directory a process. `unsettled` is told which names wait for it.
    """

    manager: ReplicaManager
    journal: Journal
    staging: Path
    unsettled: Unsettled = field(default_factory=Unsettled)
    result: Recovered = field(default_factory=Recovered)
    is_ending: bool = False
    """Set from another thread: settle nothing more."""
    _is_waiting: bool = False
    _left: list[_Work] = field(default_factory=list)

    def begin(self) -> None:
        """Find out what there is to do; asks no store. Raises StorageError when the journal cannot be used."""
        manager, journal = self.manager, self.journal
        journal.check()
        adopt(journal, self.staging)
        for upload in journal.uploads_left_behind():
            if not upload.staging.exists() and journal.claim_upload(upload.id):
                journal.drop_upload(upload.id)
        uploads = []
        for upload in left_behind(journal):
            if upload.problem:
                self.result.kept += 1
            else:
                uploads.append(_Work(upload.key, partial(self._settle_upload, upload)))
        if self.result.kept:
            log.warning("%d unsent contents are kept for a person to decide on: `mscfs recover`", self.result.kept)
        parts = [_Work(parts.key, partial(self._settle_parts, parts)) for parts in journal.parts(orphaned=True)]
        changes = [
            _Work(rename.source, partial(settle_rename, manager, journal, rename), (rename.source, rename.target))
            for rename in journal.renames(orphaned=True)
        ]
        changes += [
            _Work(move.source, partial(settle_move, manager, journal, move), (move.source, move.target))
            for move in journal.moves(orphaned=True)
        ]
        changes += [
            _Work(delete.key, partial(self._settle_delete, delete), (delete.key,))
            for delete in journal.deletes(orphaned=True)
        ]
        for change in changes:
            self.unsettled.add(change.names)
        # First the parts: what a killed process told the store to make of them must not come over what is written now.
        self._left = parts + _in_order(uploads, changes)
        if not self._left:
            _remove_empty(self.staging)

    @property
    def left(self) -> int:
        """How many things are still to be settled."""
        return len(self._left)

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to settle."""
        return self.is_ending or not self._left

    def step(self) -> bool:
        """Settle one thing; False when the primary is down: try again when it is back, the others first.

        What fails for another reason stays for the next mount.
        """
        work = self._left[0]
        try:
            work.settle()
        except OSError as error:
            if isinstance(error, StorageError):
                self.manager.primary_source.failed(error)
                if error.transient:
                    if not self._is_waiting:
                        log.warning("%s cannot be settled before the primary answers: %s", work.key, error)
                    self._is_waiting = True
                    # It may be in trouble with this one alone, which must not keep all others waiting.
                    self._left = _first_last(self._left)
                    return False
            log.warning("%s cannot be settled now, it stays for the next mount: %s", work.key, error)
        except Exception:
            log.exception("a bug in settling %s: it stays for the next mount", work.key)
        del self._left[0]
        self.unsettled.settle(work.names)
        if not self._left:
            _remove_empty(self.staging)
        return True

    def _settle_upload(self, upload: PendingUpload) -> None:
        try:
            settled = settle_upload(self.manager, self.journal, upload)
        except InOtherHandsError:
            return
        if settled is None:
            self.result.kept += 1
            return
        _, was_sent = settled
        self.result.uploaded += was_sent
        self.result.found += not was_sent

    def _settle_parts(self, parts: PendingParts) -> None:
        self.manager.primary.abort_upload(parts.key, parts.token)
        self.journal.finish_parts(parts.id)

    def _settle_delete(self, delete: PendingDelete) -> None:
        if all(pending.key != delete.key for pending in self.journal.deletes()):
            return  # an upload has replaced it meanwhile
        settle_delete(self.manager, self.journal, delete.key, delete.version)


def _in_order(uploads: list[_Work], changes: list[_Work]) -> list[_Work]:
    """Names are settled first, as programs wait for them: all but those that an upload has to do with."""
    first, last = _apart(changes, {upload.key for upload in uploads})
    return [*first, *uploads, *last]


def _first_last(works: list[_Work]) -> list[_Work]:
    """The first one goes to the end, and in its order all that has to come after it."""
    others, later = _apart(works[1:], {*works[0].names, works[0].key})
    return [*others, works[0], *later]


def _apart(works: list[_Work], taken: set[str]) -> tuple[list[_Work], list[_Work]]:
    """Those that have nothing to do with the names that are taken, nor with such as do; and the rest, in order."""
    free, rest = [], []
    for work in works:
        names = {*work.names, work.key}
        if any(_overlap(name, key) for name in names for key in taken):
            rest.append(work)
            taken.update(names)
        else:
            free.append(work)
    return free, rest


def _overlap(name: str, other: str) -> bool:
    """Whether two names are the same, or one is below the other."""
    return (
        name == other
        or (name.endswith("/") and other.startswith(name))
        or (other.endswith("/") and name.startswith(other))
    )


def settle_upload(
    manager: ReplicaManager, journal: Journal, upload: PendingUpload
) -> tuple[ObjectMetadata, bool] | None:
    """As `bring_home`; None when it is kept for a person now. Raises InOtherHandsError, and what may pass."""
    try:
        return bring_home(manager, journal, upload)
    except StorageError as error:
        if error.transient or isinstance(error, InOtherHandsError):
            raise
        journal.keep_upload(upload.id, error.message)
        log.error("%s: unsent content is kept in %s: %s", upload.key, upload.staging, error.message)  # noqa: TRY400
        return None


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


def _remove_empty(staging: Path) -> None:
    """Remove the directories of ended processes that hold nothing any more."""
    for directory in staging.iterdir():
        if not is_alive(directory.name) and all(path.name.startswith(LOG) for path in directory.iterdir()):
            shutil.rmtree(directory, ignore_errors=True)
