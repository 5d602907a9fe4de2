"""Staging files: the local copy of a file that is being written."""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path

from mscfs.directories import private
from mscfs.errors import NoSpaceError
from mscfs.journal import UploadMode
from mscfs.types import Version
from mscfs.vfs.staging_log import Staged, StagedState, StagingLog
from mscfs.vfs.streams import Stream

LEFT_FREE = 4 << 20
"""Bytes of the disk that staging leaves to the journal: a full one could not record what would make room again."""


class StagingFile:
    """One file's content while it is written, and until its last handle closes.

    `base` is the version it was made from; `mode` says how it may be put: `replace` (last writer wins), `update` (only
    onto `base`). `log` tells whoever comes after a crash which bytes of it the primary may lack.
    """

    def __init__(self, path: Path, log: StagingLog, key: str, mode: UploadMode, base: Version | None) -> None:
        self.path = path
        self.fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._log = log
        self._is_sending = False
        self._is_unwanted = False
        self.key = key
        """The key it is written to, as far as its name tells; `sending` is told the one that counts."""
        self.mode: UploadMode = mode
        self.base = base
        self.changes = 0
        """Grows with every change; tells whether an upload saw the last one."""
        self.dirty = False
        self.kept = False
        """Its upload failed: it stays on disk for the next mount or a person, whatever happens here."""
        self.in_doubt = False
        """An upload failed in such a way that the primary may hold it all the same."""
        self.size = 0
        self.row: int | None = None
        """Its row in the journal, once an upload failed."""
        self.stream: Stream | None = None
        """Parts of it that are on their way already."""
        self._written_to: int | None = 0
        """It was written from its beginning up to here, since it was last sent; None once that is of no use."""

    @property
    def in_order(self) -> int:
        """The bytes from its beginning that a stream may send; 0 when it was not written in order."""
        return self._written_to or 0

    def read(self, offset: int, size: int) -> bytes:
        """Bytes from `offset`, short at the end of the file."""
        return os.pread(self.fd, size, offset)

    def write(self, offset: int, data: bytes | memoryview) -> int:
        """Write; raises OSError ENOSPC when the disk is full (nothing before it is lost)."""
        self.touch()
        self._disturb(offset)
        written = os.pwrite(self.fd, data, offset)
        self.size = max(self.size, offset + written)
        if self._written_to is not None and offset <= self._written_to:
            self._written_to = max(self._written_to, offset + written)
        return written

    def truncate(self, size: int) -> None:
        """Cut or extend with zeros."""
        self.touch()
        self._disturb(size)
        os.ftruncate(self.fd, size)
        self.size = size
        if self._written_to is not None:
            self._written_to = min(self._written_to, size)

    def touch(self) -> None:
        """Mark as changed; raises OSError when that cannot be noted on disk."""
        if not self.dirty or self._is_sending:
            self._note("writing")
            self.dirty, self._is_sending = True, False
        self.changes += 1

    def sending(self, key: str) -> None:
        """It is complete, and on its way to `key`; raises OSError when that cannot be noted on disk."""
        self.key = key
        self._is_sending = True
        self._note("sending")

    def renamed(self, key: str) -> None:
        """It is going to be the content of `key`; raises OSError when that cannot be noted on disk."""
        self.key = key
        if self.dirty:
            self._note("writing")
            self._is_sending = False

    def drop(self) -> None:
        """Its name is gone: nobody misses it after a crash."""
        self.end_stream()
        with contextlib.suppress(OSError):
            self._note("sent")
        self._is_unwanted = True

    def end_stream(self) -> None:
        """Give up the stream, for as long as the file is not sent as a whole: what is sent twice is no gain."""
        self._written_to = None
        if self.stream is not None:
            self.stream.abandon()
            self.stream = None

    def _disturb(self, offset: int) -> None:
        """Bytes from `offset` change: what was sent of them would be a mixture (W3)."""
        if self.stream is not None and offset < self.stream.end:
            self.end_stream()

    def filling(self) -> None:
        """It is going to be filled by path, with what the primary holds; raises OSError if that cannot be noted."""
        self._note("sent")

    def filled(self) -> None:
        """Take over the size of a file that was written by path."""
        self.size = os.fstat(self.fd).st_size

    def uploaded(self, version: Version, changes: int) -> None:
        """The primary holds what was there at `changes`. From now on only onto that version."""
        self.base, self.mode, self.in_doubt = version, "update", False
        self.stream, self._written_to = None, 0
        if self.changes == changes:
            self.dirty = self._is_sending = False
            with contextlib.suppress(OSError):  # after a crash the primary is compared with it
                self._note("sent")

    def sync(self) -> None:
        """Force content and name to disk (blocking)."""
        os.fsync(self.fd)
        directory = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Close, and remove the file unless its upload failed."""
        self.end_stream()
        os.close(self.fd)
        self.fd = -1
        if not self.kept:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()
            self._log.forget(self.path.name)

    def _note(self, state: StagedState) -> None:
        if not self._is_unwanted:
            self._log.write(Staged.of(self.path.name, state, self.key, self.mode, self.base))


def staging_directories(journal: Path) -> Path:
    """Where the staging directories of all processes are, beside the journal of their profile."""
    return journal.parent / "staging"


class StagingArea:
    """The directory of one process's staging files. `limit` bounds their bytes; 0 leaves it to the disk."""

    def __init__(self, directory: Path, limit: int = 0) -> None:
        self.directory = private(directory)
        self._limit = limit
        self._log = StagingLog(directory)
        self._numbers = itertools.count(1)
        self._files: set[StagingFile] = set()

    def create(self, key: str, mode: UploadMode, base: Version | None) -> StagingFile:
        """A new, empty staging file; raises OSError when the disk is full."""
        staging = StagingFile(self.directory / f"{next(self._numbers):08d}", self._log, key, mode, base)
        self._files.add(staging)
        return staging

    def reserve(self, staging: StagingFile, end: int, size: int = 0) -> None:
        """Make sure that `staging` may grow to `end` bytes, of which `size` are written now.

        Raises NoSpaceError when the limit is reached, or the disk has little room beside: what the journal needs.
        """
        if self._limit and end > staging.size and self.bytes - staging.size + end > self._limit:
            raise NoSpaceError(f"the staging limit of {self._limit} bytes is reached: wait for uploads or raise it")
        if size:
            disk = os.fstatvfs(staging.fd)
            if disk.f_bavail * disk.f_frsize < size + LEFT_FREE:
                raise NoSpaceError(f"the disk under {self.directory} has less than {LEFT_FREE} bytes free")

    def discard(self, staging: StagingFile) -> None:
        """Close a staging file that is not needed any more."""
        self._files.discard(staging)
        staging.close()

    def close(self) -> None:
        """Remove what the primary holds; the rest stays on disk for the next mount."""
        for staging in list(self._files):
            staging.kept = staging.kept or staging.dirty
            self.discard(staging)
        with contextlib.suppress(OSError):
            self._log.close()
            self.directory.rmdir()

    @property
    def bytes(self) -> int:
        """Bytes of all staging files of this process."""
        return sum(staging.size for staging in self._files)

    @property
    def files(self) -> int:
        """Number of staging files of this process."""
        return len(self._files)
