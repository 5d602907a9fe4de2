"""Is this the directory that was the base before? An unmounted disk leaves an empty one in its place (contract L6)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from mscfs.directories import digest, private, state_directory, write_private
from mscfs.errors import StoreMissingError

_Place = tuple[int, int]
"""Device and inode."""


class KnownBase:
    """Remembers where the base last was when something was in it, in the state directory: for every process, and later.

    A base that is empty, and lies on another device, is the mountpoint of a disk that is not mounted: to take it for
    the store would mean that everything was deleted, and what is written would be hidden once the disk is back. By
    its inode alone a disk is known again whose device got another number; a base that was made anew, on the same
    device, is somebody's wish. Thread-safe.
    """

    def __init__(self, path: str, *, store: str) -> None:
        self._path = path
        self._store = store
        self._place: _Place | None = None

    def check(self, descriptor: int) -> None:
        """Raise StoreMissingError when the opened base is such a mountpoint."""
        status = os.fstat(descriptor)
        place = status.st_dev, status.st_ino
        if place == self._place:
            return
        before = self._read() or self._place
        if place != before:
            if _is_empty(descriptor):
                if before is not None and place[0] != before[0] and place[1] != before[1]:
                    message = f"{self._path} is empty and lies on another disk than before: is the disk mounted?"
                    raise StoreMissingError(f"{message} (a new, empty one counts with a file in it)", store=self._store)
                return
            self._write(place)
        self._place = place

    def _read(self) -> _Place | None:
        with suppress(OSError, RuntimeError, ValueError):
            device, inode = self._file().read_text().split()
            return int(device), int(inode)
        return None

    def _write(self, place: _Place) -> None:
        # Without a state directory this process alone remembers.
        with suppress(OSError, RuntimeError):
            write_private(self._file(), "{} {}".format(*place))

    def _file(self) -> Path:
        return private(state_directory() / "bases") / digest(self._path)


def _is_empty(descriptor: int) -> bool:
    with os.scandir(descriptor) as entries:
        return next(entries, None) is None
