"""Directories that last as long as their owner: removed when it closes them, or by the next owner after a crash."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "transient-"


class TransientDirectory:
    """A new directory below `parent`, 0700. What dead owners left beside it is removed first."""

    def __init__(self, parent: Path) -> None:
        for sibling in parent.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(sibling)
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
            # The lock says that the owner lives. Another owner may have found the directory just before it was taken.
            with suppress(FileNotFoundError):
                self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
                if self.path.exists():
                    return
                os.close(self._descriptor)

    def remove(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _remove_if_abandoned(directory: Path) -> None:
    with suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
        finally:
            os.close(descriptor)
