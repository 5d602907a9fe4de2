"""The file system: names, handles, reads and writes. It knows trio and no pyfuse3, so it is tested without a kernel.

Errors are OSError (StorageError is one); the FUSE adapter passes on the errno.
"""

from __future__ import annotations

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


class Filesystem(Names, Moves, Files, Xattrs):
    """See the module. One trio task for each call; calls on one inode that change it take turns."""

    async def space(self) -> Space | None:
        """The primary's room; None where it has no bound, or cannot be asked: df must not hang or fail for that."""
        try:
            return await self._run_blocking(self.manager.space)
        except StorageError:
            return None

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
