"""Inodes: what the kernel holds a number for."""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import trio

from mscfs.providers.page import DIRECTORY, FILE, SYMLINK, Entry, to_entry
from mscfs.types import ObjectMetadata
from mscfs.vfs.entries import BLOCK, BLOCK_BITS, GONE, HELD, KEPT, Entries
from mscfs.vfs.overrides import NO_OVERRIDES, Overrides
from mscfs.vfs.paths import to_bytes, to_name
from mscfs.vfs.staging import StagingFile

if TYPE_CHECKING:
    from mscfs.vfs.listings import Listing
    from mscfs.vfs.remembered import Remembered

ROOT = 1
MODES = {FILE: stat.S_IFREG, DIRECTORY: stat.S_IFDIR, SYMLINK: stat.S_IFLNK}
"""The file type in st_mode for each kind of entry."""
KINDS = {mode: kind for kind, mode in MODES.items()}
MAY_GIVE_AWAY = os.geteuid() == 0
"""Only root may set a new file's owner on the store (chown(2)); others own what they make."""


class Inode:
    """A file, directory or symbolic link known to the kernel or to an open handle.

    `metadata` is the primary's word and None for what only exists here so far. A detached inode has lost its name
    (unlinked, or replaced by another version) and lives on for its open handles.
    """

    __slots__ = (
        "_lock",
        "asked",
        "cached_version",
        "change",
        "checked",
        "children",
        "coming",
        "deleted",
        "detached",
        "entries",
        "going",
        "handles",
        "hides",
        "kind",
        "listing",
        "lookups",
        "metadata",
        "name",
        "number",
        "overrides",
        "parent",
        "removed",
        "staging",
        "sticky",
        "told",
        "users",
        "walked",
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
        self.told = float("-inf")
        """When the object itself was asked, which tells more than listings: its user metadata."""
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
        self.going: trio.Event | None = None
        """Set when it is known whether the name, which is being taken away with its object, was lost: see `leaving`."""
        self.sticky = False
        """A directory that exists here although the store may know nothing below it any more."""
        self.hides = False
        """The primary was last told to have something of this name, which counted less than what is here."""
        self.cached_version: str | None = None
        """Token of the version whose bytes the kernel's page cache holds."""
        self.users = 0
        """Calls under way that have it in hand without a handle."""
        self.children: dict[str, Inode] = {}
        """The names in a directory that have an inode of their own."""
        self.removed: dict[str, int] = {}
        """Names taken away on this mount, with the serial of the change."""
        self.entries: Entries | None = None
        """The names in a directory as listings told them."""
        self.listing: Listing | None = None
        """The latest listing that came to its end."""
        self.coming: Listing | None = None
        """The one under way."""
        self.asked = 0
        """Names that had to be asked for one by one since the directory was listed last."""
        self.walked = -1
        """Position in the listing of the sub-directory that was opened last."""
        self._lock: trio.Lock | None = None

    @property
    def lock(self) -> trio.Lock:
        """Held while the file's content, name or attributes change; made by the first who asks, and few are asked."""
        if self._lock is None:
            self._lock = trio.Lock()
        return self._lock

    @property
    def is_locked(self) -> bool:
        """Whether somebody changes it now."""
        return self._lock is not None and self._lock.locked()

    @property
    def raw_name(self) -> bytes:
        """The name as the kernel and the columns have it."""
        return to_bytes(self.name)

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
    def is_needed(self) -> bool:
        """Whether something on this mount needs the object itself, whatever the kernel refers to."""
        return bool(
            self.handles
            or self.children
            or self.users
            or self.is_locked
            or self.coming
            or (self.staging and self.staging.dirty)
            or (self.entries and self.entries.references)
            or (self.parent and self.parent.coming and self.change > self.parent.coming.serial)
        )

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Its object is about to go, for whose readers was provided: until that has happened or failed nobody opens it.

        He would be told ESTALE when he reads.
        """
        going = self.going = trio.Event()
        try:
            yield
        finally:
            going.set()
            if self.going is going:
                self.going = None

    @contextmanager
    def used(self) -> Iterator[Self]:
        """While a call has it in hand, it stays what its number and its name stand for."""
        self.users += 1
        try:
            yield self
        finally:
            self.users -= 1


class InodeTable:
    """All inodes by number, the names in their directories, and the kernel's lookup counts.

    A name that was only listed has a number and no `Inode`: it is made when something more than stat(2) is asked for,
    and goes back to the columns of `Entries` when nobody needs it any more.
    """

    def __init__(self, remembered: Remembered | None = None) -> None:
        self.remembered = remembered
        """Attributes of what has no object; None where the store keeps them."""
        self._blocks: dict[int, Entries] = {}
        self._next_block = 1
        self._numbers = iter(range(ROOT, BLOCK))
        self._inodes: dict[int, Inode] = {}
        self.root = self._make(None, "", stat.S_IFDIR)
        self.root.lookups = 1

    def __len__(self) -> int:
        """The number of inodes that are objects."""
        return len(self._inodes)

    def __iter__(self) -> Iterator[Inode]:
        return iter(list(self._inodes.values()))

    def __getitem__(self, number: int) -> Inode:
        """The inode of a number; OSError ESTALE."""
        inode = self._inodes.get(number)
        return self.materialise(*self.place(number)) if inode is None else inode

    def get(self, number: int) -> Inode | None:
        """The inode of a number, if it is an object."""
        return self._inodes.get(number)

    def place(self, number: int) -> tuple[Entries, int]:
        """Where what is known of a number stands, when it is no object; OSError ESTALE."""
        place = self._place(number)
        if place is None or not place[0].has(place[1]):
            raise OSError(errno.ESTALE, "the inode is not known any more")
        return place

    def child(self, parent: Inode, name: str) -> Inode | None:
        """The inode of a name in a directory as far as known here, however long ago."""
        child = parent.children.get(name)
        if child is None and parent.entries is not None:
            slot = parent.entries.find(to_bytes(name))
            if slot >= 0:
                return self.materialise(parent.entries, slot)
        return child

    def entries_of(self, directory: Inode) -> Entries:
        """The columns of a directory."""
        if directory.entries is None:
            directory.entries = Entries(directory, self._allot)
        return directory.entries

    def add(self, parent: Inode, name: str, kind: int) -> Inode:
        """A new inode under a name that must be free."""
        assert name not in parent.children
        entries = parent.entries
        if entries is None:
            inode = self._make(parent, name, kind)
        else:
            self.lose(parent, name)
            slot = entries.add(Entry(to_bytes(name), KINDS[kind], 0, 0, b"", None))
            entries.states[slot] = HELD
            entries.references += 1
            number = entries.number(slot)
            inode = self._inodes[number] = Inode(number, parent, name, kind)
        parent.children[name] = inode
        return inode

    def materialise(self, entries: Entries, slot: int) -> Inode:
        """The inode of a slot as an object."""
        parent, name = entries.directory, to_name(entries.names[slot])
        if entries.states[slot] & HELD:
            return parent.children[name]
        number, entry = entries.number(slot), entries.read(slot)
        inode = self._inodes[number] = Inode(number, parent, name, MODES[entries.kinds[slot]])
        inode.metadata = entry.metadata(parent.key)
        inode.checked = entries.moment(slot)
        inode.lookups = entries.lookups[slot]
        if inode.metadata.metadata is not None:
            inode.told = inode.checked
        entries.lookups[slot] = 0
        entries.references += not inode.lookups  # its own instead of the kernel's
        if entries.states[slot] & GONE:
            inode.detached, inode.parent, inode.name = True, None, inode.metadata.key
            return inode
        if entries.cached[slot]:
            inode.cached_version = inode.metadata.version.token
        parent.children[name] = inode
        if self.remembered is not None and entries.states[slot] & KEPT:
            self.remembered.recall(inode)
        entries.states[slot] = entries.states[slot] & ~KEPT | HELD
        return inode

    def hold(self, parent: Inode, inode: Inode) -> None:
        """An inode is what its name in the columns stands for, which are brought up to date."""
        entries, metadata = parent.entries, inode.metadata
        if entries is None or metadata is None:
            return
        name = inode.raw_name
        slot, entry = entries.find(name), to_entry(metadata, name, links=False)
        if slot < 0:
            slot = entries.add(entry)
        entries.put(slot, entry)
        entries.states[slot] = HELD

    def detach(self, inode: Inode) -> None:
        """Take the name away; the inode stays for its handles and the kernel's references."""
        parent = inode.parent
        if parent is None or inode.detached:
            return
        if parent.children.get(inode.name) is inode:
            del parent.children[inode.name]
            self.lose(parent, inode.name)
        # The key at the time of the loss: open handles keep reading the object by it.
        inode.detached, inode.parent, inode.name = True, None, inode.key
        self.drop_if_idle(inode)
        self.drop_if_idle(parent)

    def lose(self, parent: Inode, name: str) -> None:
        """A name in the columns of a directory is gone, whether or not an inode has it."""
        if parent.entries is not None:
            slot = parent.entries.find(to_bytes(name))
            if slot >= 0:
                self._drop_slot(parent.entries, slot)

    def recall(self, inode: Inode) -> None:
        """An inode that was made of what a store told has the attributes that were set on its name."""
        if self.remembered is not None:
            self.remembered.recall(inode)

    def look_out(self, directory: Inode, names: Sequence[bytes]) -> None:
        """A listing has told of these names: mark those of which attributes are remembered."""
        kept = self.remembered.below(directory.key) if self.remembered is not None else {}
        entries = directory.entries
        if not kept or entries is None:
            return
        for name in names if len(names) < len(kept) else list(kept):
            slot = entries.find(name)
            if name in kept and slot >= 0 and not entries.states[slot] & HELD:
                entries.states[slot] |= KEPT

    def forget_attributes(self, directory: Inode, name: str) -> None:
        """A name is gone, and with it what was set on it."""
        if self.remembered is not None:
            self.remembered.forget(directory.key, to_bytes(name))

    def move(self, inode: Inode, parent: Inode, name: str) -> None:
        """Give an inode another name; the name must be free."""
        old = inode.parent
        assert old is not None
        del old.children[inode.name]
        inode.parent, inode.name = parent, name
        parent.children[name] = inode
        self.drop_if_idle(old)

    def forget(self, number: int, lookups: int) -> None:
        """The kernel gives back references."""
        inode = self._inodes.get(number)
        if inode is not None:
            inode.lookups = max(0, inode.lookups - lookups)
            self.drop_if_idle(inode)
            return
        place = self._place(number)
        if place is not None:
            entries, slot = place
            entries.forget(slot, lookups)
            if not entries.references:
                self.drop_if_idle(entries.directory)

    def drop_if_idle(self, inode: Inode, *, is_old: bool = False) -> None:
        """Remove what nothing refers to any more, and then its parent likewise.

        What only the kernel refers to goes back to the columns, if they can tell everything about it: also when it was
        vouched for, unless that `is_old`.
        """
        while inode is not self.root and not inode.is_needed and inode.number in self._inodes:
            parent, slot = inode.parent, self._slot(inode, is_old=is_old)
            if inode.lookups and slot is None:
                return
            del self._inodes[inode.number]
            if inode.entries is not None:
                for block in inode.entries.blocks:
                    del self._blocks[block]
            # Both refer to the inode: the collector, which would find that, looks at what is old once in days.
            inode.entries = inode.listing = None
            if parent is not None and parent.children.get(inode.name) is inode:
                del parent.children[inode.name]
                is_kept = self.remembered is not None and self.remembered.keep(inode)
                if parent.entries is not None:
                    self._fold(parent.entries, inode, slot, is_kept=is_kept)
            self._give_back(inode.number)
            if parent is None:
                return
            inode = parent

    # -- inside ---------------------------------------------------------------------------------------------------

    def _place(self, number: int) -> tuple[Entries, int] | None:
        entries = self._blocks.get(number >> BLOCK_BITS)
        if entries is None:
            return None
        ordinal = bisect_left(entries.blocks, number >> BLOCK_BITS)
        return entries, ordinal << BLOCK_BITS | number & BLOCK - 1

    def _slot(self, inode: Inode, *, is_old: bool) -> int | None:
        """The slot that can take over for an inode without loss, if there is one."""
        place = self._place(inode.number)
        if place is None or inode.metadata is None or inode.parent is None:
            return None
        entries, slot = place
        can_take = (
            entries.directory is inode.parent
            and entries.find(inode.raw_name) == slot
            and inode.kind != stat.S_IFDIR
            and inode.staging is None
            and inode.overrides == NO_OVERRIDES
            and (is_old or inode.checked <= entries.moment(slot))
        )
        return slot if can_take else None

    def _fold(self, entries: Entries, inode: Inode, own: int | None, *, is_kept: bool) -> None:
        """The columns tell of an inode's name from now on."""
        name = inode.raw_name
        slot = entries.find(name)
        if slot < 0:
            return
        entries.states[slot] &= ~HELD
        if is_kept:
            entries.states[slot] |= KEPT
        if inode.metadata is None:
            self._drop_slot(entries, slot)
            return
        # What user metadata told once may not be true of a new time: the object is asked again.
        metadata = replace(inode.metadata, metadata=None) if inode.told == float("-inf") else inode.metadata
        entries.put(slot, to_entry(metadata, name, links=False))
        if own is not None:
            entries.cached[slot] = inode.cached_version == inode.metadata.version.token
            if inode.lookups:
                entries.refer(slot, inode.lookups)

    def _drop_slot(self, entries: Entries, slot: int) -> None:
        entries.drop(slot)
        if entries.number(slot) not in self._inodes:
            entries.free_if_gone(slot)

    def _give_back(self, number: int) -> None:
        """No object has that number any more."""
        place = self._place(number)
        if place is not None:
            entries, slot = place
            entries.references -= 1
            entries.free_if_gone(slot)
            if not entries.references:
                self.drop_if_idle(entries.directory)

    def _allot(self, entries: Entries) -> int:
        block = self._next_block
        self._next_block += 1
        self._blocks[block] = entries
        return block

    def _make(self, parent: Inode | None, name: str, kind: int) -> Inode:
        number = next(self._numbers, None)
        if number is None:
            first = self._next_block << BLOCK_BITS
            self._next_block += 1
            self._numbers = iter(range(first, first + BLOCK))
            number = next(self._numbers)
        inode = self._inodes[number] = Inode(number, parent, name, kind)
        return inode
