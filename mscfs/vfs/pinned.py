"""One version of one key: what a handle reads (contract R1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mscfs.cache.files import ChunkId
from mscfs.types import Version


@dataclass(frozen=True, slots=True)
class PinnedObject:
    """A version of a key, cut into chunks. `digest` names both, as in `mscfs.cache.chunks.object_digest`."""

    key: str
    version: Version
    digest: str
    chunk_size: int

    @property
    def chunk_count(self) -> int:
        """Number of chunks; none for an empty object."""
        return math.ceil(self.version.size / self.chunk_size)

    def chunk_id(self, index: int) -> ChunkId:
        """The name of a chunk in the cache."""
        return ChunkId(self.digest, index)
