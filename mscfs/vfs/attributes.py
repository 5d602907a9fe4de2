"""What stat(2) says of an inode."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, replace
from typing import NamedTuple

from mscfs.config.values import MscfsOptions
from mscfs.providers.page import DIRECTORY, Detail
from mscfs.types import to_ns
from mscfs.vfs.entries import GONE, Entries
from mscfs.vfs.inodes import MODES, Inode
from mscfs.vfs.kept import NOTHING, Kept, read_kept


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
    """Puts together the store's word, what was set on this mount, and the options' defaults.

    `reads_kept`: the store's word includes what user metadata tell (`preserve_attributes`).
    """

    def __init__(self, options: MscfsOptions, *, reads_kept: bool = False) -> None:
        self.reads_kept = reads_kept
        self._options = options
        self._uid = os.geteuid() if options.uid is None else options.uid
        self._gid = os.getegid() if options.gid is None else options.gid
        self.started_ns = time.time_ns()

    def of(self, inode: Inode, timeout: float) -> Attributes:
        """The attributes of an inode now."""
        overrides, told = inode.overrides, self._told(inode)
        mtime_ns = next((ns for ns in (overrides.mtime_ns, told.mtime_ns) if ns is not None), self.started_ns)
        return Attributes(
            number=inode.number,
            size=inode.size,
            links=0 if inode.detached else 1,
            atime_ns=mtime_ns if overrides.atime_ns is None else overrides.atime_ns,
            mtime_ns=mtime_ns,
            ctime_ns=max(mtime_ns, overrides.ctime_ns) if overrides.ctime_ns else mtime_ns,
            timeout=timeout,
            **self._owned(
                inode.kind,
                told.mode if overrides.mode is None else overrides.mode,
                told.uid if overrides.uid is None else overrides.uid,
                told.gid if overrides.gid is None else overrides.gid,
            )._asdict(),
        )

    def listed(self, entries: Entries, slot: int, timeout: float) -> Attributes:
        """The attributes of what was only listed."""
        kind, detail = entries.kinds[slot], entries.details[slot]
        mtime_ns = self._time(MODES[kind], entries.modified[slot])
        ownership = self.ownership(kind, detail)
        if self.reads_kept and detail is not None and detail.metadata:
            kept = read_kept(detail.metadata, directory=kind == DIRECTORY)
            ownership = self._owned(MODES[kind], kept.mode, kept.uid, kept.gid)
            mtime_ns = mtime_ns if kept.mtime_ns is None else kept.mtime_ns
        return Attributes(
            number=entries.number(slot),
            size=entries.size(slot),
            links=0 if entries.states[slot] & GONE else 1,
            atime_ns=mtime_ns,
            mtime_ns=mtime_ns,
            ctime_ns=mtime_ns,
            timeout=timeout,
            **ownership._asdict(),
        )

    def ownership(self, kind: int, detail: Detail | None) -> Ownership:
        """Mode, owner and group of a kind of entry with what the store itself tells about it."""
        if detail is None:
            return self._owned(MODES[kind], None, None, None)
        return self._owned(MODES[kind], detail.mode, detail.uid, detail.gid)

    def _time(self, kind: int, mtime_ns: int) -> int:
        """A time that a store told; of a directory, 0 means that it told none."""
        return mtime_ns or (self.started_ns if kind == stat.S_IFDIR else 0)

    def _told(self, inode: Inode) -> Kept:
        metadata = inode.metadata
        if metadata is None:
            return NOTHING
        mtime_ns = self._time(inode.kind, metadata.modified_ns or to_ns(metadata.last_modified))
        if not self.reads_kept or inode.kind == stat.S_IFLNK:
            return Kept(metadata.mode, metadata.uid, metadata.gid, mtime_ns)
        kept = read_kept(metadata.metadata, directory=inode.is_directory)
        return replace(kept, mtime_ns=mtime_ns) if kept.mtime_ns is None else kept

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
