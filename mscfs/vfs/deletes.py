"""Deletes of objects, which the journal knows of before they are made (blocking; contract W8)."""

from __future__ import annotations

from pathlib import Path

from mscfs.errors import VersionMismatchError
from mscfs.journal import Journal
from mscfs.providers.sources import holds_file
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import Version
from mscfs.vfs.renames import on_primary


def delete_object(manager: ReplicaManager, journal: Journal, key: str, version: Version) -> None:
    """Delete an object. A crash in between leaves no copy of it that would pass for a file in an outage."""
    wishes = manager.deletion_wishes(key)
    if not wishes:
        manager.primary.delete(key)
        return
    journal.begin_delete(key, version, durable=False)
    try:
        manager.primary.delete(key)
    except BaseException:
        journal.finish_delete(key)
        raise
    journal.finish_delete(key, wishes)


def settle_delete(manager: ReplicaManager, journal: Journal, key: str, version: Version | None) -> None:
    """Carry out a delete that the journal has waiting, unless the name was written anew. In trouble it waits on."""
    try:
        manager.primary.delete(key, expected=version)
    except VersionMismatchError:
        journal.finish_delete(key)  # not ours to remove, and its copies are of use
        return
    journal.finish_delete(key, manager.deletion_wishes(key))


def delete_if_held(manager: ReplicaManager, key: str, content: Path) -> None:
    """Delete the object of a key if it holds what is in a file here. Another host's is left alone."""
    present = on_primary(manager, key)
    if present is not None and holds_file(manager.primary, present, content):
        manager.delete(key, expected=present.version)
