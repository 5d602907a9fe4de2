"""Reading one version through one handle: cached chunks at once, the rest when its chunk arrives."""

from __future__ import annotations

from collections import OrderedDict

from mscfs.cache.files import Chunk
from mscfs.types import ByteRange
from mscfs.vfs.fetcher import Fetcher, PinnedObject
from mscfs.vfs.readahead import Window

OPEN_CHUNKS = 4
"""Chunks a handle keeps mapped: the kernel's read-ahead comes back to the last few."""


class ChunkReader:
    """The reads of one handle. All chunks are of the pinned version (R1)."""

    def __init__(self, fetcher: Fetcher, target: PinnedObject) -> None:
        self.target = target
        self._fetcher = fetcher
        self._window = Window(target.chunk_size)
        self._open: OrderedDict[int, Chunk] = OrderedDict()

    async def read(self, offset: int, size: int) -> bytes | memoryview:
        """Exactly the bytes asked for, short only at the end of the object.

        Everything cached is answered without giving way to another task.
        """
        wanted = ByteRange(offset, size).clip(self.target.version.size)
        if not wanted.size:
            return b""
        chunk_size = self.target.chunk_size
        first, last = wanted.offset // chunk_size, (wanted.end - 1) // chunk_size
        pieces = [self._cached(index) for index in range(first, last + 1)]
        self._read_ahead(wanted, stalled=any(piece is None for piece in pieces))
        if None in pieces:
            self._fetcher.start(self.target, first, last - first + 1, foreground=True)
        views = [
            piece if piece is not None else await self._fetched(index)
            for index, piece in enumerate(pieces, start=first)
        ]
        begin, end = wanted.offset - first * chunk_size, wanted.end - first * chunk_size
        if len(views) == 1:
            return views[0][begin:end]
        views[0] = views[0][begin:]
        views[-1] = views[-1][: wanted.end - last * chunk_size]
        return b"".join(views)

    def start(self) -> None:
        """Begin to fetch a small object before the first read asks for it; nothing ever reads an empty one."""
        if self.target.chunk_count == 1:
            self._fetcher.start(self.target, 0, 1, foreground=True)
        elif self.target.chunk_count == 0:
            self._fetcher.look(self.target)

    def close(self) -> None:
        """Let go of all chunks; each is unmapped when its last view, perhaps an answer under way, is gone."""
        self._open.clear()

    def _read_ahead(self, wanted: ByteRange, *, stalled: bool) -> None:
        ahead = self._window.advance(wanted, stalled=stalled)
        if ahead is not None:
            self._fetcher.start(self.target, ahead[0], ahead[1], foreground=False)

    def _cached(self, index: int) -> memoryview | None:
        chunk = self._open.get(index)
        if chunk is None:
            chunk = self._fetcher.cached(self.target, index)
            if chunk is None:
                return None
            self._keep(index, chunk)
        return chunk.view

    async def _fetched(self, index: int) -> memoryview:
        chunk = await self._fetcher.chunk(self.target, index)
        if isinstance(chunk, bytes):
            return memoryview(chunk)
        known = self._open.get(index)
        if known is not None:  # another read of this handle was first
            return known.view
        self._keep(index, chunk)
        return chunk.view

    def _keep(self, index: int, chunk: Chunk) -> None:
        self._open[index] = chunk
        while len(self._open) > OPEN_CHUNKS:
            self._open.popitem(last=False)
