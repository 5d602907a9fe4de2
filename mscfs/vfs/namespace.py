"""Names: what the primary says is where, believed for `metadata_ttl`, with the changes made on this mount on top.

An answer of the primary is compared with a serial number taken before it was asked for: what changed on this mount
meanwhile wins over it.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Callable

import trio

from mscfs.errors import InvalidKeyError, NotFoundError, StorageError
from mscfs.providers.base import StorageProvider
from mscfs.types import ObjectMetadata, Version, from_ns
from mscfs.vfs.inodes import Inode, InodeTable, Listing
from mscfs.vfs.paths import is_valid_name, last_segment
from mscfs.vfs.transport import RunBlocking

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
        *,
        ttl: float,
        clock: Callable[[], float],
    ) -> None:
        self.table = table
        self.ttl = ttl
        self.skipped_keys = 0
        """Keys that cannot be paths, as the last listing of each directory counted them (N2)."""
        self.shadowed_names = 0
        """Names that are both object and directory, as the last listing of each directory counted them."""
        self.deferred: dict[str, Version | None] = {}
        """Keys unlinked here whose object waits for its last handle to close."""
        self._store = store
        self._run_blocking = run_blocking
        self._clock = clock
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
            if parent.listing is not None and metadata is not None:
                # The inode may be forgotten before the listing is: then this is what is known of the name.
                parent.listing.entries[inode.name] = metadata

    def removed(self, parent: Inode, name: str) -> None:
        """A name was taken away here."""
        self._serial += 1
        if len(parent.removed) >= REMEMBERED_REMOVALS:
            # Far more than can be under way: forget the older half, and the listing that they belong to.
            parent.listing = None
            for old in list(parent.removed)[: REMEMBERED_REMOVALS // 2]:
                del parent.removed[old]
        parent.removed.pop(name, None)
        parent.removed[name] = self._serial

    # -- questions ------------------------------------------------------------------------------------------------

    async def lookup(self, parent: Inode, name: str) -> Inode:
        """The inode of a name; FileNotFoundError. Asks the primary when nothing fresh is known."""
        child = parent.children.get(name)
        if child is not None and (is_local(child) or self._is_fresh(child.checked)):
            return child
        listing = parent.listing
        if listing is not None and self._is_fresh(listing.taken):
            entry = listing.entries.get(name)
            if entry is None or not self._may_be_symlink(entry):
                return self._apply(parent, name, entry, listing.serial, listing.taken)
        return await self._ask_and_apply(parent, name)

    async def revalidate(self, inode: Inode) -> bool:
        """Ask the primary about a file now. False when the name no longer means this version: look it up again."""
        parent = inode.parent
        if parent is None or is_local(inode):
            return not inode.detached
        before = inode.metadata.version if inode.metadata else None
        found = await self._ask_and_apply(parent, inode.name)
        return found is inode and inode.metadata is not None and inode.metadata.version == before

    def is_fresh(self, inode: Inode) -> bool:
        """Whether the primary vouched for the inode within the ttl, or the truth is here."""
        return is_local(inode) or self._is_fresh(inode.checked)

    def remaining(self, inode: Inode) -> float:
        """Seconds for which the kernel may believe what it is told of the inode now."""
        return max(0.0, self.ttl - (self._clock() - inode.checked))

    async def entries(self, directory: Inode) -> list[Inode]:
        """All entries of a directory, sorted by name. Inodes without a lookup count are dropped again by the caller."""
        listing = directory.listing
        if listing is None or not self._is_fresh(listing.taken):
            listing = await self._list(directory)
        names = set(listing.entries)
        for name, child in directory.children.items():
            if is_local(child) or child.change > listing.serial:
                names.add(name)
        found: dict[str, Inode] = {}
        unsure: list[str] = []
        for name in names:
            entry = listing.entries.get(name)
            if entry is not None and self._may_be_symlink(entry) and name not in directory.children:
                unsure.append(name)
                continue
            try:
                found[name] = self._apply(directory, name, entry, listing.serial, listing.taken)
            except FileNotFoundError:
                continue
        async with trio.open_nursery() as nursery:
            for name in unsure:
                nursery.start_soon(self._find, directory, name, found)
        return [found[name] for name in sorted(found)]

    async def _find(self, directory: Inode, name: str, found: dict[str, Inode]) -> None:
        try:
            found[name] = await self._ask_and_apply(directory, name)
        except FileNotFoundError:
            return

    def is_empty_here(self, directory: Inode) -> bool:
        """Whether nothing that only this mount knows is in the directory."""
        return not any(is_local(child) for child in directory.children.values())

    # -- inside ---------------------------------------------------------------------------------------------------

    def _is_fresh(self, moment: float) -> bool:
        return self._clock() - moment < self.ttl

    def _may_be_symlink(self, entry: ObjectMetadata) -> bool:
        """An empty object in a listing without user metadata may be a symbolic link: only a HEAD can tell."""
        return (
            entry.type == "file"
            and entry.content_length == 0
            and entry.metadata is None
            and not self._store.capabilities.real_directories
        )

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
        child = parent.children.get(name)
        if child is not None and (child.change > serial or is_local(child)):
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
        return child

    def _is_deferred(self, entry: ObjectMetadata) -> bool:
        if entry.key not in self.deferred:
            return False
        version = self.deferred[entry.key]
        return version is None or version == entry.version

    async def _list(self, directory: Inode) -> Listing:
        serial, asked = self._serial, self._clock()
        entries, skipped, shadowed = await self._run_blocking(_read_listing, self._store, directory.key)
        listing = Listing(entries, asked, serial)
        directory.listing = listing
        directory.removed = {name: change for name, change in directory.removed.items() if change > serial}
        self._report(directory.key, skipped, shadowed)
        return listing

    def _report(self, directory: str, skipped: list[str], shadowed: list[str]) -> None:
        before = self._odd.get(directory, (0, 0))
        found = len(skipped), len(shadowed)
        if found == before:
            return
        self._odd[directory] = found
        self.skipped_keys += found[0] - before[0]
        self.shadowed_names += found[1] - before[1]
        if found[0] > before[0]:
            log.warning("%r: %d keys cannot be paths and are not shown, such as %r", directory, found[0], skipped[0])
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


def _read_listing(store: StorageProvider, directory: str) -> tuple[dict[str, ObjectMetadata], list[str], list[str]]:
    """A whole directory: entries by name, keys that cannot be paths, names that are both object and directory."""
    entries: dict[str, ObjectMetadata] = {}
    skipped: list[str] = []
    shadowed: list[str] = []
    for entry in store.list_directory(directory):
        name = last_segment(entry.key[len(directory) :])
        if entry.key != directory + name + ("/" if entry.is_directory else "") or not is_valid_name(name):
            skipped.append(entry.key)
            continue
        other = entries.get(name)
        if other is not None:
            shadowed.append(name)
            if other.is_directory:
                continue
        entries[name] = entry
    return entries, skipped, shadowed
