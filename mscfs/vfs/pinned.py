"""One version of one key: what a handle reads (contract R1)."""

from __future__ import annotations

import math

from mscfs.cache.chunks import object_digest
from mscfs.cache.files import ChunkId
from mscfs.types import Version


class PinnedObject:
    """A version of a key, cut into chunks. `namespace` is the primary's identity.

    Most opens of a warm epoch are answered by the kernel: what they do not need is not computed.
    """

    __slots__ = ("_digest", "_namespace", "chunk_size", "key", "version")

    def __init__(self, namespace: str, key: str, version: Version, chunk_size: int) -> None:
        self.key = key
        self.version = version
        self.chunk_size = chunk_size
        self._namespace = namespace
        self._digest = ""

    @property
    def digest(self) -> str:
        """The name of this version of this key in caches: `mscfs.cache.chunks.object_digest`."""
        if not self._digest:
            self._digest = object_digest(self._namespace, self.key, self.version, self.chunk_size)
        return self._digest

    @property
    def is_used(self) -> bool:
        """Whether anybody asked for its bytes yet."""
        return bool(self._digest)

    @property
    def chunk_count(self) -> int:
        """Number of chunks; none for an empty object."""
        return math.ceil(self.version.size / self.chunk_size)

    def chunk_id(self, index: int) -> ChunkId:
        """The name of a chunk in the cache."""
        return ChunkId(self.digest, index)
