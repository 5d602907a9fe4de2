"""What all parts of the file system share: its collaborators, and what they ask of each other."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from mscfs.errors import NotADirectoryKeyError, ReadOnlyError
from mscfs.journal import Journal
from mscfs.replicas.manager import ReplicaManager
from mscfs.vfs.answers import is_local
from mscfs.vfs.attributes import AttributeMaker, Attributes
from mscfs.vfs.deletes import settle_delete
from mscfs.vfs.entries import Entries
from mscfs.vfs.fetcher import Fetcher
from mscfs.vfs.handles import HandleTable
from mscfs.vfs.inodes import Inode, InodeTable
from mscfs.vfs.namespace import Namespace
from mscfs.vfs.paths import NAME_MAX, check_new_name, to_bytes
from mscfs.vfs.saver import AttributeSaver
from mscfs.vfs.siblings import SiblingReadAhead
from mscfs.vfs.staging import StagingArea
from mscfs.vfs.transport import RunBlocking, Transport
from mscfs.vfs.uploads import Uploads


@dataclass(frozen=True, slots=True)
class Owner:
    """Who makes a file."""

    uid: int
    gid: int


class Core:
    """See the module."""

    def __init__(
        self,
        *,
        manager: ReplicaManager,
        journal: Journal,
        transport: Transport,
        namespace: Namespace,
        fetcher: Fetcher,
        uploads: Uploads,
        area: StagingArea,
        attributes: AttributeMaker,
        saver: AttributeSaver,
        run_blocking: RunBlocking,
        page_cache: bool,
        siblings: SiblingReadAhead | None,
        read_only: bool,
        on_wishes: Callable[[], None],
    ) -> None:
        self.manager = manager
        self.namespace = namespace
        self.handles = HandleTable()
        self._journal = journal
        self._transport = transport
        self._table: InodeTable = namespace.table
        self._fetcher = fetcher
        self._siblings = siblings
        self._uploads = uploads
        self._area = area
        self._attributes = attributes
        self._saver = saver
        self._run_blocking = run_blocking
        self._page_cache = page_cache
        self._read_only = read_only
        self._on_wishes = on_wishes
        self._is_ending = False

    def _directory(self, number: int) -> Inode:
        inode = self._table[number]
        if not inode.is_directory:
            raise NotADirectoryKeyError("not a directory", key=inode.key)
        return inode

    def _attributes_of(self, inode: Inode) -> Attributes:
        # No listing ever tells of the root, and each path begins with it.
        is_known = is_local(inode) or inode is self._table.root
        timeout = self.namespace.longest_timeout if is_known else self.namespace.remaining(inode.checked)
        return self._attributes.of(inode, timeout)

    def _listed(self, entries: Entries, slot: int) -> Attributes:
        """What `_attributes_of` is for an inode, for a name that was only listed."""
        is_open = self.namespace.details.lacks(entries, slot)
        return self._attributes.listed(
            entries, slot, 0.0 if is_open else self.namespace.remaining(entries.moment(slot))
        )

    def _referenced(self, inode: Inode) -> Attributes:
        inode.lookups += 1
        return self._attributes_of(inode)

    def _check_writable(self) -> None:
        if self._read_only:
            raise ReadOnlyError("the mount is read-only")
        if self._is_ending:
            raise OSError(errno.ESHUTDOWN, "the mount is ending")

    @staticmethod
    def _check_length(name: str) -> None:
        if len(to_bytes(name)) > NAME_MAX:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)

    def _check_new_name(self, directory: Inode, name: str, *, is_directory: bool = False) -> None:
        """Refuse what the primary could not hold now, not when it is closed."""
        self._check_length(name)
        check_new_name(name, binary_keys=self.manager.capabilities.binary_keys)
        self.manager.check_new_key(f"{directory.key}{name}/" if is_directory else directory.key + name)

    async def _lookup_or_none(self, directory: Inode, name: str) -> Inode | None:
        try:
            return await self.namespace.lookup(directory, name)
        except FileNotFoundError:
            return None

    def _add(self, directory: Inode, name: str, kind: int) -> Inode:
        """The inode of what was made under a name that was free."""
        if name in directory.children:
            # Older content went home to it since (W4).
            self.namespace.part(directory, name)
        return self._table.add(directory, name, kind)

    @staticmethod
    def _names_changed(directory: Inode) -> None:
        """A name was made in a directory or taken away: its mtime says so, also where no store keeps one."""
        directory.overrides.changed(time.time_ns())

    async def _delete_if_unread(self, inode: Inode) -> None:
        """The object of a file that was unlinked while it was open goes with its last handle."""
        deferred = self.namespace.deferred.get(inode.key)
        # Of another version, it is that of a namesake which is open still.
        if not inode.handles and inode.detached and inode.metadata is not None and deferred == inode.metadata.version:
            await self._delete_deferred(inode.key)

    async def _delete_deferred(self, key: str) -> None:
        """Delete the object of a name that was unlinked while it was open, unless it was replaced meanwhile."""
        deferred = self.namespace.deferred
        async with self.namespace.deleting:
            if key not in deferred:
                return
            version = deferred[key]
            # In trouble the journal still has it: the next mount carries it out. Until it is gone the name is hidden.
            await self._run_blocking(settle_delete, self.manager, self._journal, key, version)
            if deferred.get(key) == version:
                del deferred[key]
        self._on_wishes()
