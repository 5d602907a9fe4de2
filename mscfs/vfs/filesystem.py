"""The file system: names, handles, reads and writes. It knows trio and no pyfuse3, so it is tested without a kernel.

Errors are OSError (StorageError is one); the FUSE adapter passes on the errno.
"""

from __future__ import annotations

from mscfs.errors import StorageError
from mscfs.providers.base import Space
from mscfs.vfs.changes import Change
from mscfs.vfs.core import Owner
from mscfs.vfs.files import Files
from mscfs.vfs.moves import RENAME_NOREPLACE, Moves
from mscfs.vfs.names import Names

__all__ = ["RENAME_NOREPLACE", "Change", "Filesystem", "Owner"]


class Filesystem(Names, Moves, Files):
    """See the module. One trio task for each call; calls on one inode that change it take turns."""

    async def space(self) -> Space | None:
        """The primary's room; None where it has no bound, or cannot be asked: df must not hang or fail for that."""
        try:
            return await self._run_blocking(self.manager.space)
        except StorageError:
            return None

    async def flush_all(self) -> list[str]:
        """Upload everything dirty (shutdown); returns the keys that could not be."""
        failed = []
        for inode in self._table:
            try:
                await self._uploads.flush(inode)
            except StorageError:
                failed.append(inode.key)
        return failed

    def keep_staged(self) -> None:
        """The deadline passed: what is still dirty stays on disk for the next mount."""
        for inode in self._table:
            if inode.staging is not None and inode.staging.dirty and not inode.deleted:
                inode.staging.kept = True

    def key_of(self, number: int) -> str:
        """The key of an inode."""
        return self._table[number].key
