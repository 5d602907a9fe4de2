"""Listings of directories: one under way at most for each, read by anybody while its pages arrive.

A listing belongs to the file system and not to the call that began it. Some are begun before anybody asks: when names
of an unlisted directory are looked up one by one, and when directories are opened one after the other as find(1), cp(1)
and tar(1) do. Those end after some pages unless somebody comes to read them.
"""

from __future__ import annotations

import errno
import logging
from array import array
from collections.abc import Callable
from copy import copy
from functools import partial
from typing import Protocol

import trio

from mscfs.errors import StorageError
from mscfs.providers.page import Page
from mscfs.vfs.inodes import Inode
from mscfs.vfs.questions import ROUNDS
from mscfs.vfs.transport import OnPage, Transport

log = logging.getLogger(__name__)

UNWANTED_PAGES = 10
"""A listing that nobody reads ends after so many pages. What it has told by then is believed all the same."""


class Listing:
    """One listing of a directory, under way or complete."""

    __slots__ = (
        "_moved",
        "directory",
        "error",
        "example",
        "is_borrowed",
        "is_complete",
        "is_recalled",
        "limit",
        "pages",
        "sequence",
        "serial",
        "shadowed",
        "skipped",
        "taken",
        "wanted",
    )

    def __init__(self, directory: Inode, sequence: array[int], taken: float, serial: int) -> None:
        self.directory = directory
        self.sequence = sequence
        """Slots of the directory's entries; it grows while the listing is under way, and by names made here."""
        self.taken = taken
        """When it began (monotonic seconds): what it tells is believed from then on."""
        self.serial = serial
        """Of the last local change before it began: later changes are told from the inodes."""
        self.wanted = False
        """Somebody reads it: it is not given up."""
        self.is_recalled = False
        """The primary did not tell it to the end: the rest is what is known, or what a replica tells."""
        self.is_borrowed = False
        """A replica told it: what it does not tell of may exist all the same."""
        self.is_complete = False
        self.error: OSError | None = None
        self.pages = 0
        self.limit = UNWANTED_PAGES
        """Pages after which it ends unless somebody reads it."""
        self.skipped = 0
        self.example = b""
        """Keys that cannot be paths, and one of them."""
        self.shadowed = 0
        """Names that are both object and directory."""
        self._moved: trio.Event | None = None
        """Set by the next page; there is none while nobody waits."""

    @property
    def has_ended(self) -> bool:
        """Whether no more pages will come."""
        return self.is_complete or self.error is not None

    def moved(self) -> None:
        """Wake those who wait: a page has come, or the end."""
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    def over(self, sequence: array[int]) -> Listing:
        """The same, complete, with another sequence for those who begin to read it now."""
        same = copy(self)
        same.sequence = sequence
        return same

    async def reach(self, position: int) -> None:
        """Return when there is an entry at `position`, or none will come. Raises what the listing failed with."""
        while len(self.sequence) <= position and not self.has_ended:
            self.wanted = True
            await self._next()
        if self.error is not None and len(self.sequence) <= position:
            raise self.error

    async def end(self) -> None:
        """Return when it has ended, well or not."""
        while not self.has_ended:
            await self._next()

    async def _next(self) -> None:
        if self._moved is None:
            self._moved = trio.Event()
        await self._moved.wait()


class Receiver(Protocol):
    """Who takes what listings tell."""

    def take(self, listing: Listing, page: Page) -> None:
        """A page has come."""

    async def complete(self, listing: Listing) -> None:
        """All pages have come."""

    @property
    def is_down(self) -> bool:
        """Whether the primary is not worth a question now."""

    async def recall(self, listing: Listing, take: OnPage) -> None:
        """Complete a listing that the primary did not; `take` gets the pages of somebody else. Raises StorageError."""

    def ended(self, listing: Listing) -> None:
        """The listing is over, well or not."""


class Lister:
    """Runs listings in `nursery`. `suspect` is told of stores that did not answer."""

    def __init__(
        self, transport: Transport, nursery: trio.Nursery, receiver: Receiver, *, suspect: Callable[[str], None]
    ) -> None:
        self._transport = transport
        self._nursery = nursery
        self._receiver = receiver
        self._suspect = suspect

    def run(self, listing: Listing) -> None:
        """Begin a listing; its directory has none under way."""
        assert listing.directory.coming is None
        listing.directory.coming = listing
        self._nursery.start_soon(self._run, listing)

    async def _run(self, listing: Listing) -> None:
        directory = listing.directory
        try:
            with trio.CancelScope() as scope:
                await self._receive(listing, scope)
                listing.is_complete = True
        except StorageError as error:
            self._suspect(error.store)
            listing.error = error
        except Exception:
            log.exception("a bug in the listing of %r", directory.key)
            listing.error = OSError(errno.EIO, "internal error")
        finally:
            if not listing.has_ended:
                listing.error = OSError(errno.EINTR, "the listing was given up")
            if directory.coming is listing:
                directory.coming = None
            listing.moved()
            self._receiver.ended(listing)

    async def _receive(self, listing: Listing, scope: trio.CancelScope) -> None:
        key, take = listing.directory.key, partial(self._take, listing, scope)
        for _ in range(ROUNDS):
            if self._receiver.is_down or listing.pages:
                break
            try:
                suspects = await self._transport.list_directory(key, take)
            except StorageError as error:
                if not error.transient:
                    raise
                self._suspect(error.store)
            else:
                for profile in suspects:
                    self._suspect(profile)
                await self._receiver.complete(listing)
                return
        await self._receiver.recall(listing, take)

    def _take(self, listing: Listing, scope: trio.CancelScope, page: Page) -> None:
        if scope.cancel_called:
            return
        try:
            self._receiver.take(listing, page)
        except Exception:
            log.exception("a bug in the listing of %r", listing.directory.key)
            listing.error = OSError(errno.EIO, "internal error")
        listing.pages += 1
        listing.moved()
        if listing.error or (listing.pages >= listing.limit and not listing.wanted):
            # Whoever wants the directory from now on begins anew.
            listing.directory.coming = None
            scope.cancel()
