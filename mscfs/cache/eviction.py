"""Which chunks go first when the cache is full.

There is no index of all chunks: a cache of a million would make it slow to open and hard to share. Victims are found by
looking into a few shard directories at a time. As consecutive chunks lie in consecutive shards, the oldest quarter of a
sample is close to the oldest quarter of the whole cache; a small cache is sampled whole, and its order is exact.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Policy = Literal["fifo", "lru", "mru", "random", "no_eviction"]

_SAMPLE = 512
"""Chunks looked at before victims are chosen among them."""
_SHARE = 4
"""One in so many of a sample becomes a victim."""


@dataclass(frozen=True, slots=True)
class Victim:
    """A chunk file to evict, and when it was last used (`lru`, `mru`) or written, as it was seen."""

    path: str
    modified_ns: int


_ORDERS: Mapping[str, Callable[[Victim], float]] = {
    "fifo": lambda victim: victim.modified_ns,
    "lru": lambda victim: victim.modified_ns,
    "mru": lambda victim: -victim.modified_ns,
    "random": lambda _: random.random(),  # noqa: S311 - no secret
}


class Victims:
    """A queue of chunks to evict. Threads may share it: at worst they look for victims twice."""

    def __init__(self, shards: Path, policy: Policy) -> None:
        self._shards = shards
        self._policy = policy
        self._queue: deque[Victim] = deque()

    @property
    def heed_use(self) -> bool:
        """Whether a chunk that is read changes its place in the order."""
        return self._policy in ("lru", "mru")

    def pop(self) -> Victim | None:
        """The next victim; None when `refill` must look for more. Cheap."""
        try:
            return self._queue.popleft()
        except IndexError:
            return None

    def refill(self) -> bool:
        """Look for victims on disk (milliseconds); False when there are none or the policy wants none."""
        if self._policy == "no_eviction":
            return False
        sample = sorted(self._sample(), key=_ORDERS[self._policy])
        self._queue = deque(sample[: -(-len(sample) // _SHARE)])
        return bool(sample)

    def _sample(self) -> Iterator[Victim]:
        shards = sorted(chunk_directories(self._shards))
        start = random.randrange(len(shards)) if shards else 0  # noqa: S311 - no secret
        seen = 0
        for shard in shards[start:] + shards[:start]:
            if seen >= _SAMPLE:
                return
            for path, status in chunk_files(shard):
                seen += 1
                yield Victim(path, status.st_mtime_ns)


def chunk_directories(shards: Path) -> list[str]:
    """The shard directories there are; none when the cache directory is gone."""
    try:
        with os.scandir(shards) as entries:
            return [entry.path for entry in entries]
    except OSError:
        return []


def chunk_files(shard: str) -> Iterator[tuple[str, os.stat_result]]:
    """The files of one shard that are still there."""
    try:
        with os.scandir(shard) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    yield entry.path, entry.stat(follow_symlinks=False)
    except OSError:
        return
