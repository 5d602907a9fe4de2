"""A directory told from what is known while the primary does not answer (R8).

What is in memory stands, whatever its age. What the disk remembers fills it up, and only a directory that neither knows
as a whole is told as a replica has it. All of this is believed while the primary is down, and not a moment longer.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from mscfs.providers.page import DIRECTORY, Entry, Page, entries_of
from mscfs.vfs.inodes import Inode, InodeTable
from mscfs.vfs.listings import Listing
from mscfs.vfs.paths import to_name
from mscfs.vfs.recorder import Recorder
from mscfs.vfs.transport import Transport

NEVER = float("-inf")
"""The moment at which the primary vouched for what it did not tell itself."""


class Recall:
    """See the module. `is_hidden` tells of names that are not shown although a store may have them."""

    def __init__(
        self,
        table: InodeTable,
        recorder: Recorder,
        transport: Transport,
        is_hidden: Callable[[Inode, Entry], bool],
    ) -> None:
        self._table = table
        self._recorder = recorder
        self._transport = transport
        self._is_hidden = is_hidden

    async def listing(self, listing: Listing, take: Callable[[Page], None]) -> None:
        """Complete a listing that the primary did not complete; `take` gets a replica's pages. Raises StorageError."""
        directory = listing.directory
        entries = directory.entries
        assert entries is not None
        listing.is_recalled = True
        entries.moments[entries.mark] = NEVER
        known = directory.listing
        if known is not None and not known.is_borrowed:
            listing.taken = known.taken
        else:
            listing.taken = NEVER
            if not await self._from_disk(directory):
                listing.is_borrowed = True
                await self._transport.list_directory(directory.key, take, stand_in=True)
        entries.see_rest()
        directory.listing = listing

    def fill(self, directory: Inode, page: Page, gone: frozenset[bytes] = frozenset()) -> None:
        """Take in what a page tells of names that nothing better is known of. `gone` are known not to exist."""
        entries = self._table.entries_of(directory)
        is_plain = not directory.children and not directory.removed and gone.isdisjoint(page.names)
        if is_plain and entries.append(page):
            return
        for entry in entries_of(page):
            if entry.name in gone or self._is_hidden(directory, entry):
                continue
            slot, name = entries.find(entry.name), to_name(entry.name)
            if name in directory.children:
                continue
            if slot >= 0 and entries.is_new(slot) and entry.kind == DIRECTORY != entries.kinds[slot]:
                # An object and a directory of one name: the directory is shown (N2).
                self._table.lose(directory, name)
                slot = -1
            if slot < 0:
                entries.add(entry)

    async def _from_disk(self, directory: Inode) -> bool:
        """Whether the disk tells of the directory as a whole. What it tells of single names is taken in as well."""
        snapshot = await self._recorder.read(directory.key)
        if snapshot is None:
            return False
        entries = self._table.entries_of(directory)
        gone = frozenset(name for name, entry in snapshot.names.items() if entry is None)
        for name, entry in snapshot.names.items():
            is_free = entries.find(name) < 0 and to_name(name) not in directory.children
            if entry is not None and is_free and not self._is_hidden(directory, entry):
                entries.add(entry)
        for page in snapshot.pages:
            self.fill(directory, page, gone)
            await trio.lowlevel.checkpoint()
        return snapshot.is_whole
