"""Bring one replica to the primary's present state for one key: the only way bytes reach a replica."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from typing import Literal

from mscfs.errors import (
    AccessDeniedError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
    UnsupportedError,
    VersionMismatchError,
)
from mscfs.journal import Journal, Wish
from mscfs.providers.base import StorageProvider
from mscfs.replicas.freshness import is_up_to_date
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica
from mscfs.types import STAMP_KEY, ObjectMetadata

ROUNDS = 5
"""How often a copy is begun anew because the primary's object changed meanwhile, before the wish is postponed."""

Outcome = Literal["fresh", "copied", "deleted", "absent", "undone"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """What was done, and the bytes moved.

    `fresh`: nothing was to do. `copied`. `deleted`: removed from the replica. `absent`: the primary has none, and the
    replica was left alone. `undone`: a copy that was made while the primary's object was deleted.
    """

    outcome: Outcome
    bytes: int = 0


def bring_up_to_date(manager: ReplicaManager, profile: str, key: str, *, delete: bool = False) -> StepResult:
    """Make the replica `profile` hold `key` as the primary holds it now.

    After each copy the primary is asked again, so that an overwrite or a delete under way never leaves an older or a
    deleted object behind. `delete`: remove the key from the replica when the primary has none. A crash at any point
    leaves the old copy or a whole new one, and the wish. Raises KeyError for a replica that is not configured, and
    StorageError: try again later if it is transient.
    """
    replica = manager.replica(profile)
    kind = _DirectoryStep if key.endswith("/") else _ObjectStep
    try:
        result = kind(manager, replica, key).run(delete=delete)
    except StorageError as error:
        if error.store == replica.profile:
            replica.failed(error)
        raise
    if result.outcome != "absent":  # then the replica was not asked
        replica.health.succeeded()
    if result.outcome in {"fresh", "copied"} and manager.journal is not None:
        _show(manager, manager.journal, profile, key)
    return result


def _show(manager: ReplicaManager, journal: Journal, profile: str, key: str) -> None:
    """The replica holds what the primary holds, or held: a copy that was hidden is of use again.

    It may have been hidden since the step's last look at the primary, by a delete: so look once more, and afterwards.
    """
    if not journal.is_hidden(profile, key) or not _is_on_primary(manager.primary, key):
        return
    journal.show(profile, key)
    is_there = False
    try:
        is_there = _is_on_primary(manager.primary, key)
    finally:
        if not is_there:
            journal.wish([Wish(profile, key, "hide")])


def _is_on_primary(primary: StorageProvider, key: str) -> bool:
    if key.endswith("/"):
        return primary.has_directory(key)
    try:
        primary.head(key)
    except NotFoundError:
        return False
    return True


class _ObjectStep:
    def __init__(self, manager: ReplicaManager, replica: Replica, key: str) -> None:
        self._manager = manager
        self._replica = replica
        self._key = key
        self._written: ObjectMetadata | None = None
        self._moved = 0

    def run(self, *, delete: bool) -> StepResult:
        """Copy until the replica holds what the primary holds, seen after the copy."""
        had_none = False
        deleted = False
        for _ in range(ROUNDS):
            try:
                present = self._manager.present(self._key)
            except NotFoundError:
                if delete and not deleted:
                    self._replica.provider.delete(self._key)
                    self._written, deleted = None, True
                    continue  # was it written anew meanwhile?
                return StepResult("deleted", self._moved) if deleted else self._without_primary(undo=had_none)
            copy = self._written or self._copy_or_none()
            if copy is not None and is_up_to_date(copy, present, profile=self._replica.profile):
                self._keep_mode(copy, present)
                return StepResult("copied" if self._written else "fresh", self._moved)
            had_none = had_none or copy is None
            try:
                self._written = self._copy(present)
            except (NotFoundError, VersionMismatchError) as error:
                if error.store == self._replica.profile:
                    raise
                continue  # the primary's object changed while it was read
            self._moved += present.content_length
        raise StoreUnavailableError("the object keeps changing", store=self._manager.profile, key=self._key)

    def _copy(self, present: ObjectMetadata) -> ObjectMetadata:
        provider = self._replica.provider
        if present.symlink_target is not None:
            return provider.make_symlink(self._key, present.symlink_target)
        stamp = {**(present.metadata or {}), STAMP_KEY: present.version.stamp()}
        without = (self._replica.profile,)
        # What was written has mostly not reached the others either: one that is silent would hold up this copy.
        behind = [other.profile for other in self._manager.replicas if self._is_behind(other)]
        with self._manager.open_version(self._key, None, present.version, without=without, lacking=behind) as content:
            written = provider.put(self._key, content, metadata=stamp, content_type=present.content_type)
        # The store that took the metadata need not repeat it in its answer to a put.
        return written if written.metadata else replace(written, metadata=stamp)

    def _is_behind(self, other: Replica) -> bool:
        return other is not self._replica and self._manager.is_behind(other.profile, self._key)

    def _keep_mode(self, copy: ObjectMetadata, present: ObjectMetadata) -> None:
        if present.mode in {None, copy.mode} or present.symlink_target is not None:
            return
        if self._replica.provider.capabilities.posix_attributes:
            # A replica that will not have the mode has the bytes all the same.
            with contextlib.suppress(AccessDeniedError, UnsupportedError):
                self._replica.provider.set_posix_attributes(self._key, mode=present.mode)

    def _copy_or_none(self) -> ObjectMetadata | None:
        try:
            return self._replica.provider.head(self._key)
        except NotFoundError:
            return None

    def _without_primary(self, *, undo: bool) -> StepResult:
        if self._written is None or not undo:
            return StepResult("absent", self._moved)
        try:
            self._replica.provider.delete(self._key, expected=self._written.version)
        except VersionMismatchError:
            return StepResult("absent", self._moved)  # somebody else's object by now
        return StepResult("undone", self._moved)


class _DirectoryStep:
    def __init__(self, manager: ReplicaManager, replica: Replica, directory: str) -> None:
        self._primary = manager.primary
        self._provider = replica.provider
        self._directory = directory

    def run(self, *, delete: bool) -> StepResult:
        """Make the directory, or remove it if it is empty."""
        if self._primary.has_directory(self._directory):
            had = self._provider.has_directory(self._directory)
            self._provider.make_directory(self._directory)
            if self._primary.has_directory(self._directory):
                return StepResult("fresh" if had else "copied")
            delete = delete or not had
        return self._removed() if delete else StepResult("absent")

    def _removed(self) -> StepResult:
        try:
            self._provider.remove_directory(self._directory)
        except StorageError as error:
            if error.transient:
                raise
            return StepResult("absent")  # not empty, or not there: the replica's own affair
        return StepResult("deleted")
