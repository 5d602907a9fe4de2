"""Names: what the primary says is where, believed for `metadata_ttl`, with the changes made on this mount on top.

An answer of the primary is compared with a serial number taken before it was asked for: what changed on this mount
meanwhile wins over it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable

import trio

from mscfs.errors import InvalidKeyError, NotFoundError, StorageError
from mscfs.providers.base import StorageProvider
from mscfs.providers.page import DIRECTORY, MAYBE_LINK, Entry, Page, entries_of, to_entry
from mscfs.types import ObjectMetadata, Version, from_ns
from mscfs.vfs.entries import GONE, UNSURE, Entries
from mscfs.vfs.foresight import Foresight
from mscfs.vfs.gate import Gate
from mscfs.vfs.inodes import Inode, InodeTable
from mscfs.vfs.listings import Lister, Listing
from mscfs.vfs.paths import is_valid_name, to_bytes, to_name
from mscfs.vfs.transport import RunBlocking, Transport

log = logging.getLogger(__name__)

KINDS = {"file": stat.S_IFREG, "directory": stat.S_IFDIR, "symlink": stat.S_IFLNK}
REMEMBERED_REMOVALS = 10_000


class Namespace:
    """See the module."""

    def __init__(
        self,
        table: InodeTable,
        store: StorageProvider,
        run_blocking: RunBlocking,
        transport: Transport,
        nursery: trio.Nursery,
        *,
        ttl: float,
        clock: Callable[[], float],
        suspect: Callable[[str], None],
    ) -> None:
        self.table = table
        self.ttl = ttl
        self.skipped_keys = 0
        """Keys that cannot be paths, as the last listing of each directory counted them (N2)."""
        self.shadowed_names = 0
        """Names that are both object and directory, as the last listing of each directory counted them."""
        self.deferred: dict[str, Version | None] = {}
        """Keys unlinked here whose object waits for its last handle to close."""
        self.gate = Gate()
        """Directories being moved, and the calls about what is below them."""
        self._store = store
        self._run_blocking = run_blocking
        self._clock = clock
        self._lister = Lister(transport, nursery, self, suspect=suspect)
        self._foresight = Foresight(
            table, self._begin, self._is_listed, asking_is_cheap=store.capabilities.real_directories
        )
        self._serial = 0
        self._odd: dict[str, tuple[int, int]] = {}
        """For each directory that has any: its keys that cannot be paths, and its shadowed names."""

    # -- changes made here ----------------------------------------------------------------------------------------

    def changed(self, inode: Inode, metadata: ObjectMetadata | None) -> None:
        """An inode's object was written, made or renamed here; `metadata` is the primary's new word."""
        self._serial += 1
        inode.change = self._serial
        inode.metadata = metadata
        inode.checked = self._clock()
        parent = inode.parent
        if parent is not None:
            parent.removed.pop(inode.name, None)
            # The inode may be forgotten before the listing is: then this is what is known of the name.
            self.table.hold(parent, inode)

    def removed(self, parent: Inode, name: str) -> None:
        """A name was taken away here."""
        self._serial += 1
        if len(parent.removed) >= REMEMBERED_REMOVALS:
            # Far more than can be under way: forget the older half, and believe no listing that they belong to.
            parent.listing = None
            for old in list(parent.removed)[: REMEMBERED_REMOVALS // 2]:
                del parent.removed[old]
        parent.removed.pop(name, None)
        parent.removed[name] = self._serial
        self.table.lose(parent, name)

    def made_directory(self, inode: Inode) -> None:
        """A directory was made here: nothing is in it, which spares the questions for the names to be made in it."""
        entries = self.table.entries_of(inode)
        entries.begin(self._clock())
        inode.listing = Listing(inode, entries.sequence, self._clock(), self._serial)
        inode.listing.is_complete = True

    def forget_below(self, directory: Inode) -> None:
        """A directory was moved: what listings told of its names has to be asked anew, under their new keys."""
        directory.listing = None
        if directory.entries is not None:
            directory.entries.doubt()

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

    async def _known(self, parent: Inode, name: str) -> Inode | tuple[Entries, int] | None:
        child = parent.children.get(name)
        if child is not None:
            if is_local(child) or self._is_fresh(child.checked):
                return child
        elif parent.entries is not None:
            entries = parent.entries
            slot = entries.find(to_bytes(name))
            if slot >= 0 and self._is_fresh(entries.moment(slot)):
                if not entries.states[slot] & UNSURE:
                    return entries, slot
                await self._settle(entries, slot)
                return await self._known(parent, name)
            if slot < 0 and self.absence(parent) > 0:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
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
        return 0.0 if parent.listing is None else self.remaining(parent.listing.taken)

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
        return is_local(inode) or self._is_fresh(inode.checked)

    def remaining(self, checked: float) -> float:
        """Seconds for which the kernel may believe now what the primary said at that moment."""
        return max(0.0, self.ttl - (self._clock() - checked))

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

    async def settle_links(self, entries: Entries, slots: Iterable[int]) -> None:
        """Find out which of these entries that may be symbolic links are."""
        states = entries.states
        unsure = [slot for slot in slots if states[slot] & UNSURE]
        if unsure:
            async with trio.open_nursery() as nursery:
                for slot in unsure:
                    nursery.start_soon(self._settle, entries, slot)

    async def _settle(self, entries: Entries, slot: int) -> None:
        """Ask what listings leave open. The kernel has not seen such an entry yet: it may become a link in place."""
        name, directory = entries.names[slot], entries.directory
        found = await self._run_blocking(_object, self._store, directory.key + to_name(name))
        if entries.find(name) != slot or not entries.states[slot] & UNSURE:
            return  # settled, taken away or replaced meanwhile
        if found is None:
            self.table.lose(directory, to_name(name))
        else:
            entries.put(slot, to_entry(found, name, links=False))

    def loose(self, directory: Inode) -> list[Inode]:
        """What is in a directory and in no listing of it, sorted by name."""
        entries = directory.entries
        children = directory.children.items()
        return [child for name, child in sorted(children) if entries is None or entries.find(to_bytes(name)) < 0]

    def is_empty_here(self, directory: Inode) -> bool:
        """Whether nothing that only this mount knows is in the directory."""
        return not any(is_local(child) for child in directory.children.values())

    # -- inside ---------------------------------------------------------------------------------------------------

    def _is_fresh(self, moment: float) -> bool:
        return self._clock() - moment < self.ttl

    async def _ask_and_apply(self, parent: Inode, name: str) -> Inode:
        serial, asked = self._serial, self._clock()
        entry = await self._ask(parent.key + name) if is_valid_name(name) else None
        return self._apply(parent, name, entry, serial, asked)

    async def _ask(self, key: str) -> ObjectMetadata | None:
        if self._store.capabilities.real_directories:
            return await self._run_blocking(_file_or_directory, self._store, key)
        # An object store may hold both `a` and `a/b`; the two questions go out together (N2: the directory wins).
        answers: dict[str, ObjectMetadata | None] = {}
        errors: list[StorageError] = []

        async def ask(question: Callable[[StorageProvider, str], ObjectMetadata | None], name: str) -> None:
            try:
                answers[name] = await self._run_blocking(question, self._store, key)
            except StorageError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, _directory, "directory")
            nursery.start_soon(ask, _object, "file")
        if errors:
            raise errors[0]
        if answers["directory"] is not None and answers["file"] is not None:
            log.warning("both %r and keys below it exist: the directory is shown, the object is hidden", key)
        return answers["directory"] or answers["file"]

    def _apply(self, parent: Inode, name: str, entry: ObjectMetadata | None, serial: int, asked: float) -> Inode:
        child = self.table.child(parent, name)
        if child is not None and (child.change > serial or child.checked > asked or is_local(child)):
            return child
        if child is None and parent.removed.get(name, 0) > serial:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if entry is None or self._is_deferred(entry):
            if child is not None:
                self.table.detach(child)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        kind = KINDS[entry.type]
        if child is not None and (child.kind != kind or (_differs(child.metadata, entry) and child.handles)):
            # Open handles keep their version; the name gets an inode, and so a page cache, of its own (R1).
            self.table.detach(child)
            child = None
        if child is None:
            child = self.table.add(parent, name, kind)
        if _differs(child.metadata, entry):
            child.overrides.mtime_ns = child.overrides.atime_ns = None
        elif child.metadata is not None and entry.metadata is None:
            entry = child.metadata  # the same version, and we know more about it than a listing tells
        child.metadata = entry
        child.checked = max(child.checked, asked)
        self.table.hold(parent, child)
        return child

    def _is_deferred(self, entry: ObjectMetadata) -> bool:
        if entry.key not in self.deferred:
            return False
        version = self.deferred[entry.key]
        return version is None or version == entry.version

    # -- listings -------------------------------------------------------------------------------------------------

    def _begin(self, directory: Inode) -> Listing:
        entries, now = self.table.entries_of(directory), self._clock()
        entries.begin(now)
        listing = Listing(directory, entries.sequence, now, self._serial)
        self._lister.run(listing)
        return listing

    def _is_listed(self, directory: Inode) -> bool:
        return directory.coming is not None or self.absence(directory) > 0 or self.gate.is_moving(directory)

    def take(self, listing: Listing, page: Page) -> None:
        """A page of a listing has come."""
        directory = listing.directory
        entries, children = directory.entries, directory.children
        assert entries is not None
        listing.skipped += page.skipped
        listing.example = listing.example or page.example
        is_plain = not directory.removed and not self.deferred
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
            if self.deferred and self._is_deferred(entry.metadata(directory.key)):
                self.table.lose(directory, name)
                return
            if slot >= 0 and not entries.fits(slot, entry):
                self.table.lose(directory, name)
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
                self.table.detach(child)
                return True
        try:
            self._apply(listing.directory, child.name, found, listing.serial, listing.taken)
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
                self._apply(directory, name, None, listing.serial, listing.taken)
                if slot >= 0:
                    directory.entries.see(slot)
        else:
            self.table.lose(directory, name)

    def ended(self, listing: Listing) -> None:
        """A listing is over: inodes that had to wait for it may go."""
        if listing.is_complete:
            listing.directory.asked = 0
        elif listing.pages >= listing.limit:
            self._foresight.given_up(listing.directory)
        for child in list(listing.directory.children.values()):
            self.table.drop_if_idle(child)
        self.table.drop_if_idle(listing.directory)

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


def is_local(inode: Inode) -> bool:
    """Whether the truth about an inode is on this mount: not uploaded yet, or a directory kept for its maker."""
    if inode.staging is not None and (inode.staging.dirty or inode.metadata is None):
        return True
    if inode.lock.locked():
        return True  # it is being changed here: the primary's answer would be about some moment in between
    return inode.sticky


def directory_metadata(key: str) -> ObjectMetadata:
    """The metadata of a directory known by name only."""
    return ObjectMetadata(key, 0, from_ns(0), type="directory")


def _differs(known: ObjectMetadata | None, entry: ObjectMetadata) -> bool:
    return known is not None and not entry.is_directory and known.version != entry.version


def _object(store: StorageProvider, key: str) -> ObjectMetadata | None:
    try:
        return store.head(key)
    except (NotFoundError, InvalidKeyError):
        return None


def _directory(store: StorageProvider, key: str) -> ObjectMetadata | None:
    try:
        return store.head_directory(key + "/")
    except (NotFoundError, InvalidKeyError):
        return None


def _file_or_directory(store: StorageProvider, key: str) -> ObjectMetadata | None:
    return _object(store, key) or _directory(store, key)
