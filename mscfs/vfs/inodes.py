"""Inodes: what the kernel holds a number for."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import trio

from mscfs.types import ObjectMetadata
from mscfs.vfs.staging import StagingFile

ROOT = 1
MAY_GIVE_AWAY = os.geteuid() == 0
"""Only root may set a new file's owner on the store (chown(2)); others own what they make."""


@dataclass(slots=True)
class Overrides:
    """Attributes set on this mount, kept while it lasts (W9). None: what the store or the options say."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None

    @property
    def any(self) -> bool:
        """Whether something was set that a store with POSIX attributes should keep."""
        return (self.mode, self.uid, self.gid, self.mtime_ns) != (None, None, None, None)


@dataclass(slots=True)
class Listing:
    """The entries of a directory as the primary listed them, by name, and when (monotonic seconds) that began."""

    entries: dict[str, ObjectMetadata]
    taken: float
    serial: int
    """Of the last local change before it began: later changes are told from the inodes."""


class Inode:
    """A file, directory or symbolic link known to the kernel or to an open handle.

    `metadata` is the primary's word and None for what only exists here so far. A detached inode has lost its name
    (unlinked, or replaced by another version) and lives on for its open handles.
    """

    __slots__ = (
        "cached_version",
        "change",
        "checked",
        "children",
        "deleted",
        "detached",
        "handles",
        "kind",
        "listing",
        "lock",
        "lookups",
        "metadata",
        "name",
        "number",
        "overrides",
        "parent",
        "removed",
        "staging",
        "sticky",
        "writers",
    )  # fmt: skip

    def __init__(self, number: int, parent: Inode | None, name: str, kind: int) -> None:
        self.number = number
        self.parent = parent
        self.name = name
        self.kind = kind
        """S_IFREG, S_IFDIR or S_IFLNK."""
        self.metadata: ObjectMetadata | None = None
        self.checked = float("-inf")
        """When the primary last vouched for `metadata` (monotonic seconds)."""
        self.change = 0
        """Serial of the last change made on this mount: answers that were asked for before it are out of date."""
        self.lookups = 0
        self.handles: set[object] = set()
        self.writers = 0
        self.staging: StagingFile | None = None
        self.overrides = Overrides()
        self.detached = False
        self.deleted = False
        """It lost its name here (unlink, rename over it): what is written to it goes nowhere."""
        self.sticky = False
        """A directory that exists here although the store may know nothing below it any more."""
        self.cached_version: str | None = None
        """Token of the version whose bytes the kernel's page cache holds."""
        self.children: dict[str, Inode] = {}
        self.removed: dict[str, int] = {}
        """Names taken away on this mount, with the serial of the change."""
        self.listing: Listing | None = None
        self.lock = trio.Lock()

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory."""
        return self.kind == stat.S_IFDIR

    @property
    def key(self) -> str:
        """The object's key; for a directory with its final slash, the root is the empty string."""
        if self.parent is None:
            return self.name
        return self.parent.key + self.name + ("/" if self.is_directory else "")

    @property
    def size(self) -> int:
        """Bytes of a file; length of a link's target."""
        if self.staging is not None:
            return self.staging.size
        if self.metadata is None:
            return 0
        if self.metadata.symlink_target is not None:
            return len(os.fsencode(self.metadata.symlink_target))
        return self.metadata.content_length

    @property
    def is_busy(self) -> bool:
        """Whether something still needs this inode."""
        return bool(self.lookups or self.handles or self.children or (self.staging and self.staging.dirty))


class InodeTable:
    """All inodes by number, the names in their directories, and the kernel's lookup counts."""

    def __init__(self) -> None:
        self._next = ROOT
        self._inodes: dict[int, Inode] = {}
        self.root = self._make(None, "", stat.S_IFDIR)
        self.root.lookups = 1

    def __len__(self) -> int:
        return len(self._inodes)

    def __iter__(self) -> Iterator[Inode]:
        return iter(list(self._inodes.values()))

    def __getitem__(self, number: int) -> Inode:
        try:
            return self._inodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, "the inode is not known any more") from None

    def add(self, parent: Inode, name: str, kind: int) -> Inode:
        """A new inode under a name that must be free."""
        assert name not in parent.children
        inode = self._make(parent, name, kind)
        parent.children[name] = inode
        return inode

    def detach(self, inode: Inode) -> None:
        """Take the name away; the inode stays for its handles and the kernel's references."""
        parent = inode.parent
        if parent is None or inode.detached:
            return
        if parent.children.get(inode.name) is inode:
            del parent.children[inode.name]
        # The key at the time of the loss: open handles keep reading the object by it.
        inode.detached, inode.parent, inode.name = True, None, inode.key
        self.drop_if_idle(inode)
        self.drop_if_idle(parent)

    def move(self, inode: Inode, parent: Inode, name: str) -> None:
        """Give an inode another name; the name must be free."""
        old = inode.parent
        assert old is not None
        del old.children[inode.name]
        inode.parent, inode.name = parent, name
        parent.children[name] = inode
        self.drop_if_idle(old)

    def current(self, inode: Inode) -> Inode:
        """The inode under the name of one that may have been dropped as idle since: another one, or this one again."""
        parent = inode.parent
        if parent is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        if inode.name not in parent.children:
            parent.children[inode.name] = self._inodes[inode.number] = inode
        return parent.children[inode.name]

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gives back references."""
        inode = self._inodes.get(number)
        if inode is not None:
            inode.lookups = max(0, inode.lookups - lookups)
            self.drop_if_idle(inode)

    def drop_if_idle(self, inode: Inode) -> None:
        """Remove what nothing refers to any more, and then its parent likewise."""
        while inode is not self.root and not inode.is_busy:
            self._inodes.pop(inode.number, None)
            parent = inode.parent
            if parent is None or parent.children.get(inode.name) is not inode:
                return
            del parent.children[inode.name]
            inode = parent

    def _make(self, parent: Inode | None, name: str, kind: int) -> Inode:
        inode = Inode(self._next, parent, name, kind)
        self._next += 1
        self._inodes[inode.number] = inode
        return inode
