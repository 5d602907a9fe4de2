"""Names: what the primary says is where, believed for `metadata_ttl`, with the changes made on this mount on top.

An answer of the primary is compared with a serial number taken before it was asked for: what changed on this mount
meanwhile wins over it. While the primary is down everything known is believed, and what is not known is asked of the
replicas; the moment it is back, only what it vouched for within `metadata_ttl` counts (R8).
"""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from mscfs.errors import StorageError
from mscfs.providers.page import Entry, Page, to_entry
from mscfs.types import ObjectMetadata, Version
from mscfs.vfs.answers import Answers, differs, is_local, no_such
from mscfs.vfs.details import Details
from mscfs.vfs.entries import KEPT, UNSURE, Entries
from mscfs.vfs.foresight import Foresight
from mscfs.vfs.gate import Gate
from mscfs.vfs.inodes import Inode, InodeTable
from mscfs.vfs.intake import Intake
from mscfs.vfs.listings import Lister, Listing
from mscfs.vfs.paths import is_valid_name, to_bytes, to_name
from mscfs.vfs.questions import ROUNDS, Questions
from mscfs.vfs.recall import NEVER, Recall
from mscfs.vfs.recorder import Recorder
from mscfs.vfs.transport import OnPage, Transport

REMEMBERED_REMOVALS = 10_000
SWEEP_SECONDS = 60.0
SWEPT_AT_ONCE = 1000
"""Inodes of which a sweep looks at so many before it lets others go on."""
OUTAGE_TIMEOUT = 5.0
"""Seconds for which the kernel may believe what it is told while the primary is down, lest it outlives the outage."""


OnOutdated = Callable[[int, str], None]
"""Told of a directory's number and a name of which the kernel may believe what this mount has changed, unasked."""


class Namespace:
    """See the module."""

    def __init__(
        self,
        table: InodeTable,
        questions: Questions,
        recorder: Recorder,
        transport: Transport,
        nursery: trio.Nursery,
        *,
        asking_is_cheap: bool,
        wants_metadata: bool = False,
        ttl: float,
        clock: Callable[[], float],
        suspect: Callable[[str], None],
        on_outdated: OnOutdated,
    ) -> None:
        self.table = table
        self.ttl = ttl
        self.deleting = trio.Lock()
        """Held while an object that was unlinked while open is deleted, or replaced: see `replacing`."""
        self.gate = Gate(lambda: questions.is_down)
        """Directories being moved, names that recovery has still to settle, and the calls about them."""
        self._answers = Answers(table)
        self._intake = Intake(self._answers)
        self._questions = questions
        self._recorder = recorder
        self._clock = clock
        self.details = Details(table, questions, self._tell, wanted=wants_metadata, clock=clock)
        self._lister = Lister(transport, nursery, self, suspect=suspect)
        self._recall = Recall(table, recorder, transport, self._is_hidden)
        self._foresight = Foresight(table, self._begin, self._is_listed, asking_is_cheap=asking_is_cheap)
        self._on_outdated = on_outdated
        self._serial = 0

    @property
    def deferred(self) -> dict[str, Version | None]:
        """Keys unlinked here whose object waits for its last handle to close."""
        return self._answers.deferred

    @property
    def skipped_keys(self) -> int:
        """Keys that cannot be paths, as the last listing of each directory counted them (N2)."""
        return self._intake.skipped_keys

    @property
    def shadowed_names(self) -> int:
        """Names that are both object and directory, as the last listing of each directory counted them."""
        return self._intake.shadowed_names

    @property
    def serial(self) -> int:
        """Of the last change made on this mount."""
        return self._serial

    # -- changes made here ----------------------------------------------------------------------------------------

    def changed(self, inode: Inode, metadata: ObjectMetadata | None) -> None:
        """An inode's object was written, made or renamed here; `metadata` is the primary's new word."""
        self._serial += 1
        inode.change = self._serial
        inode.metadata = metadata
        inode.checked = self._clock()
        inode.told = NEVER if metadata is not None and metadata.metadata is None else inode.checked
        parent = inode.parent
        if parent is not None:
            parent.removed.pop(inode.name, None)
            # The inode may be forgotten before the listing is: then this is what is known of the name.
            self.table.hold(parent, inode)
            if metadata is not None:
                self._tell(parent, inode.name, metadata, self._clock())
        elif metadata is not None and not inode.deleted:
            self._replaced(metadata)

    def _replaced(self, metadata: ObjectMetadata) -> None:
        """An inode that had lost its name to a change elsewhere was written: what the name means is asked anew (R2)."""
        *above, name = metadata.key.split("/")
        parent = self.table.root
        for segment in above:
            directory = self.table.child(parent, segment)
            if directory is None or not directory.is_directory:
                return
            parent = directory
        child = self.table.child(parent, name)
        if child is not None and is_local(child):
            return
        self.part(parent, name)
        self.removed(parent, name)
        parent.listing = None
        self._tell(parent, name, metadata, self._clock())

    def part(self, parent: Inode, name: str) -> None:
        """A name and its inode are no longer one, which the kernel did not ask for."""
        inode = self.table.child(parent, name)
        if inode is not None:
            self.table.detach(inode)
        if parent.lookups or parent is self.table.root:
            self._on_outdated(parent.number, name)

    @asynccontextmanager
    async def replacing(self, key: str) -> AsyncIterator[None]:
        """While a key gets a new object here, no deferred delete of its old one is under way (W8).

        Not every store heeds the condition of a delete: the new object could go instead.
        """
        if key not in self.deferred:
            yield
            return
        async with self.deleting:
            yield
            self.deferred.pop(key, None)

    def written_in_vain(self, inode: Inode) -> None:
        """What was written to a file did not reach the primary, and is not here any more.

        The kernel believes its size and time: what the primary holds gets an inode of its own. Where it holds nothing,
        the name would show an empty file, and goes.
        """
        parent, name = inode.parent, inode.name
        if parent is None or inode.detached:
            return
        self.part(parent, name)
        if inode.metadata is not None:
            successor = self.table.add(parent, name, inode.kind)
            successor.overrides = inode.overrides
            successor.metadata, successor.checked, successor.change = inode.metadata, inode.checked, inode.change
            self.table.hold(parent, successor)
            if parent.entries is not None:
                # They say that the last listing told of it, which may have begun after the primary lost it.
                parent.entries.doubt()
            if not self.is_down:
                parent.listing = None
            self.table.drop_if_idle(successor)
        inode.checked = float("-inf")

    def removed(self, parent: Inode, name: str) -> None:
        """A name was taken away here."""
        self._serial += 1
        child = parent.children.get(name)
        if child is not None and child.hides and child.metadata is None:
            # It never was on the primary, and what is there comes to light: listings do not vouch for its absence.
            parent.listing = None
        if len(parent.removed) >= REMEMBERED_REMOVALS and parent.coming is None:
            # Far more than can be under way, as no listing is that would tell of them again: forget the older half,
            # and believe no listing that they belong to.
            parent.listing = None
            for old in list(parent.removed)[: REMEMBERED_REMOVALS // 2]:
                del parent.removed[old]
        parent.removed.pop(name, None)
        parent.removed[name] = self._serial
        self.table.lose(parent, name)
        self.table.forget_attributes(parent, name)
        self._tell(parent, name, None, self._clock())

    def made_directory(self, inode: Inode) -> None:
        """A directory was made here: nothing is in it, which spares the questions for the names to be made in it."""
        entries = self.table.entries_of(inode)
        entries.begin(self._clock())
        inode.listing = Listing(inode, entries.sequence, self._clock(), self._serial)
        inode.listing.is_complete = True
        self._recorder.emptied(inode.listing)

    def removed_directory(self, parent: Inode, inode: Inode) -> None:
        """A directory was removed here, and was empty."""
        self._recorder.removed(inode.key)
        self.removed(parent, inode.name)

    def left(self, key: str) -> None:
        """A directory was moved away from this key here: nothing is known of what was below it."""
        self._recorder.forget_below(key)

    def forget_below(self, directory: Inode) -> None:
        """A directory was moved: what listings told of its names has to be asked anew, under their new keys."""
        directory.listing = None
        if directory.entries is not None:
            directory.entries.doubt()
        self._recorder.forget_below(directory.key)

    # -- questions ------------------------------------------------------------------------------------------------

    async def lookup(self, parent: Inode, name: str) -> Inode:
        """The inode of a name; FileNotFoundError. Asks the primary when nothing fresh is known."""
        found = await self.find(parent, name)
        return found if isinstance(found, Inode) else self.table.materialise(*found)

    async def find(self, parent: Inode, name: str) -> Inode | tuple[Entries, int]:
        """The same, or the slot of a name that is known from a listing and needs no inode."""
        known = await self._known(parent, name)
        if known is None and await self._listed_instead(parent):
            known = await self._known(parent, name)
        return await self._ask_and_apply(parent, name) if known is None else known

    async def _known(self, parent: Inode, name: str, *, at_any_age: bool = False) -> Inode | tuple[Entries, int] | None:
        child = parent.children.get(name)
        if child is not None:
            if at_any_age or is_local(child) or (self._is_fresh(child.checked) and self._is_told(child)):
                return child
        elif parent.entries is not None:
            entries = parent.entries
            slot = entries.find(to_bytes(name))
            if slot >= 0 and (at_any_age or self._is_fresh(entries.moment(slot))):
                if entries.states[slot] & UNSURE:
                    await self.details.settle(entries, slot)
                elif self.details.lacks(entries, slot) and not at_any_age:
                    try:
                        await self.details.complete(entries, slot)
                    except StorageError as error:
                        if not error.transient:
                            raise
                        return await self._known(parent, name, at_any_age=True)
                elif entries.states[slot] & KEPT:
                    return self.table.materialise(entries, slot)
                else:
                    return entries, slot
                return await self._known(parent, name, at_any_age=at_any_age)
            is_told = parent.listing is not None and not parent.listing.is_borrowed
            if slot < 0 and (self.absence(parent) > 0 or (at_any_age and is_told)):
                raise no_such(name)
        return None

    async def _listed_instead(self, directory: Inode) -> bool:
        """Whether a listing has answered what would have to be asked for one name."""
        listing = self._foresight.asked(directory) if self.ttl > 0 else None
        if listing is None or not self._is_fresh(listing.taken):
            return False
        await listing.end()
        return listing.is_complete

    def absence(self, parent: Inode) -> float:
        """Seconds for which a name that is not known in a directory can be believed not to exist."""
        if parent.listing is None or parent.listing.is_borrowed:
            return 0.0
        return self.remaining(parent.listing.taken)

    async def revalidate(self, inode: Inode, *, alone: bool = False) -> bool:
        """Ask the primary about a file now. False when the name no longer means this version: look it up again.

        `alone`: no answer to a question that was asked for others will do.
        """
        parent = inode.parent
        if parent is None or is_local(inode):
            return not inode.detached
        before = inode.metadata.version if inode.metadata else None
        if alone or not await self._listed_instead(parent) or not self.is_fresh(inode):
            found = await self._ask_and_apply(parent, inode.name)
            if found is not inode:
                return False
        return not inode.detached and inode.metadata is not None and inode.metadata.version == before

    def is_fresh(self, inode: Inode) -> bool:
        """Whether the primary vouched for the inode within the ttl, or the truth is here."""
        return is_local(inode) or (self._is_fresh(inode.checked) and self._is_told(inode))

    def remaining(self, checked: float) -> float:
        """Seconds for which the kernel may believe now what the primary said at that moment."""
        left = self.ttl - (self._clock() - checked)
        return max(left, self.longest_timeout if self.is_down else 0.0)

    @property
    def longest_timeout(self) -> float:
        """Seconds for which the kernel may believe what was asked just now, or is known here alone."""
        return min(self.ttl, OUTAGE_TIMEOUT) if self.is_down else self.ttl

    async def listing(self, directory: Inode) -> Listing:
        """A listing of a directory to read from: fresh, or under way."""
        while True:
            listing = directory.coming or directory.listing
            if listing is not None and self._is_fresh(listing.taken):
                break
            if directory.coming is None:
                listing = self._begin(directory)
                break
            # It began too long ago to be believed, and only one can be under way.
            await directory.coming.end()
        listing.wanted = True
        if self.ttl > 0:
            self._foresight.opened(directory)
        return listing

    def loose(self, directory: Inode) -> list[Inode]:
        """What is in a directory and in no listing of it, sorted by name."""
        entries = directory.entries
        children = directory.children.items()
        return [child for name, child in sorted(children) if entries is None or entries.find(to_bytes(name)) < 0]

    def is_empty_here(self, directory: Inode) -> bool:
        """Whether nothing that only this mount knows is in the directory."""
        return not any(is_local(child) for child in directory.children.values())

    async def sweep(self) -> None:
        """Keep no inode for what is believed no longer and only the kernel refers to (L4), until cancelled.

        The kernel gives back what it was told of when its own memory gets short, and that may be never.
        """
        while True:
            await trio.sleep(max(self.ttl, SWEEP_SECONDS))
            for number, inode in enumerate(self.table):
                if not number % SWEPT_AT_ONCE:
                    await trio.lowlevel.checkpoint()
                if not self._is_fresh(inode.checked):
                    self.table.drop_if_idle(inode, is_old=True)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _is_fresh(self, moment: float) -> bool:
        return self._clock() - moment < self.ttl or self.is_down

    def _is_told(self, inode: Inode) -> bool:
        """Whether its object itself was asked, if that matters."""
        return not self.details.wanted or inode.kind == stat.S_IFLNK or self._is_fresh(inode.told)

    async def _ask_and_apply(self, parent: Inode, name: str) -> Inode | tuple[Entries, int]:
        for rounds_left in reversed(range(ROUNDS)):
            serial, asked = self._serial, self._clock()
            try:
                entry = await self._questions.primary(parent.key + name) if is_valid_name(name) else None
                break
            except StorageError as error:
                if not error.transient:
                    raise
                try:
                    return await self._last_known(parent, name, serial, error)
                except FileNotFoundError:
                    if self.is_down:
                        raise
                    # What nobody else knows may be there all the same: only an outage lets that pass for an answer.
                    if not rounds_left:
                        raise error from None
        child = self.table.child(parent, name)
        if entry is None or child is None or child.metadata is None or differs(child.metadata, entry):
            self._tell(parent, name, entry, asked)
        return self._answers.apply(parent, name, entry, serial, asked)

    async def _last_known(
        self, parent: Inode, name: str, serial: int, error: StorageError
    ) -> Inode | tuple[Entries, int]:
        """What is known of a name that the primary was asked for in vain."""
        known = await self._known(parent, name, at_any_age=True)
        if known is None and self._recorder.knows(parent.key):
            await (await self.listing(parent)).end()
            known = await self._known(parent, name, at_any_age=True)
        if known is not None:
            return known
        told = await self._recorder.read_name(parent.key, to_bytes(name))
        if told is not None:
            entry = told[0] and told[0].metadata(parent.key)
        elif self._questions.has_replicas:
            # Not known to exist, as far as anybody can tell: a new file may be made, and is refused at close().
            entry = await self._questions.replicas(parent.key + name)
        else:
            raise error
        return self._answers.apply(parent, name, entry, serial, NEVER)

    def _tell(self, parent: Inode, name: str, found: ObjectMetadata | None, moment: float) -> None:
        if self._recorder.is_off:
            return  # each name that is made or looked up comes here
        raw = to_bytes(name)
        self._recorder.told(parent.key, raw, None if found is None else to_entry(found, raw, links=False), moment)

    def _is_hidden(self, directory: Inode, entry: Entry) -> bool:
        """Whether a name is gone on this mount, although a store may still have it."""
        if to_name(entry.name) in directory.removed:
            return True
        return bool(self.deferred) and self._answers.is_deferred(entry.metadata(directory.key))

    # -- listings -------------------------------------------------------------------------------------------------

    def _begin(self, directory: Inode) -> Listing:
        entries, now = self.table.entries_of(directory), self._clock()
        entries.begin(now)
        listing = Listing(directory, entries.sequence, now, self._serial)
        self._lister.run(listing)
        return listing

    def _is_listed(self, directory: Inode) -> bool:
        if directory.coming is not None or self.absence(directory) > 0 or self.gate.is_moving(directory):
            return True
        return self.is_down and directory.listing is not None

    @property
    def is_down(self) -> bool:
        """Whether the primary is not worth a question now."""
        return self._questions.is_down

    async def recall(self, listing: Listing, take: OnPage) -> None:
        """Complete a listing that the primary did not."""
        await self._recall.listing(listing, take)

    def take(self, listing: Listing, page: Page) -> None:
        """A page of a listing has come."""
        if listing.is_recalled:
            self._recall.fill(listing.directory, page)
        else:
            self._recorder.page(listing, page)
            self._intake.take(listing, page)
        self.table.look_out(listing.directory, page.names)

    async def complete(self, listing: Listing) -> None:
        """All pages of a listing have come."""
        await self._intake.complete(listing)
        self._recorder.complete(listing)

    def ended(self, listing: Listing) -> None:
        """A listing is over: inodes that had to wait for it may go."""
        self._recorder.ended(listing)
        if listing.is_complete:
            listing.directory.asked = 0
        else:
            self._go_back(listing)
            if listing.pages >= listing.limit:
                self._foresight.given_up(listing.directory)
        for child in list(listing.directory.children.values()):
            self.table.drop_if_idle(child)
        self.table.drop_if_idle(listing.directory)

    def _go_back(self, listing: Listing) -> None:
        """A listing came to no end: the last complete one goes on, with what this one told and what is made here."""
        directory, entries = listing.directory, listing.directory.entries
        if directory.listing is not None and entries is not None and entries.sequence is listing.sequence:
            entries.see_rest()
            directory.listing = directory.listing.over(entries.sequence)
