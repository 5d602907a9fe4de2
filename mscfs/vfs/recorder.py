"""What the primary tells of names, on its way to the disk, in the background (R8)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import trio

from mscfs.errors import StorageError
from mscfs.providers.page import Entry, Page
from mscfs.vfs.lastknown import LastKnown, Snapshot, Told
from mscfs.vfs.listings import Listing
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

GATHER = 0.2
"""Seconds for which what was told is gathered, so that it costs one transaction. A kill -9 loses that much."""
MOST_NAMES = 2_000_000
"""Of listings that are under way or wait to be written. One that would exceed it is not kept."""


class Recorder:
    """See the module. Without a `last_known` nothing is kept, and nothing is known.

    `clock` is the one that moments on this mount are told in (monotonic seconds).
    """

    def __init__(self, last_known: LastKnown | None, run_blocking: RunBlocking, *, clock: Callable[[], float]) -> None:
        self._last_known = last_known
        self._run_blocking = run_blocking
        self._epoch = time.time() - clock()
        self._coming: dict[Listing, list[Page]] = {}
        self._names = 0
        """Names in pages that are not written yet."""
        self._told: list[Told] = []
        self._forgotten: list[str] = []
        self._listed: list[tuple[str, float, list[Page]]] = []
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
            if self._last_known is None or not (told or listed or forgotten):
                return
            try:
                for directory in forgotten:
                    await self._run_blocking(self._last_known.forget_below, directory)
                if told:
                    await self._run_blocking(self._last_known.record, told)
                for directory, taken, pages in listed:
                    await self._run_blocking(self._last_known.replace, directory, self._epoch + taken, pages)
                self._is_failing = False
            except StorageError as error:
                await self._begin_anew(error)
            finally:
                self._names -= sum(_count(pages) for _, _, pages in listed)

    # -- what is told ---------------------------------------------------------------------------------------------

    def page(self, listing: Listing, page: Page) -> None:
        """A page of a listing has come."""
        if self._last_known is None:
            return
        if listing.pages == 0:
            self._coming[listing] = []
            self._directories.setdefault(listing.directory.key, False)
        pages = self._coming.get(listing)
        if pages is None:
            return
        pages.append(page)
        self._names += len(page.names)
        if self._names > MOST_NAMES:
            self.ended(listing)

    def complete(self, listing: Listing) -> None:
        """All pages have come."""
        pages = self._coming.pop(listing, None)
        if pages is not None:
            self._list(listing, pages)

    def ended(self, listing: Listing) -> None:
        """The listing is over; if it is not complete, its pages are of no use."""
        self._names -= _count(self._coming.pop(listing, []))

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
            self._list(listing, [])

    def forget_below(self, directory: str) -> None:
        """A directory was moved here: what was known of one of that name is of another one."""
        if self._last_known is not None and not directory.startswith(tuple(self._forgotten)):
            self._forgotten.append(directory)
            for known in [key for key in self._directories if key.startswith(directory)]:
                del self._directories[known]
            self._told = [told for told in self._told if not told.directory.startswith(directory)]
            self._listed = [listed for listed in self._listed if not listed[0].startswith(directory)]
            self._wake.set()

    def _list(self, listing: Listing, pages: list[Page]) -> None:
        self._listed.append((listing.directory.key, listing.taken, pages))
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


def _count(pages: list[Page]) -> int:
    return sum(len(page.names) for page in pages)
