"""The primary's listings, taken in: pages of a directory become its columns, with local changes on top."""

from __future__ import annotations

import contextlib
import logging
import stat

import trio

from mscfs.providers.page import DIRECTORY, MAYBE_LINK, Entry, Page, entries_of
from mscfs.vfs.answers import Answers
from mscfs.vfs.entries import GONE, Entries
from mscfs.vfs.inodes import Inode
from mscfs.vfs.listings import Listing
from mscfs.vfs.paths import to_bytes, to_name

log = logging.getLogger(__name__)


class Intake:
    """See the module."""

    def __init__(self, answers: Answers) -> None:
        self.skipped_keys = 0
        """Keys that cannot be paths, as the last listing of each directory counted them (N2)."""
        self.shadowed_names = 0
        """Names that are both object and directory, as the last listing of each directory counted them."""
        self._answers = answers
        self._table = answers.table
        self._odd: dict[str, tuple[int, int]] = {}
        """For each directory that has any: its keys that cannot be paths, and its shadowed names."""

    def take(self, listing: Listing, page: Page) -> None:
        """A page of a listing has come."""
        directory = listing.directory
        entries, children = directory.entries, directory.children
        assert entries is not None
        listing.skipped += page.skipped
        listing.example = listing.example or page.example
        is_plain = not directory.removed and not self._answers.deferred
        if is_plain and children:
            is_plain = not any(to_name(name) in children for name in page.names)
        if not (is_plain and (entries.append(page) or entries.renew(page))):
            for entry in entries_of(page):
                self._take_entry(listing, entries, entry)

    def _take_entry(self, listing: Listing, entries: Entries, entry: Entry) -> None:
        directory, name = listing.directory, to_name(entry.name)
        slot, child = entries.find(entry.name), directory.children.get(name)
        if slot >= 0 and entries.is_new(slot) and (child is None or child.change <= listing.serial):
            # It was told of before. An object and a directory of one name: the directory is shown (N2).
            if (entries.kinds[slot] == DIRECTORY) != (entry.kind == DIRECTORY):
                listing.shadowed += 1
            if entries.kinds[slot] == DIRECTORY:
                return
        if child is not None and not self._take_child(listing, child, entry):
            return
        slot = entries.find(entry.name)
        if name not in directory.children:
            if directory.removed.get(name, 0) > listing.serial:
                return
            if self._answers.deferred and self._answers.is_deferred(entry.metadata(directory.key)):
                self._table.lose(directory, name)
                return
            if slot >= 0 and not entries.fits(slot, entry):
                self._table.lose(directory, name)
                slot = -1
            if slot < 0:
                entries.add(entry)
                return
            entries.write(slot, entry)
        if slot >= 0 and not entries.is_new(slot):
            entries.see(slot)

    def _take_child(self, listing: Listing, child: Inode, entry: Entry) -> bool:
        """What a listing tells of a name that has an inode. False: the name is to be left out."""
        found = entry.metadata(listing.directory.key)
        if entry.kind == MAYBE_LINK and child.metadata is not None:
            if child.metadata.version == found.version:
                found = child.metadata  # the same version, and we know whether it is a link
            elif child.kind == stat.S_IFLNK:
                self._table.detach(child)
                return True
        try:
            self._answers.apply(listing.directory, child.name, found, listing.serial, listing.taken)
        except FileNotFoundError:
            return False
        return True

    async def complete(self, listing: Listing) -> None:
        """All pages of a listing have come: what they did not tell of is gone."""
        directory = listing.directory
        entries = directory.entries
        assert entries is not None
        for count, slot in enumerate(entries.unseen()):
            await self._breathe(count)
            if not entries.states[slot] & GONE and not entries.is_new(slot):
                self._lose(listing, to_name(entries.names[slot]), slot)
        for count, name in enumerate(list(directory.children)):
            await self._breathe(count)
            child = directory.children.get(name)
            if child is not None and entries.find(to_bytes(name)) < 0:
                self._lose(listing, name, -1)
        directory.listing = listing
        directory.removed = {name: change for name, change in directory.removed.items() if change > listing.serial}
        self._report(directory.key, listing)

    def _lose(self, listing: Listing, name: str, slot: int) -> None:
        directory = listing.directory
        assert directory.entries is not None
        if name in directory.children:
            with contextlib.suppress(FileNotFoundError):
                self._answers.apply(directory, name, None, listing.serial, listing.taken)
                if slot >= 0:
                    directory.entries.see(slot)
        else:
            self._table.lose(directory, name)
            self._table.forget_attributes(directory, name)

    @staticmethod
    async def _breathe(count: int) -> None:
        """The kernel's questions are answered in between."""
        if count % 500 == 499:
            await trio.lowlevel.checkpoint()

    def _report(self, directory: str, listing: Listing) -> None:
        before = self._odd.get(directory, (0, 0))
        found = listing.skipped, listing.shadowed
        if found == before:
            return
        self._odd[directory] = found
        self.skipped_keys += found[0] - before[0]
        self.shadowed_names += found[1] - before[1]
        if found[0] > before[0]:
            example = to_name(listing.example)
            log.warning("%r: %d keys cannot be paths and are not shown, such as %r", directory, found[0], example)
        if found[1] > before[1]:
            log.warning("%r: %d names are object and directory; the directory is shown", directory, found[1])
