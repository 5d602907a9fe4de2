"""Renaming directories on a store that has none: every object is copied on the server, then the old ones are removed.

The journal says how far it is: after a crash while copying, the copies are removed; after the last copy, the old
objects are (W7). All functions block.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import TypeVar

from mscfs.errors import DirectoryNotEmptyError, NotFoundError, StorageError, VersionMismatchError
from mscfs.journal import Journal, PendingMove, Wish
from mscfs.replicas.freshness import comparable_hashes
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata, Version
from mscfs.vfs.renames import same_content

log = logging.getLogger(__name__)

REQUESTS_AT_ONCE = 16
_TRIES = 5
"""For an object that others keep writing meanwhile."""

Item = TypeVar("Item")


@dataclass(slots=True)
class MovedTree:
    """A directory whose objects are all copied, and not removed yet."""

    row: int
    source: str
    target: str
    objects: list[tuple[str, Version]] = field(default_factory=list)
    """Old keys, and what was copied of each."""
    markers: list[str] = field(default_factory=list)
    """Old keys of directories."""
    copies: dict[str, ObjectMetadata] = field(default_factory=dict)
    """The copies that were asked for, by old key."""


def copy_tree(
    manager: ReplicaManager,
    journal: Journal,
    source: str,
    target: str,
    *,
    replaced: bool,
    wanted: frozenset[str],
    check: Callable[[], None],
) -> MovedTree:
    """Copy everything below `source`, `replaced` telling whether `target` is there already, and empty.

    From its return on the new names are the truth. Raises what a store or `check`, which is called now and then, says;
    nothing is left at the new name then. The copies of the `wanted` keys are told.
    """
    moved = MovedTree(journal.begin_move(source, target, replaced=replaced), source, target)
    made: list[ObjectMetadata] = []

    def copy(entry: ObjectMetadata) -> None:
        check()
        key, new = entry.key, _renamed(entry.key, source, target)
        if entry.is_directory:
            with contextlib.suppress(NotFoundError):  # it is gone meanwhile
                manager.primary.make_directory(new, metadata=manager.primary.head_marker(key).metadata)
                moved.markers.append(key)
            return
        copied = _copied(manager, entry, new)
        if copied is not None:
            made.append(copied[1])
            moved.objects.append((key, copied[0]))
            if key in wanted:
                moved.copies[key] = copied[1]

    try:
        _at_once(copy, manager.primary.list(source))
        if not moved.objects and source not in moved.markers:
            manager.primary.make_directory(target)
        journal.advance_move(moved.row, "removing")
    except BaseException:
        with _left_to_the_next_mount(source):
            _undo(manager, moved, made, replaced=replaced)
            journal.finish_move(moved.row)
        raise
    return moved


def remove_tree(manager: ReplicaManager, journal: Journal, moved: MovedTree) -> None:
    """Remove what was copied, and make the wishes for the replicas.

    What somebody else wrote meanwhile stays. Where the store fails the rest is left to the next mount.
    """
    with _left_to_the_next_mount(moved.source):
        _at_once(lambda item: _delete(manager, *item), moved.objects)
        _remove_markers(manager, moved.markers)
        new = [(_renamed(key, moved.source, moved.target), version.size) for key, version in moved.objects]
        new += [(_renamed(key, moved.source, moved.target), 0) for key in moved.markers]
        old = [*(key for key, _ in moved.objects), *moved.markers]
        journal.finish_move(moved.row, _wishes(manager, old, new))


def rename_directory(manager: ReplicaManager, journal: Journal, source: str, target: str) -> None:
    """The same where directories are real: in one step."""
    row = journal.begin_move(source, target, replaced=False)
    try:
        manager.primary.rename_directory(source, target)
    except BaseException:
        journal.finish_move(row)
        raise
    journal.finish_move(row, _wishes_below(manager, source, target))


def settle_move(manager: ReplicaManager, journal: Journal, move: PendingMove) -> None:
    """Finish or undo a move that a crash cut short.

    What was written to either name since is told from copies by size, content and time, and stays. Where anything else
    was written to the new name, nothing below it is undone: it may have been made there, too.
    """
    primary = manager.primary
    if primary.capabilities.real_directories:
        happened = not primary.has_directory(move.source) and primary.has_directory(move.target)
        journal.finish_move(move.id, _wishes_below(manager, move.source, move.target) if happened else ())
        return
    old = {entry.key: entry for entry in primary.list(move.source)}
    new = {_renamed(entry.key, move.target, move.source): entry for entry in primary.list(move.target)}
    both = [key for key in old.keys() & new.keys() if not old[key].is_directory and _is_copy(old[key], new[key])]
    markers = [key for key in old.keys() & new.keys() if old[key].is_directory]
    if move.state == "copying":
        copies = _surely_copies(manager, [(old[key], new[key]) for key in both])
        if len(copies) < sum(not entry.is_directory for entry in new.values()):
            log.warning(
                "%s is in use since its rename from %s was cut short: it is left as it is", move.target, move.source
            )
            copies = []
        _at_once(lambda copy: _delete(manager, copy.key, copy.version), copies)
        _remove_markers(manager, (new[key].key for key in markers if key != move.source or not move.replaced))
        journal.finish_move(move.id)
        return
    _at_once(lambda key: _delete(manager, key, old[key].version), both)
    _remove_markers(manager, markers)
    targets = [(entry.key, entry.content_length) for entry in new.values()]
    journal.finish_move(move.id, _wishes(manager, new, targets))


# -- inside -------------------------------------------------------------------------------------------------------


def _renamed(key: str, source: str, target: str) -> str:
    return target + key[len(source) :]


def _copied(manager: ReplicaManager, entry: ObjectMetadata, target: str) -> tuple[Version, ObjectMetadata] | None:
    """The version that was copied, and the copy; None when the object is gone meanwhile."""
    version = entry.version
    for last in (*[False] * (_TRIES - 1), True):
        try:
            return version, manager.primary.copy(entry.key, target, expected=version)
        except NotFoundError:
            return None
        except VersionMismatchError:
            if last:
                raise
        try:
            version = manager.primary.head(entry.key).version
        except NotFoundError:
            return None
    raise AssertionError


def _delete(manager: ReplicaManager, key: str, version: Version) -> None:
    # Somebody else wrote it anew: not ours to remove.
    with contextlib.suppress(VersionMismatchError):
        manager.primary.delete(key, expected=version)


def _remove_markers(manager: ReplicaManager, directories: Iterable[str]) -> None:
    """Deepest first; what is not empty stays."""
    for directory in sorted(directories, key=lambda key: key.count("/"), reverse=True):
        with contextlib.suppress(DirectoryNotEmptyError):
            manager.primary.remove_directory(directory)


def _undo(manager: ReplicaManager, moved: MovedTree, made: list[ObjectMetadata], *, replaced: bool) -> None:
    _at_once(lambda copy: _delete(manager, copy.key, copy.version), made)
    new = {_renamed(key, moved.source, moved.target) for key in moved.markers}
    _remove_markers(manager, new - {moved.target} if replaced else new | {moved.target})


def _is_copy(source: ObjectMetadata, target: ObjectMetadata) -> bool:
    """Whether `target` can be the copy of what is `source` now: nobody wrote to either since."""
    one, other = source.version, target.version
    if comparable_hashes(one.content_hash, other.content_hash) and one.content_hash != other.content_hash:
        return False
    return one.size == other.size and one.modified_ns <= other.modified_ns


def _surely_copies(
    manager: ReplicaManager, pairs: Sequence[tuple[ObjectMetadata, ObjectMetadata]]
) -> list[ObjectMetadata]:
    """The second of those pairs that are of the same bytes."""
    found: list[ObjectMetadata] = []

    def compare(pair: tuple[ObjectMetadata, ObjectMetadata]) -> None:
        if same_content(manager, *pair):
            found.append(pair[1])

    _at_once(compare, pairs)
    return found


def _wishes_below(manager: ReplicaManager, source: str, target: str) -> list[Wish]:
    if not manager.replicas:
        return []
    new = [(entry.key, entry.content_length) for entry in manager.primary.list(target)]
    return _wishes(manager, [_renamed(key, target, source) for key, _ in new], new)


def _wishes(manager: ReplicaManager, old: Iterable[str], new: Iterable[tuple[str, int]]) -> list[Wish]:
    replicate = (manager.replication_wishes(key, size) for key, size in new)
    remove = (manager.deletion_wishes(key) for key in old)
    return list(chain.from_iterable(chain(replicate, remove)))


def _at_once(call: Callable[[Item], object], items: Iterable[Item]) -> None:
    """Call for each item, several at once. The first error is raised, and no further call begun."""
    pool = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="mscfs-move")
    try:
        for _ in pool.map(call, items):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _left_to_the_next_mount(directory: str) -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        log.warning("%s was renamed in part: the next mount puts that right (%s)", directory, error)
