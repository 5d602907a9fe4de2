"""Content whose close() failed goes home as soon as the primary takes it again, without a remount (W4, R8).

The conditions are those of a recovery: what the primary holds by then must be what the content was made from, or a
person decides (`mscfs recover`). While a program has the file open for writing its older content waits.
"""

from __future__ import annotations

import logging
import stat
from collections import Counter
from collections.abc import Callable

import trio

from mscfs.errors import StorageError
from mscfs.journal import Journal, PendingUpload
from mscfs.replicas.manager import ReplicaManager
from mscfs.types import ObjectMetadata
from mscfs.vfs.answers import is_local
from mscfs.vfs.inodes import Inode
from mscfs.vfs.leftbehind import InOtherHandsError, left_behind
from mscfs.vfs.namespace import Namespace
from mscfs.vfs.recovery import settle_upload
from mscfs.vfs.staging import StagingArea
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds between two tries; they double while the primary answers other questions and does not take the content."""


class Homing:
    """See the module. `on_wishes` is called when the journal got wishes."""

    def __init__(
        self,
        manager: ReplicaManager,
        journal: Journal,
        namespace: Namespace,
        area: StagingArea,
        run_blocking: RunBlocking,
        *,
        on_wishes: Callable[[], None],
    ) -> None:
        self._manager = manager
        self._journal = journal
        self._namespace = namespace
        self._area = area
        self._run_blocking = run_blocking
        self._on_wishes = on_wishes
        self._kept = trio.Event()
        self._given_up: set[int] = set()
        self._failures: Counter[int] = Counter()
        """How often the primary did not take a content: what it takes goes before what it does not."""

    def kept(self) -> None:
        """The upload of a file failed for good, and its content is in nobody's hands."""
        self._kept.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._kept.wait()
            self._kept = trio.Event()
            pause = FIRST_PAUSE
            while await self._is_left():
                await trio.sleep(pause)
                pause = FIRST_PAUSE if self._namespace.is_down else min(2 * pause, LONGEST_PAUSE)

    async def _is_left(self) -> bool:
        """Bring home what can be; whether anything is left to be tried again."""
        if self._namespace.is_down:
            return True
        try:
            contents = await self._run_blocking(left_behind, self._journal)
        except StorageError as error:
            log.info("what failed at close() waits: %s", error)
            return True
        is_left = False
        for content in sorted(contents, key=lambda content: self._failures[content.id]):
            # What other processes left behind has an order among their other changes: a recovery's affair.
            is_ours = content.staging.parent == self._area.directory and content.id not in self._given_up
            # Whoever has to wait, perhaps for long, keeps no other from going.
            if is_ours and not content.problem and not await self._is_settled(content):
                is_left = True
                if self._namespace.is_down:
                    break
        return is_left

    async def _is_settled(self, content: PendingUpload) -> bool:
        inode = self._inode(content.key)
        if inode is not None and (is_local(inode) or inode.staging is not None):
            return False
        before = self._namespace.serial
        try:
            async with self._namespace.replacing(content.key):
                written = await self._run_blocking(settle_upload, self._manager, self._journal, content)
        except InOtherHandsError:
            return True
        except StorageError as error:
            if error.store == self._manager.profile:
                self._manager.primary_source.failed(error)
            self._failures[content.id] += 1
            log.info("%s, which could not be uploaded at close(), waits: %s", content.key, error)
            return False
        except Exception:
            log.exception("a bug in settling %s: it stays for the next mount", content.key)
            self._given_up.add(content.id)
        else:
            if written is not None:
                log.info("%s, which could not be uploaded at close(), is on the primary now", content.key)
                self._tell(written[0], before)
                self._on_wishes()
        return True

    def _inode(self, key: str) -> Inode | None:
        """What is known of a name here."""
        table = self._namespace.table
        inode: Inode | None = table.root
        for name in key.split("/"):
            inode = table.child(inode, name) if inode is not None and inode.is_directory else None
        return inode

    def _tell(self, written: ObjectMetadata, serial: int) -> None:
        """The name means another version now. The kernel believes what it knows of the old one: it gets an inode.

        What was done to the name after the change `serial`, while the content was on its way, came after it.
        """
        above, _, name = written.key.rpartition("/")
        table = self._namespace.table
        parent = self._inode(above) if above else table.root
        if parent is None or not parent.is_directory:
            return
        before = table.child(parent, name)
        if parent.removed.get(name, 0) > serial:
            return
        if before is not None and (is_local(before) or before.change > serial):
            return
        self._namespace.part(parent, name)
        inode = table.add(parent, name, stat.S_IFREG)
        table.recall(inode)
        inode.overrides.mtime_ns = inode.overrides.atime_ns = None
        self._namespace.changed(inode, written)
        table.drop_if_idle(inode)
