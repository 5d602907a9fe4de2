"""The file system: names, handles, reads and writes. It knows trio and no pyfuse3, so it is tested without a kernel.

Errors are OSError (StorageError is one); the FUSE adapter passes on the errno.
"""

from __future__ import annotations

from contextlib import suppress

import trio

from mscfs.errors import StorageError
from mscfs.providers.base import Space
from mscfs.vfs.changes import Change
from mscfs.vfs.core import Owner
from mscfs.vfs.files import Files
from mscfs.vfs.inodes import Inode
from mscfs.vfs.moves import RENAME_NOREPLACE, Moves
from mscfs.vfs.names import Names
from mscfs.vfs.xattrs import Xattrs

__all__ = ["RENAME_NOREPLACE", "Change", "Filesystem", "Owner"]

UPLOADS_AT_ONCE = 8
"""When the mount ends."""
SPACE_TIMEOUT = 3.0
"""Seconds: long enough for a directory that does not answer to be suspected."""


class Filesystem(Names, Moves, Files, Xattrs):
    """See the module. One trio task for each call; calls on one inode that change it take turns."""

    _space: Space | None = None

    async def space(self) -> Space | None:
        """The primary's room; None where it has no bound.

        When the primary is in trouble, what it told last: df and umount(8), which ask for it, must not hang nor fail.
        """
        if self.manager.primary_source.health.healthy:
            with suppress(StorageError), trio.move_on_after(SPACE_TIMEOUT):
                self._space = await self._run_blocking(self.manager.space)
        return self._space

    async def finish(self) -> list[str]:
        """Refuse changes from now on, and upload everything dirty (L2); returns the keys that could not be."""
        self._is_ending = True
        failed: list[str] = []
        limit = trio.CapacityLimiter(UPLOADS_AT_ONCE)

        async def flush(inode: Inode) -> None:
            async with limit:
                try:
                    await self._uploads.flush(inode)
                except OSError:
                    failed.append(inode.key)

        async with trio.open_nursery() as nursery:
            for inode in self._table:
                if inode.staging is not None:
                    nursery.start_soon(flush, inode)
        await self._saver.finish()
        return failed

    def keep_staged(self) -> None:
        """The deadline passed: what is still dirty stays on disk for the next mount."""
        for inode in self._table:
            if inode.staging is not None and inode.staging.dirty and not inode.deleted:
                inode.staging.kept = True

    def key_of(self, number: int) -> str:
        """The key of an inode."""
        return self._table[number].key
