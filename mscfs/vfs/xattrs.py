"""Extended attributes `user.*` of files and directories (W9)."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import replace

from mscfs.errors import UnsupportedError
from mscfs.types import is_user_xattr
from mscfs.vfs.changes import Changes
from mscfs.vfs.inodes import Inode


class Xattrs(Changes):
    """See the module. Names are text as file names are; those of `user.mscfs.*` are somebody else's."""

    async def xattrs(self, number: int) -> Mapping[str, bytes]:
        """All of an inode, by name."""
        with self._table[number].used() as inode:
            async with self.namespace.gate.passage(inode):
                return await self._xattrs(inode)

    async def set_xattr(self, number: int, name: str, value: bytes | None) -> None:
        """setxattr(2), or removexattr(2) with None; ENODATA, ENOSPC, ENOTSUP."""
        self._check_writable()
        if not is_user_xattr(name):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), name)
        with self._table[number].used() as inode:
            async with self.namespace.gate.passage(inode), inode.lock:
                xattrs = dict(await self._xattrs(inode))
                if value is not None:
                    xattrs[name] = value
                elif xattrs.pop(name, None) is None:
                    raise OSError(errno.ENODATA, os.strerror(errno.ENODATA), name)
                await self._set_xattrs(inode, xattrs)

    async def _xattrs(self, inode: Inode) -> Mapping[str, bytes]:
        if inode.overrides.xattrs is not None or inode.kind == stat.S_IFLNK:
            return inode.overrides.xattrs or {}
        metadata = inode.metadata
        if metadata is None:
            return {}
        if self.manager.capabilities.posix_attributes:
            # The primary alone knows: where it cannot, or is down, there are none to tell.
            try:
                return await self._run_blocking(self.manager.xattrs, inode.key)
            except UnsupportedError:
                return {}
        if self._saver.keeps and metadata.metadata is None and not inode.is_directory:
            told = await self._run_blocking(self.manager.head, inode.key)
            if told.version == metadata.version and inode.metadata is metadata:
                inode.metadata = replace(metadata, metadata=told.metadata or {})
        return self._saver.xattrs(inode)

    async def _set_xattrs(self, inode: Inode, xattrs: Mapping[str, bytes]) -> None:
        is_staged = inode.metadata is None or (inode.staging is not None and inode.staging.dirty)
        if not self.manager.capabilities.posix_attributes:
            self._saver.check_room(inode, xattrs)
            inode.overrides.xattrs = xattrs
            self._saver.changed(inode)
        elif is_staged or inode.detached:
            if not inode.detached and not self.namespace.is_down:
                await self._run_blocking(self.manager.check_xattrs, inode.key, xattrs)
            inode.overrides.xattrs = xattrs  # the upload takes them along
        else:
            await self._run_blocking(self.manager.set_xattrs, inode.key, xattrs)
            inode.overrides.xattrs = None
        inode.overrides.ctime_ns = time.time_ns()
