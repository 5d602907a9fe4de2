"""Chunks that are kept open: random readers come back to them, and each is verified once, not at every read."""

from __future__ import annotations

import resource
from collections import OrderedDict

from mscfs.cache.chunks import ChunkCache
from mscfs.cache.files import Chunk, ChunkId

MOST = 1024
"""Chunks kept open. Each costs a descriptor, and pages of the system's cache rather than memory of our own."""
DESCRIPTOR_SHARE = 4
"""At most one part in so many of the descriptors we may have."""
DISK_SHARE = 16
"""At most one part in so many of the cache's bytes: what is open takes room on the disk also when it was evicted."""


class OpenChunks:
    """The chunks of a cache that were used last. Not thread-safe."""

    def __init__(self, cache: ChunkCache, most: int | None = None) -> None:
        self._cache = cache
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = most or max(1, min(MOST, descriptors // DESCRIPTOR_SHARE))
        self._most_bytes = cache.settings.limit // DISK_SHARE
        self._bytes = 0
        self._chunks: OrderedDict[ChunkId, Chunk] = OrderedDict()

    def read(self, name: ChunkId, begin: int, end: int) -> bytes | memoryview | None:
        """Bytes of a chunk, which must lie in it; None for a miss. A disk that fails is a miss.

        A mapped chunk is let go when it is read to its end: a reader of large pieces goes on to the next one, and
        mapped pages count as this process's memory.
        """
        chunk = self._open(name)
        if chunk is None:
            return None
        try:
            data = chunk.read(begin, end)
        except (OSError, ValueError):  # ValueError: cut off since it was verified, there is nothing to map
            data = b""
        if len(data) < end - begin:
            self._forget(name)
            return None
        if isinstance(data, memoryview) and end == chunk.size:
            self._forget(name)
        return data

    def close(self) -> None:
        """Close all."""
        for name in list(self._chunks):
            self._forget(name)

    def _open(self, name: ChunkId) -> Chunk | None:
        """The chunk, verified when it was opened."""
        chunk = self._chunks.get(name)
        if chunk is not None:
            self._chunks.move_to_end(name)
            return chunk
        chunk = self._cache.open(name)
        if chunk is not None:
            self._chunks[name] = chunk
            self._bytes += chunk.size
            while len(self._chunks) > 1 and (len(self._chunks) > self._most or self._bytes > self._most_bytes):
                self._forget(next(iter(self._chunks)))
        return chunk

    def _forget(self, name: ChunkId) -> None:
        chunk = self._chunks.pop(name)
        self._bytes -= chunk.size
        chunk.close()
