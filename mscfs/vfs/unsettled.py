"""Names that an ended mount left between two states, and that recovery has still to settle (W4, W7, W8).

A mount answers before that is over, if it takes long. What the primary says of such a name meanwhile is not what it
will say, and what a program did with it in between would be taken for what the ended mount had left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable


class Unsettled:
    """See the module. A name is a key, that of a directory ends with `/`. May be changed from another thread."""

    def __init__(self) -> None:
        self._names: Counter[str] = Counter()
        """Names, and the directories that they are in."""
        self._trees: Counter[str] = Counter()
        """Directories, with all that is below them."""

    def __bool__(self) -> bool:
        return bool(self._names)

    def add(self, names: Iterable[str]) -> None:
        """These have to be settled."""
        for name in names:
            self._names.update((name, _directory_of(name)))
            if name.endswith("/"):
                self._trees[name] += 1

    def settle(self, names: Iterable[str]) -> None:
        """These have been, or it was given up."""
        for name in names:
            for counter, key in ((self._names, name), (self._names, _directory_of(name)), (self._trees, name)):
                counter[key] -= 1
                if counter[key] <= 0:
                    del counter[key]

    def concerns(self, key: str) -> bool:
        """Whether a file, or what is directly in a directory, may be about to change."""
        return key in self._names or any(key.startswith(tree) for tree in list(self._trees))

    def is_below(self, directory: str) -> bool:
        """Whether anything is unsettled in a directory or below it."""
        return self.concerns(directory) or any(name.startswith(directory) for name in list(self._names))


def _directory_of(name: str) -> str:
    return name[: name.rstrip("/").rfind("/") + 1]
