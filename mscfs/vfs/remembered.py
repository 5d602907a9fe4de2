"""Attributes that were set on this mount, of names nobody refers to any more (W9).

An inode knows what was set on it. When the kernel forgets it, and the store keeps no attributes, they come here, and go
back to the next inode of that name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mscfs.vfs.inodes import Inode
from mscfs.vfs.overrides import NO_OVERRIDES, Overrides

LIMIT = 250_000
"""Names that are remembered, about 300 bytes each; those whose directories came here first are forgotten first."""


class Remembered:
    """See the module."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._directories: dict[str, dict[bytes, tuple[Overrides, str]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def below(self, directory: str) -> Mapping[bytes, object]:
        """The names in a directory of which something is remembered."""
        return self._directories.get(directory, {})

    def keep(self, inode: Inode) -> bool:
        """An inode with a name is going; whether there was anything to remember."""
        if inode.overrides == NO_OVERRIDES or inode.parent is None:
            return False
        names = self._directories.setdefault(inode.parent.key, {})
        self._count += inode.raw_name not in names
        names[inode.raw_name] = inode.overrides, _token(inode)
        while self._count > self._limit:
            self._drop_oldest()
        return True

    def recall(self, inode: Inode) -> None:
        """Give a new inode, whose metadata are known, what was set on its name."""
        assert inode.parent is not None
        found = self._pop(inode.parent.key, inode.raw_name)
        if found is not None:
            overrides, token = found
            # Other content has times of its own.
            inode.overrides = overrides if token == _token(inode) else _without_times(overrides)

    def forget(self, directory: str, name: bytes) -> None:
        """A name was taken away."""
        self._pop(directory, name)

    def moved(self, source: str, target: str) -> None:
        """A directory has another key."""
        for directory in [key for key in self._directories if key.startswith(source)]:
            names = self._directories.pop(directory)
            new = target + directory[len(source) :]
            self._count -= len(self._directories.get(new, {}))
            self._directories[new] = names

    def _pop(self, directory: str, name: bytes) -> tuple[Overrides, str] | None:
        names = self._directories.get(directory)
        found = names.pop(name, None) if names is not None else None
        if found is not None:
            self._count -= 1
            if not names:
                del self._directories[directory]
        return found

    def _drop_oldest(self) -> None:
        directory = next(iter(self._directories))
        self._pop(directory, next(iter(self._directories[directory])))


def _without_times(overrides: Overrides) -> Overrides:
    return replace(overrides, atime_ns=None, mtime_ns=None, is_time_chosen=False)


def _token(inode: Inode) -> str:
    return "" if inode.metadata is None or inode.is_directory else inode.metadata.version.token
