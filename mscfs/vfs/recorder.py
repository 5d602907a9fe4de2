"""What the primary tells of names, on its way to the disk, in the background (R8)."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from mscfs.errors import StorageError
from mscfs.providers.page import Entry, Page
from mscfs.vfs.lastknown import LastKnown, Snapshot, Told
from mscfs.vfs.listings import Listing
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

GATHER = 0.2
"""Seconds for which what was told is gathered, so that it costs one transaction. A kill -9 loses that much."""
BATCH = 32
"""Pages of a listing that are held before they are written."""
MOST_NAMES = 2_000_000
"""Of listings that wait to be written. One that would exceed it is not kept."""


@dataclass(slots=True)
class _Coming:
    """A listing under way: the pages that wait for their batch, or for its end."""

    number: int
    position: int = 0
    """Of the first of `pages`; those before it were handed over to be written."""
    pages: list[Page] = field(default_factory=list)

    @property
    def names(self) -> int:
        return sum(len(page.names) for page in self.pages)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Pages to be written; with `taken` they are the last ones of a listing that began then."""

    directory: str
    coming: _Coming
    taken: float | None = None


class Recorder:
    """See the module. Without a `last_known` nothing is kept, and nothing is known.

    `clock` is the one that moments on this mount are told in (monotonic seconds).
    """

    def __init__(self, last_known: LastKnown | None, run_blocking: RunBlocking, *, clock: Callable[[], float]) -> None:
        self._last_known = last_known
        self._run_blocking = run_blocking
        self._clock = clock
        self._epoch = time.time() - clock()
        """What a moment on this mount has to be added to."""
        self._coming: dict[Listing, _Coming] = {}
        self._numbers = itertools.count(1)
        self._names = 0
        """Names in pages that are not written yet."""
        self._told: list[Told] = []
        self._forgotten: list[str] = []
        """Directories of which nothing is so any more, with all below them."""
        self._removed: list[str] = []
        """The same for empty ones."""
        self._listed: list[_Batch] = []
        self._dropped: list[int] = []
        """The numbers of listings that came to no end, and that pages of were handed over."""
        self._directories: dict[str, bool] = {}
        """The directories of which something is known, or will be, and whether their listing is."""
        self._wake = trio.Event()
        self._writing = trio.Lock()
        self._is_failing = False

    @property
    def is_off(self) -> bool:
        """Whether nothing is kept."""
        return self._last_known is None

    async def open(self) -> None:
        """Learn which directories are known. A file that cannot be used is thrown away."""
        if self._last_known is not None:
            try:
                self._directories = await self._run_blocking(self._last_known.directories)
                # What this mount is told is younger than that, wherever the machine's clock was set since.
                self._epoch = max(self._epoch, await self._run_blocking(self._last_known.youngest) - self._clock())
            except StorageError as error:
                await self._begin_anew(error)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._wake.wait()
            await trio.sleep(GATHER)
            self._wake = trio.Event()
            await self.write()

    async def write(self) -> None:
        """Write what was gathered."""
        async with self._writing:
            told, self._told = self._told, []
            listed, self._listed = self._listed, []
            forgotten, self._forgotten = self._forgotten, []
            removed, self._removed = self._removed, []
            dropped, self._dropped = self._dropped, []
            if self._last_known is None or not (told or listed or forgotten or removed or dropped):
                return
            try:
                for directory in forgotten:
                    await self._run_blocking(self._last_known.forget_below, directory)
                if removed:
                    await self._run_blocking(self._last_known.forget, removed)
                if told:
                    await self._run_blocking(self._last_known.record, told)
                for batch in listed:
                    await self._write_batch(self._last_known, batch)
                for number in dropped:
                    await self._run_blocking(self._last_known.drop, number)
                self._is_failing = False
            except StorageError as error:
                await self._begin_anew(error)
            finally:
                self._names -= sum(batch.coming.names for batch in listed)

    async def _write_batch(self, last_known: LastKnown, batch: _Batch) -> None:
        directory, coming, taken = batch.directory, batch.coming, batch.taken
        if taken is None:
            await self._run_blocking(last_known.keep, directory, coming.number, coming.position, coming.pages)
        elif not await self._run_blocking(
            partial(
                last_known.replace,
                directory,
                self._epoch + taken,
                coming.pages,
                listing=coming.number,
                position=coming.position,
            )
        ):
            self._directories[directory] = False

    # -- what is told ---------------------------------------------------------------------------------------------

    def page(self, listing: Listing, page: Page) -> None:
        """A page of a listing has come."""
        if self._last_known is None:
            return
        if listing.pages == 0:
            self._coming[listing] = _Coming(next(self._numbers))
            self._directories.setdefault(listing.directory.key, False)
        coming = self._coming.get(listing)
        if coming is None:
            return
        coming.pages.append(page)
        self._names += len(page.names)
        if self._names > MOST_NAMES:
            self.ended(listing)
        elif len(coming.pages) == BATCH:
            self._listed.append(_Batch(listing.directory.key, coming))
            self._coming[listing] = _Coming(coming.number, coming.position + BATCH)
            self._wake.set()

    def complete(self, listing: Listing) -> None:
        """All pages have come."""
        coming = self._coming.pop(listing, None)
        if coming is not None:
            self._list(listing, coming)

    def ended(self, listing: Listing) -> None:
        """The listing is over; if it is not complete, its pages are of no use."""
        coming = self._coming.pop(listing, None)
        if coming is not None:
            self._names -= coming.names
            if coming.position:
                self._dropped.append(coming.number)
                self._wake.set()

    def told(self, directory: str, name: bytes, entry: Entry | None, moment: float) -> None:
        """A single name was told of, or changed here; `entry` None: it does not exist."""
        if self._last_known is None:
            return
        if entry is not None:
            self._directories.setdefault(directory, False)
        if directory in self._directories:
            self._told.append(Told(directory, name, self._epoch + moment, entry))
            self._wake.set()

    def emptied(self, listing: Listing) -> None:
        """A directory was made: nothing is in it, whatever was in one of that name before."""
        if self._last_known is not None:
            self._list(listing, _Coming(next(self._numbers)))

    def forget_below(self, directory: str) -> None:
        """A directory was moved to this key here, or away from it: what was known is of another one."""
        if self._last_known is not None and not directory.startswith(tuple(self._forgotten)):
            self._forgotten.append(directory)
            for known in [key for key in self._directories if key.startswith(directory)]:
                del self._directories[known]
            self._take_back(lambda key: key.startswith(directory))

    def removed(self, directory: str) -> None:
        """An empty directory was removed here."""
        if self._directories.pop(directory, None) is not None:
            self._removed.append(directory)
            self._take_back(lambda key: key == directory)

    def _take_back(self, is_gone: Callable[[str], bool]) -> None:
        """What is to be written of directories that are gone is not written."""
        self._told = [told for told in self._told if not is_gone(told.directory)]
        for batch in [batch for batch in self._listed if is_gone(batch.directory)]:
            self._listed.remove(batch)
            self._names -= batch.coming.names
            self._dropped.append(batch.coming.number)
        self._wake.set()

    def _list(self, listing: Listing, coming: _Coming) -> None:
        self._listed.append(_Batch(listing.directory.key, coming, listing.taken))
        self._directories[listing.directory.key] = True
        self._wake.set()

    # -- what is known --------------------------------------------------------------------------------------------

    def knows(self, directory: str) -> bool:
        """Whether a listing of the directory may be on the disk."""
        return self._directories.get(directory, False)

    async def read(self, directory: str) -> Snapshot | None:
        """What was last told of a directory."""
        if self._last_known is None or directory not in self._directories:
            return None
        await self.write()
        try:
            snapshot = await self._run_blocking(self._last_known.read, directory)
        except StorageError as error:
            await self._begin_anew(error)
            return None
        if snapshot is None:
            self._directories.pop(directory, None)
        return snapshot

    async def read_name(self, directory: str, name: bytes) -> tuple[Entry | None] | None:
        """What was last told of a name by itself; see `LastKnown.read_name`."""
        if self._last_known is None:
            return None
        await self.write()
        try:
            return await self._run_blocking(self._last_known.read_name, directory, name)
        except StorageError as error:
            await self._begin_anew(error)
            return None

    def close(self) -> None:
        """Let go of the file."""
        if self._last_known is not None:
            self._last_known.close()

    async def _begin_anew(self, error: StorageError) -> None:
        # What cannot be brought up to date would tell what is not so any more.
        assert self._last_known is not None
        if not self._is_failing:
            log.warning(
                "what the primary told of names is not kept, an outage would find the replicas' names: %s", error
            )
        self._is_failing = True
        self._directories.clear()
        await self._run_blocking(self._last_known.discard)
