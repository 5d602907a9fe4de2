"""What stat(2) says of an inode."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass
from typing import NamedTuple

from mscfs.config.values import MscfsOptions
from mscfs.providers.page import Detail
from mscfs.types import to_ns
from mscfs.vfs.entries import GONE, Entries
from mscfs.vfs.inodes import MODES, Inode


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
    ctime_ns: int
    timeout: float


class Ownership(NamedTuple):
    """`mode` with the file type."""

    mode: int
    uid: int
    gid: int


class AttributeMaker:
    """Puts together the store's word, what was set on this mount, and the options' defaults."""

    def __init__(self, options: MscfsOptions) -> None:
        self._options = options
        self._uid = os.geteuid() if options.uid is None else options.uid
        self._gid = os.getegid() if options.gid is None else options.gid
        self.started_ns = time.time_ns()

    def of(self, inode: Inode, timeout: float) -> Attributes:
        """The attributes of an inode now."""
        overrides, metadata = inode.overrides, inode.metadata
        mtime_ns = overrides.mtime_ns
        if mtime_ns is None and metadata is not None:
            mtime_ns = self._told(inode.kind, metadata.modified_ns or to_ns(metadata.last_modified))
        if mtime_ns is None:
            mtime_ns = self.started_ns
        mode, uid, gid = overrides.mode, overrides.uid, overrides.gid
        if metadata is not None:
            mode = metadata.mode if mode is None else mode
            uid = metadata.uid if uid is None else uid
            gid = metadata.gid if gid is None else gid
        return Attributes(
            number=inode.number,
            size=inode.size,
            links=0 if inode.detached else 1,
            atime_ns=mtime_ns if overrides.atime_ns is None else overrides.atime_ns,
            mtime_ns=mtime_ns,
            ctime_ns=max(mtime_ns, overrides.ctime_ns) if overrides.ctime_ns else mtime_ns,
            timeout=timeout,
            **self._owned(inode.kind, mode, uid, gid)._asdict(),
        )

    def listed(self, entries: Entries, slot: int, timeout: float) -> Attributes:
        """The attributes of what was only listed."""
        mtime_ns = self._told(MODES[entries.kinds[slot]], entries.modified[slot])
        return Attributes(
            number=entries.number(slot),
            size=entries.size(slot),
            links=0 if entries.states[slot] & GONE else 1,
            atime_ns=mtime_ns,
            mtime_ns=mtime_ns,
            ctime_ns=mtime_ns,
            timeout=timeout,
            **self.ownership(entries.kinds[slot], entries.details[slot])._asdict(),
        )

    def ownership(self, kind: int, detail: Detail | None) -> Ownership:
        """Mode, owner and group of a kind of entry with what the store tells about it."""
        if detail is None:
            return self._owned(MODES[kind], None, None, None)
        return self._owned(MODES[kind], detail.mode, detail.uid, detail.gid)

    def _told(self, kind: int, mtime_ns: int) -> int:
        """A time that a store told; of a directory, 0 means that it told none."""
        return mtime_ns or (self.started_ns if kind == stat.S_IFDIR else 0)

    def _owned(self, kind: int, mode: int | None, uid: int | None, gid: int | None) -> Ownership:
        return Ownership(
            kind | (self._default_mode(kind) if mode is None else stat.S_IMODE(mode)),
            self._uid if uid is None or self._options.uid is not None else uid,
            self._gid if gid is None or self._options.gid is not None else gid,
        )

    def _default_mode(self, kind: int) -> int:
        if kind == stat.S_IFDIR:
            return self._options.directory_mode
        return 0o777 if kind == stat.S_IFLNK else self._options.file_mode
