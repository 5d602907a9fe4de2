"""What each staging file of a process is, on disk: whoever comes after a kill -9 knows what to do with it (W4).

One file of lines that are only appended. A line tells all there is to know of one staging file, so the last one of each
counts. Appending is one system call and no wait: it outlives the process, not the machine, and nothing was acknowledged
by then. What has to outlive the machine is in the journal.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Literal

import msgspec

from mscfs.journal import UploadMode
from mscfs.types import Version
from mscfs.vfs.paths import to_bytes, to_name

StagedState = Literal["writing", "sending", "sent"]
"""`writing`: nobody closed it yet. `sending`: it is complete, and the primary may lack it. `sent`: nobody needs it any
more."""

LOG = "log"
REWRITE_AT = 1 << 20
"""The log is written anew, without what no longer counts, when it is of so many bytes, and of four times those that
are left."""


class Staged(msgspec.Struct, array_like=True, frozen=True):
    """A line."""

    name: str
    state: StagedState
    raw_key: bytes = b""
    mode: UploadMode = "replace"
    stamp: bytes = b""

    @classmethod
    def of(cls, name: str, state: StagedState, key: str, mode: UploadMode, base: Version | None) -> Staged:
        """What staging file `name` is: content for `key`, to be put as `mode` says, made from `base`."""
        return cls(name, state, to_bytes(key), mode, to_bytes(base.stamp()) if base is not None else b"")

    @property
    def key(self) -> str:
        """The key it is written to."""
        return to_name(self.raw_key)

    @property
    def base(self) -> Version | None:
        """The version it was made from."""
        return Version.from_stamp(to_name(self.stamp))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Staged).decode


class StagingLog:
    """The log of this process, in the directory of its staging files; made when there is something to say."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG
        self._lines: dict[str, bytes] = {}
        self._live = 0
        self._size = 0
        self._descriptor = -1

    def write(self, staged: Staged) -> None:
        """Append a line. Raises OSError (a full disk): then what stood there before still counts."""
        if self._descriptor < 0:
            self._descriptor = _create(self._path)
        # It begins with the end of a line: half of one, which a full disk left, spoils no other.
        line = b"\n" + _encode(staged)
        written = os.write(self._descriptor, line)
        self._size += written
        if written < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.forget(staged.name)
        self._lines[staged.name] = line
        self._live += len(line)
        if self._size > max(REWRITE_AT, 4 * self._live):
            self._rewrite()

    def forget(self, name: str) -> None:
        """The staging file is gone: its lines need not be kept."""
        self._live -= len(self._lines.pop(name, b""))

    def close(self) -> None:
        """Close it, and remove it when no staging file is left."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if not self._lines:
            self._path.unlink(missing_ok=True)

    def _rewrite(self) -> None:
        new = self._path.with_suffix(".new")
        new.unlink(missing_ok=True)
        descriptor = _create(new)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.writelines(self._lines.values())
            new.replace(self._path)
        except OSError:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            # It goes on growing, and the next line tries again.
            return
        os.close(self._descriptor)
        self._descriptor, self._size = descriptor, self._live


def read_log(directory: Path) -> dict[str, Staged]:
    """What the log in a directory says of each staging file; nothing where there is no log."""
    found = {}
    try:
        lines = (directory / LOG).read_bytes().split(b"\n")
    except FileNotFoundError:
        return {}
    for line in lines:
        try:
            staged = _decode(line)
        except msgspec.DecodeError:
            continue  # an empty line, or half of one
        found[staged.name] = staged
    return found


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
