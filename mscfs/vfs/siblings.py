"""Sibling read-ahead: small files that are opened in the order of their directory's listing are fetched before.

`cp -r`, `tar` and evaluation passes open the files of a directory one after the other, and each waits for its store.
When two files were opened in order, the next ones are fetched: few at first, twice as many whenever half of them were
opened, while there is memory. Programs with many readers open nearly in order, so that small steps back and forth do
not end it. Only what a listing has told of is fetched, in the version that it told of: an open that finds another
version fetches for itself.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict

from mscfs.providers.page import FILE
from mscfs.vfs.entries import Entries
from mscfs.vfs.fetcher import Fetcher
from mscfs.vfs.inodes import Inode
from mscfs.vfs.paths import to_bytes
from mscfs.vfs.readahead import FIRST_WINDOW

STREAK = 2
"""Opens in order after which to fetch ahead."""
FIRST_FILES = 4
MOST_FILES = 64
MOST_BYTES = 32 << 20
"""The largest window, in files and in bytes."""
TOLERANCE = 64
"""Places in the listing by which an open may be before or behind where it was expected."""
DIRECTORIES = 32
"""Directories whose order of opens is remembered."""
LONGEST_SEARCH = 100_000
"""Entries of a directory that are looked through for the place of the first file that is opened."""


class _Run:
    """The opens in one directory, as places in one listing."""

    __slots__ = ("ahead", "files", "next", "sequence", "streak")

    def __init__(self, sequence: array[int], place: int) -> None:
        self.sequence = sequence
        self.next = place + 1
        """Behind the last that was opened."""
        self.ahead = self.next
        """Everything before was asked for."""
        self.streak = 1
        self.files = FIRST_FILES


class SiblingReadAhead:
    """One for each mount. `limit` bounds the bytes of one directory's window."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._limit = min(MOST_BYTES, fetcher.buffers.arena.size // 8)
        self._runs: OrderedDict[Inode, _Run] = OrderedDict()

    def opened(self, inode: Inode) -> None:
        """A file was opened for reading, and its content is wanted."""
        directory = inode.parent
        entries = directory.entries if directory is not None else None
        if directory is None or entries is None:
            return
        slot = entries.find(to_bytes(inode.name))
        run = self._runs.get(directory)
        if run is None or run.sequence is not entries.sequence:
            self._begin(directory, entries, slot)
            return
        place = _find(run.sequence, slot, max(0, run.next - TOLERANCE), run.next + TOLERANCE)
        if place < 0:
            self._begin(directory, entries, slot)
            return
        run.next = max(run.next, place + 1)
        run.streak += 1
        if run.streak >= STREAK and run.ahead - run.next <= run.files // 2:
            self._fetch(run, entries)

    def _begin(self, directory: Inode, entries: Entries, slot: int) -> None:
        sequence = entries.sequence
        # A directory that was listed once has its slots in the order of the listing.
        place = slot if 0 <= slot < len(sequence) and sequence[slot] == slot else -1
        if place < 0 and len(sequence) <= LONGEST_SEARCH:
            place = _find(sequence, slot, 0, len(sequence))
        if place < 0:
            self._runs.pop(directory, None)
            return
        self._runs[directory] = _Run(sequence, place)
        self._runs.move_to_end(directory)
        if len(self._runs) > DIRECTORIES:
            self._runs.popitem(last=False)

    def _fetch(self, run: _Run, entries: Entries) -> None:
        place, size = max(run.ahead, run.next), 0
        end = min(run.next + run.files, len(run.sequence))
        while place < end and size < self._limit:
            slot = run.sequence[place]
            if _is_small_file(entries, slot):
                version = entries.read(slot).metadata(entries.directory.key)
                target = self._fetcher.pin(version.key, version.version)
                if self._fetcher.start(target, 0, target.chunk_count, foreground=False) < target.chunk_count:
                    break  # there is no memory for more
                size += version.content_length
            place += 1
        run.ahead = place
        run.files = min(run.files * 2, MOST_FILES)


def _find(sequence: array[int], slot: int, begin: int, end: int) -> int:
    try:
        return sequence.index(slot, begin, end)
    except ValueError:
        return -1


def _is_small_file(entries: Entries, slot: int) -> bool:
    """Whether it is worth fetching: the kernel does not have it, and nothing here knows better than the listing."""
    return (
        entries.kinds[slot] == FILE
        and not entries.states[slot]
        and not entries.cached[slot]
        and 0 < entries.sizes[slot] <= FIRST_WINDOW
    )
