"""Which directories are worth a listing before anybody asks for one.

One listing answers a thousand questions, and to a far primary each question costs a round trip. So a directory in
which names are asked for one by one is listed in the background; one that was listed before is listed again instead of
asked about each name; and when directories are opened one after the other, as find(1), cp(1) and tar(1) do, the next
ones are listed while the present one is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mscfs.providers.page import DIRECTORY, PAGE_SIZE
from mscfs.vfs.inodes import Inode, InodeTable
from mscfs.vfs.listings import UNWANTED_PAGES, Listing

ASKED = 3
"""So many names asked for one by one in a directory that was never listed make it worth a listing."""
DISCOURAGED = 100
"""So many more where a listing was given up because it had too many pages."""
AHEAD = 4
"""Neighbours whose listings are begun ahead, once two were opened in order. One where a store is a directory: several
threads of a process that ask the kernel for attributes get into each other's way, and there is no latency to hide."""
_GAP = 1000
"""Entries that are looked through for the next directory."""


class Foresight:
    """See the module. `begin` begins a listing, `is_known` tells whether there is one that is believed or under way."""

    def __init__(
        self,
        table: InodeTable,
        begin: Callable[[Inode], Listing],
        is_known: Callable[[Inode], bool],
        *,
        asking_is_cheap: bool,
    ) -> None:
        self._table = table
        self._begin = begin
        self._is_known = is_known
        self._asking_is_cheap = asking_is_cheap

    def asked(self, directory: Inode) -> Listing | None:
        """A name in a directory has to be asked for. A listing is returned when it is as cheap: wait for it instead."""
        if directory.coming is None:
            directory.asked += 1
            if directory.asked < self._pages(directory):
                return None
            directory.asked = 0
            listing = self._begin(directory)
            listing.limit = max(UNWANTED_PAGES, 2 * self._pages(directory))
        is_small = directory.listing is not None and self._pages(directory) == 1
        return directory.coming if is_small and not self._asking_is_cheap else None

    def given_up(self, directory: Inode) -> None:
        """A listing had too many pages for nobody."""
        directory.asked = -DISCOURAGED

    def opened(self, directory: Inode) -> None:
        """A directory is going to be read."""
        parent = directory.parent
        if parent is None or parent.entries is None:
            return
        entries, before = parent.entries, parent.walked
        following = next(self._directories_after(parent, before), -1)
        if following < 0 or entries.sequence[following] != entries.find(directory.raw_name):
            parent.walked = self._position(parent, directory)
            return
        parent.walked = following
        if before < 0:
            return
        for count, position in enumerate(self._directories_after(parent, following)):
            if count >= (1 if self._asking_is_cheap else AHEAD):
                return
            neighbour = self._table.materialise(entries, entries.sequence[position])
            if not self._is_known(neighbour):
                self._begin(neighbour)

    def _pages(self, directory: Inode) -> int:
        if directory.listing is None or directory.entries is None:
            return ASKED
        return directory.entries.live // PAGE_SIZE + 1

    @staticmethod
    def _directories_after(parent: Inode, position: int) -> Iterator[int]:
        """The positions of directories that the kernel knows, behind one in the order of the listing."""
        entries = parent.entries
        assert entries is not None
        end = min(len(entries.sequence), position + 1 + _GAP)
        for following in range(position + 1, end):
            slot = entries.sequence[following]
            if entries.kinds[slot] == DIRECTORY and entries.is_referred(slot):
                yield following

    @staticmethod
    def _position(parent: Inode, directory: Inode) -> int:
        entries = parent.entries
        assert entries is not None
        slot = entries.find(directory.raw_name)
        if slot < len(entries.sequence) and slot >= 0 and entries.sequence[slot] == slot:
            return slot
        return entries.sequence.index(slot) if slot in entries.sequence else -1
