"""The entries of one directory in columns: about 250 bytes for each, where an inode of its own costs five times that.

A slot is a row. It has an inode number as long as it lives, and the kernel's lookup count, so that stat(2), readdir(3),
lookups and forgetting need no `Inode`. Slots whose name is gone stay until the kernel has forgotten them; then they are
used again.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mscfs.providers.page import DIRECTORY, FILE, MAYBE_LINK, SYMLINK, Detail, Entry, Page

if TYPE_CHECKING:
    from mscfs.vfs.inodes import Inode

HELD, UNSURE, GONE, KEPT = 1, 2, 4, 8
"""States of a slot that need a closer look: there is an `Inode` of the name, which knows better; the entry may be a
symbolic link; the name is gone; attributes of it are remembered. 0: the columns tell all."""

BLOCK_BITS = 10
BLOCK = 1 << BLOCK_BITS
"""Inode numbers are given out in blocks of so many: a number tells the block, and the block the slot."""

_SEGMENT = 1 << 16
"""Names in one dict of the index: one that grows further would stop everything while it is copied."""

_TIDIED_AT = 1024
"""Free slots that the sequence holds, at least, when they are taken out of it."""

_UNKNOWN, _LOST, _FREE = 0, 3, 4
"""Marks of slots of which no listing that is remembered tells, whose names are gone, and that may be used again.
Listings have 1 and 2 in turn."""


class Entries:
    """See the module. `allot` gives the number of a block of inode numbers."""

    __slots__ = (
        "_allot",
        "_blocks",
        "_free",
        "_freed",
        "_index",
        "cached",
        "details",
        "directory",
        "kinds",
        "live",
        "lookups",
        "mark",
        "marks",
        "modified",
        "moments",
        "names",
        "references",
        "sequence",
        "sizes",
        "states",
        "tags",
    )

    def __init__(self, directory: Inode, allot: Callable[[Entries], int]) -> None:
        self.directory = directory
        self.names: list[bytes] = []
        self.kinds = bytearray()
        self.sizes = array("q")
        self.modified = array("q")
        """Nanoseconds since the epoch; 0: unknown."""
        self.tags: list[bytes] = []
        self.details: list[Detail | None] = []
        self.lookups = array("I")
        self.states = bytearray()
        self.cached = bytearray()
        """1: the kernel's page cache holds the bytes of this very version."""
        self.marks = bytearray()
        """Which listing has told of the slot: the position in `moments`."""
        self.moments = [float("-inf")] * 5
        self.mark = 1
        """That of the latest listing."""
        self.live = 0
        """Names in the directory."""
        self.references = 0
        """Slots with a lookup count, and inodes that have the number of one: while there are any, this must stay."""
        self._allot = allot
        self._blocks = array("Q")
        self._index: list[dict[bytes, int]] = [{}]
        self.sequence = array("I")
        """The slots in the order in which the latest listing told of them, and then those of names made here since."""
        self._free: list[int] = []
        self._freed: list[int] = []
        """Free slots that the sequence may hold: used again with the next one, or they would stand in it twice, or in
        the part that somebody has read already."""

    # -- numbers --------------------------------------------------------------------------------------------------

    @property
    def blocks(self) -> array[int]:
        """The numbers of its blocks, in the order of the slots."""
        return self._blocks

    def number(self, slot: int) -> int:
        """The inode number of a slot."""
        return self._blocks[slot >> BLOCK_BITS] << BLOCK_BITS | slot & BLOCK - 1

    def size(self, slot: int) -> int:
        """Bytes of a file; length of a link's target."""
        detail = self.details[slot]
        if self.kinds[slot] == SYMLINK and detail is not None and detail.symlink_target is not None:
            return len(detail.symlink_target)
        return self.sizes[slot]

    def has(self, slot: int) -> bool:
        """Whether the slot stands for something that the kernel may know."""
        return slot < len(self.names) and not (self.states[slot] & GONE and not self.lookups[slot])

    def is_referred(self, slot: int) -> bool:
        """Whether the kernel may hold a reference, or an inode."""
        return bool(self.lookups[slot] or self.states[slot] & HELD)

    def refer(self, slot: int, count: int = 1) -> None:
        """The kernel took references."""
        if not self.lookups[slot]:
            self.references += 1
        self.lookups[slot] += count

    def forget(self, slot: int, count: int) -> None:
        """The kernel gave references back."""
        before = self.lookups[slot]
        if before:
            self.lookups[slot] = max(0, before - count)
            if not self.lookups[slot]:
                self.references -= 1
                self.free_if_gone(slot)

    def free_if_gone(self, slot: int) -> None:
        """Let a slot be used again when its name is gone and the kernel holds no reference. No inode may have it."""
        if self.states[slot] & GONE and not self.lookups[slot] and self.marks[slot] == _LOST:
            self.names[slot] = self.tags[slot] = b""
            self.details[slot] = None
            self.marks[slot] = _FREE
            self._freed.append(slot)

    # -- names ----------------------------------------------------------------------------------------------------

    def find(self, name: bytes) -> int:
        """The slot of a name that is there; -1."""
        for segment in self._index:
            slot = segment.get(name)
            if slot is not None:
                return slot
        return -1

    def add(self, entry: Entry) -> int:
        """A slot for a new name."""
        if not self._free and len(self._freed) >= max(_TIDIED_AT, len(self.sequence) // 2):
            self._tidy()
        if self._free:
            slot = self._free.pop()
            self.names[slot] = entry.name
        else:
            slot = len(self.names)
            self.names.append(entry.name)
            for column in (self.kinds, self.states, self.cached, self.marks, self.sizes, self.modified, self.lookups):
                column.append(0)
            self.tags.append(b"")
            self.details.append(None)
            self._number_new_slots()
        self._segment(1)[entry.name] = slot
        self.live += 1
        self.states[slot] = self.cached[slot] = 0
        self._write(slot, entry)
        self.see(slot)
        return slot

    def see(self, slot: int) -> None:
        """The latest listing has told of a slot."""
        self.marks[slot] = self.mark
        self.sequence.append(slot)

    def write(self, slot: int, entry: Entry) -> None:
        """What a store says of a name that is there, of the same kind.

        Of an unchanged version more may be known than a listing tells: whether it is a link, and user metadata.
        """
        same = self.sizes[slot] == entry.size and self.tags[slot] == entry.tag
        if same and (entry.detail is None or entry.detail.metadata is None) and not self.states[slot] & UNSURE:
            known = self.details[slot]
            # New user metadata are told by a new time alone, those of directories by nothing.
            has_new = entry.kind == DIRECTORY or self.modified[slot] != entry.modified_ns
            if entry.kind == MAYBE_LINK and has_new and self.kinds[slot] == FILE:
                entry = entry._replace(kind=FILE)
            elif entry.kind == MAYBE_LINK or (known is not None and known.metadata is not None and not has_new):
                return
        if not same:
            self.cached[slot] = 0
        self.states[slot] &= ~UNSURE
        self._write(slot, entry)

    def put(self, slot: int, entry: Entry) -> None:
        """What is known better than from any listing."""
        if self.sizes[slot] != entry.size or self.tags[slot] != entry.tag:
            self.cached[slot] = 0
        self.states[slot] &= ~UNSURE
        self._write(slot, entry)

    def fits(self, slot: int, entry: Entry) -> bool:
        """Whether an entry is of the same kind as what has its name now."""
        kind = self.kinds[slot]
        if entry.kind != MAYBE_LINK:
            return entry.kind == kind
        return kind == FILE or (self.sizes[slot] == entry.size and self.tags[slot] == entry.tag)

    def read(self, slot: int) -> Entry:
        """What is known of a slot."""
        kind = MAYBE_LINK if self.states[slot] & UNSURE else self.kinds[slot]
        return Entry(
            self.names[slot], kind, self.sizes[slot], self.modified[slot], self.tags[slot], self.details[slot]
        )  # fmt: skip

    def drop(self, slot: int) -> None:
        """The name is gone. The slot stays while something refers to it; see `free_if_gone`."""
        name = self.names[slot]
        for segment in self._index:
            if segment.get(name) == slot:
                del segment[name]
        self.live -= 1
        self.states[slot] = GONE
        self.marks[slot] = _LOST

    # -- listings -------------------------------------------------------------------------------------------------

    def begin(self, moment: float) -> None:
        """A listing that began at `moment` (monotonic seconds) is going to tell of the entries."""
        self.mark = 3 - self.mark
        if self.mark in self.marks:
            # Left by a listing that came to no end: nobody knows any more how old that is.
            self.marks = bytearray(self.marks.replace(bytes([self.mark]), bytes([_UNKNOWN])))
        self.moments[self.mark] = moment
        self.sequence = array("I")
        self._free += self._freed
        self._freed = []

    def moment(self, slot: int) -> float:
        """When the listing began that told of the slot last."""
        return self.moments[self.marks[slot]]

    def doubt(self) -> None:
        """Nothing that listings told is believed any longer without asking."""
        self.moments = [float("-inf")] * len(self.moments)

    def is_new(self, slot: int) -> bool:
        """Whether the latest listing has told of the slot."""
        return self.marks[slot] == self.mark

    def append(self, page: Page) -> bool:
        """Take a page of new names at once; False, and nothing done, when a name is there already."""
        count, start = len(page.names), len(self.names)
        if len(set(page.names)) < count or not all(segment.keys().isdisjoint(page.names) for segment in self._index):
            return False
        slots = range(start, start + count)
        self.names += page.names
        self.kinds += page.kinds
        self.sizes.frombytes(page.sizes)
        self.modified.frombytes(page.modified)
        self.tags += page.tags
        self.details += [page.details[at] for at in page.detail_of] if page.detail_of else [None] * count
        self.lookups.frombytes(bytes(self.lookups.itemsize * count))
        self.states += bytes(count)
        self.cached += bytes(count)
        self.marks += bytes([self.mark]) * count
        self._number_new_slots()
        self._segment(count).update(zip(page.names, slots, strict=True))
        self.live += count
        if MAYBE_LINK in page.kinds:
            for slot in slots:
                if self.kinds[slot] == MAYBE_LINK:
                    self.kinds[slot], self.states[slot] = FILE, UNSURE
        self.sequence.extend(slots)
        return True

    def renew(self, page: Page) -> bool:
        """Take a page of the same names as in a row of slots at once; False, and nothing done, when it is not so."""
        count = len(page.names)
        start = self.find(page.names[0]) if count else -1
        end = start + count
        if (
            start < 0
            or self.names[start:end] != page.names
            or self.kinds[start:end] != page.kinds
            or any(self.states[start:end])
            or self.mark in self.marks[start:end]
        ):
            return False
        self._renew_versions(start, end, page)
        if page.detail_of:
            self.details[start:end] = [page.details[at] for at in page.detail_of]
        self.marks[start:end] = bytes([self.mark]) * count
        self.sequence.extend(range(start, end))
        return True

    def _renew_versions(self, start: int, end: int, page: Page) -> None:
        slots = range(start, end)
        if self.tags[start:end] != page.tags or self.sizes[start:end].tobytes() != page.sizes:
            sizes = memoryview(page.sizes).cast("q")
            for slot, size, tag in zip(slots, sizes, page.tags, strict=True):
                if self.sizes[slot] != size or self.tags[slot] != tag:
                    self.cached[slot] = 0
                    self.details[slot] = None
            self.tags[start:end] = page.tags
            self.sizes[start:end] = array("q", page.sizes)
        if self.modified[start:end].tobytes() != page.modified:
            # Perhaps new user metadata.
            for slot, modified in zip(slots, memoryview(page.modified).cast("q"), strict=True):
                if self.modified[slot] != modified:
                    self.details[slot] = None
            self.modified[start:end] = array("q", page.modified)
        if DIRECTORY in page.kinds:
            for slot in slots:
                if self.kinds[slot] == DIRECTORY:
                    self.details[slot] = None  # of their user metadata nothing tells

    def unseen(self) -> Iterator[int]:
        """The slots of names that the latest listing did not tell of. They may be dropped meanwhile."""
        other = bytes([_UNKNOWN, 3 - self.mark])
        return (found.start() for found in re.finditer(b"[" + re.escape(other) + b"]", bytes(self.marks)))

    def see_rest(self) -> None:
        """Take the names that the latest listing did not tell of into its sequence: nobody will tell of them."""
        self.sequence.extend([slot for slot in self.unseen() if not self.states[slot] & GONE])

    # -- inside ---------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Go on with a sequence of the names that are there, as the next listing would, which may be long in coming."""
        directory = self.directory
        if directory.coming is None:
            before = self.sequence
            self.sequence = array("I", (slot for slot in before if not self.states[slot] & GONE))
            if directory.listing is not None and directory.listing.sequence is before:
                directory.listing = directory.listing.over(self.sequence)
            self._free, self._freed = self._freed, []

    def _write(self, slot: int, entry: Entry) -> None:
        self.kinds[slot] = entry.kind
        if entry.kind == MAYBE_LINK:
            self.kinds[slot] = FILE
            self.states[slot] |= UNSURE
        self.sizes[slot] = entry.size
        self.modified[slot] = entry.modified_ns
        self.tags[slot] = entry.tag
        self.details[slot] = entry.detail

    def _segment(self, count: int) -> dict[bytes, int]:
        """A dict of the index with room for `count` names."""
        if len(self._index[-1]) + count > _SEGMENT and self._index[-1]:
            self._index.append({})
        return self._index[-1]

    def _number_new_slots(self) -> None:
        while len(self._blocks) << BLOCK_BITS < len(self.names):
            self._blocks.append(self._allot(self))
