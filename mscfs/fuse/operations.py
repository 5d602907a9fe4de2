"""The thin adapter between pyfuse3 and the file system: types, errno and lookup counts, nothing else."""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
from collections.abc import Callable, Coroutine, Sequence
from time import perf_counter
from typing import Any, Concatenate, NoReturn, ParamSpec, TypeVar

import pyfuse3

from mscfs.errors import ReadOnlyError
from mscfs.fuse.answers import no_entry, to_entry
from mscfs.fuse.directories import reply
from mscfs.fuse.requests import RequestCounts
from mscfs.fuse.xattrs import OURS, XattrReader
from mscfs.vfs.filesystem import Change, Filesystem, Owner
from mscfs.vfs.paths import NAME_MAX, to_bytes, to_name

log = logging.getLogger(__name__)

LARGE_STORE_BLOCKS = 1 << 38
"""An object store has no size: df shows one PiB in blocks of 4 KiB, free (contract N4)."""
STATFS_BLOCK = 4096

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Handler = Callable[Concatenate["Operations", Parameters], Coroutine[Any, Any, Answer]]


def guarded(handler: Handler[Parameters, Answer]) -> Handler[Parameters, Answer]:
    """Turn errors into an errno for this one call: any other exception would end the whole mount (L3). Count it."""
    name = handler.__name__

    @functools.wraps(handler)
    async def call(self: Operations, /, *arguments: Parameters.args, **named: Parameters.kwargs) -> Answer:
        counts = self.requests[name]
        counts.begun += 1
        began = perf_counter()
        try:
            return await handler(self, *arguments, **named)
        except pyfuse3.FUSEError as error:
            counts.errors[error.errno] += 1
            raise
        except OSError as error:
            _log_failure(name, error)
            number = error.errno or errno.EIO
            counts.errors[number] += 1
            raise pyfuse3.FUSEError(number) from None
        except Exception:
            log.exception("a bug in %s: this call fails with EIO, the mount goes on", name)
            counts.errors[errno.EIO] += 1
            raise pyfuse3.FUSEError(errno.EIO) from None
        finally:
            counts.ended(perf_counter() - began)

    return call


QUIET = frozenset(
    {
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.EXDEV,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EROFS,
        errno.ENAMETOOLONG,
        errno.ENOTSUP,  # attributes that tools which copy all of them bring along
    }
)
"""Answers every program expects now and then."""


def _log_failure(name: str, error: OSError) -> None:
    # The kernel looks a name that cannot be opened for that anew, and opens what it finds then.
    is_tried_again = name == "open" and error.errno == errno.ESTALE
    if error.errno not in QUIET and not is_tried_again:
        log.warning("%s failed with %s: %s", name, errno.errorcode.get(error.errno or 0, "EIO"), error)


class Operations(pyfuse3.Operations):
    """The handlers. Each is one call into the file system."""

    supports_dot_lookup = False
    enable_writeback_cache = False

    def __init__(
        self, filesystem: Filesystem, xattrs: XattrReader, requests: RequestCounts, *, read_only: bool
    ) -> None:
        super().__init__()
        self.requests = requests
        self._filesystem = filesystem
        self._xattrs = xattrs
        self._read_only = read_only

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Find a name. That there is none is an answer too, which the kernel may keep for a while."""
        try:
            return to_entry(await self._filesystem.lookup(parent_inode, to_name(name)))
        except FileNotFoundError:
            seconds = self._filesystem.absence(parent_inode)
            if not seconds:
                raise
            return no_entry(seconds)

    @guarded
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """stat(2)."""
        if self._filesystem.reads_kept:
            return to_entry(await self._filesystem.told_attributes(inode))
        return to_entry(self._filesystem.attributes(inode))

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Give back references; there is nobody to tell an error."""
        for number, lookups in inode_list:
            self._filesystem.forget(number, lookups)

    @guarded
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        """Open a directory."""
        return self._filesystem.open_directory(inode)

    @guarded
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Give entries from `start_id`; each the kernel takes counts as a lookup."""
        reply(self._filesystem, token, await self._filesystem.read_directory(fh, start_id))

    @guarded
    async def releasedir(self, fh: int) -> None:
        """Close a directory."""
        self._filesystem.close_directory(fh)

    @guarded
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Names are on the primary before their calls return: nothing is left to do."""

    @guarded
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        """The target of a symbolic link."""
        return to_bytes(await self._filesystem.readlink(inode))

    @guarded
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a symbolic link."""
        made = await self._filesystem.symlink(parent_inode, to_name(name), to_name(target), _owner(ctx))
        return to_entry(made)

    @guarded
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make a directory."""
        made = await self._filesystem.make_directory(
            parent_inode, to_name(name), mode & ~ctx.umask & 0o7777, _owner(ctx)
        )
        return to_entry(made)

    @guarded
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a directory."""
        await self._filesystem.remove_directory(parent_inode, to_name(name))

    @guarded
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """Remove a name."""
        await self._filesystem.unlink(parent_inode, to_name(name))

    @guarded
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Rename a file."""
        await self._filesystem.rename(parent_inode_old, to_name(name_old), parent_inode_new, to_name(name_new), flags)

    @guarded
    async def link(self, inode: int, new_parent_inode: int, new_name: bytes, ctx: pyfuse3.RequestContext) -> NoReturn:
        """Objects have one name: EPERM, as file systems without hard links answer (link(2))."""
        raise pyfuse3.FUSEError(errno.EPERM)

    @guarded
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Make an empty regular file; device nodes, sockets and pipes are EPERM (mknod(2))."""
        if not stat.S_ISREG(mode):
            raise pyfuse3.FUSEError(errno.EPERM)
        handle, _, attributes = await self._filesystem.create(
            parent_inode, to_name(name), mode & ~ctx.umask & 0o7777, os.O_WRONLY | os.O_EXCL, _owner(ctx)
        )
        try:
            await self._filesystem.flush(handle)
        except BaseException:
            self._filesystem.forget(attributes.number, 1)  # the kernel is not told of it
            raise
        finally:
            await self._filesystem.release(handle)
        return to_entry(attributes)

    @guarded
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: pyfuse3.RequestContext
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        """Make and open a file."""
        handle, keep_cache, attributes = await self._filesystem.create(
            parent_inode, to_name(name), mode & ~ctx.umask & 0o7777, flags, _owner(ctx)
        )
        return pyfuse3.FileInfo(fh=handle, keep_cache=keep_cache), to_entry(attributes)

    @guarded
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file."""
        handle, keep_cache = await self._filesystem.open(inode, flags)
        return pyfuse3.FileInfo(fh=handle, keep_cache=keep_cache)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes | memoryview:  # type: ignore[override]
        """Read. A memoryview of a mapped chunk spares a copy; pyfuse3 takes any contiguous buffer."""
        return await self._filesystem.read(fh, off, size)

    @guarded
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Write."""
        return await self._filesystem.write(fh, off, buf)

    @guarded
    async def flush(self, fh: int) -> None:
        """close(2): errors of the upload reach the program here."""
        await self._filesystem.flush(fh)

    @guarded
    async def fsync(self, fh: int, datasync: bool) -> None:
        """Bring the file home."""
        await self._filesystem.fsync(fh)

    @guarded
    async def release(self, fh: int) -> None:
        """The last reference to an open file is gone."""
        await self._filesystem.release(fh)

    @guarded
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Truncate, chmod, chown, utimensat."""
        change = Change(
            size=attr.st_size if fields.update_size else None,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return to_entry(await self._filesystem.set_attributes(inode, change, by_handle=fh is not None))

    @guarded
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """The room of the primary; a large number for object stores (N4)."""
        space = await self._filesystem.space()
        answer = pyfuse3.StatvfsData()
        answer.f_bsize = answer.f_frsize = STATFS_BLOCK
        answer.f_namemax = NAME_MAX
        if space is None:
            answer.f_blocks = answer.f_bfree = answer.f_bavail = LARGE_STORE_BLOCKS
            answer.f_files = answer.f_ffree = answer.f_favail = LARGE_STORE_BLOCKS
        else:
            answer.f_blocks = space.total_bytes // STATFS_BLOCK
            answer.f_bfree = space.free_bytes // STATFS_BLOCK
            answer.f_bavail = space.available_bytes // STATFS_BLOCK
            answer.f_files = space.total_files
            answer.f_ffree = answer.f_favail = space.free_files
        return answer

    @guarded
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """The kernel checks permissions itself (default_permissions)."""
        return True

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        """`user.*`; nothing else is kept."""
        if not name.startswith(b"user."):
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)  # the kernel asks for capabilities at each write
        if name.startswith(OURS):
            value = await self._xattrs.get(self._filesystem.key_of(inode), to_name(name))
        else:
            value = (await self._filesystem.xattrs(inode)).get(to_name(name))
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    @guarded
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        """The names of `user.*`, ours among them."""
        theirs = await self._filesystem.xattrs(inode)
        return [*map(to_bytes, sorted(theirs)), *self._xattrs.names(self._filesystem.key_of(inode))]

    @guarded
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext) -> None:
        """`user.*`; others are ENOTSUP. `user.mscfs.*` is ignored: tools that copy attributes bring it along."""
        if self._read_only:
            raise ReadOnlyError("the mount is read-only")
        if not name.startswith(OURS):
            await self._filesystem.set_xattr(inode, to_name(name), bytes(value))

    @guarded
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """`user.*`. `user.mscfs.*` stays, as rsync -X takes away what its source lacks."""
        if not name.startswith(b"user."):
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        if not name.startswith(OURS):
            await self._filesystem.set_xattr(inode, to_name(name), None)


def _owner(ctx: pyfuse3.RequestContext) -> Owner:
    return Owner(ctx.uid, ctx.gid)
