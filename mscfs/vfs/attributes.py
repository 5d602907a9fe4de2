"""What stat(2) says of an inode."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass

from mscfs.config.values import MscfsOptions
from mscfs.types import to_ns
from mscfs.vfs.inodes import Inode


@dataclass(frozen=True, slots=True)
class Attributes:
    """One answer. Times in nanoseconds since the epoch, size in bytes; `timeout` (s): how long it may be believed."""

    number: int
    mode: int
    size: int
    uid: int
    gid: int
    links: int
    atime_ns: int
    mtime_ns: int
    timeout: float


class AttributeMaker:
    """Puts together the store's word, what was set on this mount, and the options' defaults."""

    def __init__(self, options: MscfsOptions) -> None:
        self._options = options
        self._uid = os.geteuid() if options.uid is None else options.uid
        self._gid = os.getegid() if options.gid is None else options.gid
        self._started_ns = time.time_ns()

    def of(self, inode: Inode, timeout: float) -> Attributes:
        """The attributes of an inode now."""
        overrides, metadata = inode.overrides, inode.metadata
        mtime_ns = overrides.mtime_ns
        if mtime_ns is None and metadata is not None:
            mtime_ns = metadata.modified_ns or to_ns(metadata.last_modified)
        mtime_ns = mtime_ns or self._started_ns
        mode, uid, gid = overrides.mode, overrides.uid, overrides.gid
        if metadata is not None:
            mode = metadata.mode if mode is None else mode
            uid = metadata.uid if uid is None else uid
            gid = metadata.gid if gid is None else gid
        return Attributes(
            number=inode.number,
            mode=inode.kind | (self._default_mode(inode.kind) if mode is None else stat.S_IMODE(mode)),
            size=inode.size,
            uid=self._uid if uid is None or self._options.uid is not None else uid,
            gid=self._gid if gid is None or self._options.gid is not None else gid,
            links=0 if inode.detached else 1,
            atime_ns=overrides.atime_ns or mtime_ns,
            mtime_ns=mtime_ns,
            timeout=timeout,
        )

    def _default_mode(self, kind: int) -> int:
        if kind == stat.S_IFDIR:
            return self._options.directory_mode
        return 0o777 if kind == stat.S_IFLNK else self._options.file_mode
