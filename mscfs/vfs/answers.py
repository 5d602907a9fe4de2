"""What the primary says of a name, applied to what is known here."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace

from mscfs.types import ObjectMetadata, Version, from_ns
from mscfs.vfs.inodes import Inode, InodeTable

_NEVER = float("-inf")
KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}


class Answers:
    """See the module. Nothing that changed on this mount after the question was asked gives way to an answer."""

    def __init__(self, table: InodeTable) -> None:
        self.table = table
        self.deferred: dict[str, Version | None] = {}
        """Keys unlinked here whose object waits for its last handle to close."""

    def apply(self, parent: Inode, name: str, entry: ObjectMetadata | None, serial: int, asked: float) -> Inode:
        """The inode of a name of which `entry` was told; FileNotFoundError when there is none.

        It was asked for at `asked` (monotonic seconds), after the local change `serial`.
        """
        child = self.table.child(parent, name)
        if child is not None and (child.change > serial or child.checked > asked or is_local(child)):
            child.hides = entry is not None
            return child
        if child is None and parent.removed.get(name, 0) > serial:
            raise no_such(name)
        if entry is None or self.is_deferred(entry):
            if child is not None:
                self.table.detach(child)
            raise no_such(name)
        kind = KINDS[entry.type]
        if child is not None and (child.kind != kind or (differs(child.metadata, entry) and child.handles)):
            # Open handles keep their version; the name gets an inode, and so a page cache, of its own (R1).
            self.table.detach(child)
            child = None
        is_new = child is None
        if child is None:
            child = self.table.add(parent, name, kind)
        if differs(child.metadata, entry):
            child.overrides.mtime_ns = child.overrides.atime_ns = None
        elif entry.is_directory and entry.modified_ns:
            child.overrides.mtime_ns = None  # the store keeps it
        if entry.metadata is not None:
            child.told = max(child.told, asked)
        elif child.metadata is not None and not differs(child.metadata, entry):
            entry = _with_metadata_of(child, entry, asked)
        child.metadata = entry
        if is_new:
            self.table.recall(child)
        child.checked = max(child.checked, asked)
        self.table.hold(parent, child)
        return child

    def is_deferred(self, entry: ObjectMetadata) -> bool:
        """Whether that very object is gone here, and only waits to be deleted."""
        if entry.key not in self.deferred:
            return False
        version = self.deferred[entry.key]
        return version is None or (version == entry.version and not version.is_written_anew(entry.version))


def _with_metadata_of(child: Inode, entry: ObjectMetadata, asked: float) -> ObjectMetadata:
    """The same version, and we know more about it than a listing tells. New metadata are told by a new time alone."""
    known = child.metadata
    assert known is not None
    if known.metadata is None or entry.is_directory:
        return replace(entry, metadata=known.metadata)
    if known.version.modified_ns != entry.version.modified_ns:
        child.told = _NEVER
        return replace(entry, metadata=known.metadata, symlink_target=known.symlink_target)
    if child.told > _NEVER:
        child.told = max(child.told, asked)
    return known


def is_local(inode: Inode) -> bool:
    """Whether the truth about an inode is on this mount: not uploaded yet, or a directory kept for its maker."""
    if inode.staging is not None and (inode.staging.dirty or inode.metadata is None):
        return True
    if inode.is_locked:
        return True  # it is being changed here: the primary's answer would be about some moment in between
    return inode.sticky


def directory_metadata(key: str) -> ObjectMetadata:
    """The metadata of a directory known by name only."""
    return ObjectMetadata(key, 0, from_ns(0), type="directory")


def no_such(name: str) -> FileNotFoundError:
    """ENOENT."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def differs(known: ObjectMetadata | None, entry: ObjectMetadata) -> bool:
    """Whether a file is told to be of another version than is known."""
    return known is not None and not entry.is_directory and known.version != entry.version
