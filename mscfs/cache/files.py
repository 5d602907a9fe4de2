"""One chunk as a file: its bytes, then a trailer with magic, length and a checksum over the bytes and the name."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import google_crc32c

BLOCK = 4096
"""What a file takes on disk is a multiple of this; the limit counts it so."""

_MAGIC = b"MSCFSCH1"
_TRAILER = struct.Struct("<8sQI")
TRAILER_SIZE = _TRAILER.size

_PIECE = 256 << 10
"""Bytes checked at once: they stay in the processor's cache between the copy and the checksum."""
_PIECES_AT_ONCE = 512
"""Below IOV_MAX of writev(2)."""


@dataclass(frozen=True, slots=True)
class ChunkId:
    """Chunk `index` of the object version that `object_digest` stands for."""

    object_digest: str
    index: int


SMALL_READ = 256 << 10
"""Bytes up to which a read copies: mapping a chunk, and the faults of its pages, cost more."""


class Chunk:
    """A verified chunk. It stays readable when it is evicted meanwhile.

    Takes over the descriptor and costs one until it is closed: keep a bounded number open. Large reads are slices of a
    mapping, which is made for the first of them.
    """

    __slots__ = ("_descriptor", "_mapping", "size")

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self._mapping: mmap.mmap | None = None
        self.size = size

    def read(self, begin: int, end: int) -> bytes | memoryview:
        """The bytes from `begin` up to `end`, which must lie in it. Raises OSError when the disk fails."""
        if self._mapping is None and end - begin <= SMALL_READ:
            return os.pread(self._descriptor, end - begin, begin)
        return self.view[begin:end]

    @property
    def view(self) -> memoryview:
        """Exactly the data."""
        if self._mapping is None:
            self._mapping = mmap.mmap(self._descriptor, self.size + TRAILER_SIZE, prot=mmap.PROT_READ)
            os.close(self._descriptor)  # the mapping has one of its own
            self._descriptor = -1
        return memoryview(self._mapping)[: self.size]

    def close(self) -> None:
        """Give it back. Slices that somebody holds stay good; the last of them ends the mapping."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        elif self._mapping is not None:
            with suppress(BufferError):
                self._mapping.close()


def charge(file_size: int) -> int:
    """The bytes a file of that size takes on disk."""
    return -(-file_size // BLOCK) * BLOCK


def _seed(chunk: ChunkId) -> int:
    """The checksum begins with the name, so that a file under another name is no chunk."""
    return int(google_crc32c.value(f"{chunk.object_digest}-{chunk.index}".encode()))


def verified_size(descriptor: int, chunk: ChunkId) -> int | None:
    """The number of data bytes in a good file; None for any other."""
    size = os.fstat(descriptor).st_size - TRAILER_SIZE
    trailer = os.pread(descriptor, TRAILER_SIZE, max(size, 0))
    if trailer[:16] != _TRAILER.pack(_MAGIC, max(size, 0), 0)[:16]:
        return None
    checksum = _seed(chunk)
    for offset in range(0, size, _PIECE):
        # pread, not the mapping: it costs no page faults, and the checksum's library takes bytes only.
        checksum = google_crc32c.extend(checksum, os.pread(descriptor, min(_PIECE, size - offset), offset))
    return size if trailer == _TRAILER.pack(_MAGIC, size, checksum) else None


def write(path: str, chunk: ChunkId, pieces: Sequence[bytes | memoryview]) -> None:
    """Write a chunk file, 0600. Raises OSError and leaves a part behind when the disk is full."""
    checksum = _seed(chunk)
    for piece in pieces:
        for offset in range(0, len(piece), _PIECE):
            checksum = google_crc32c.extend(checksum, bytes(piece[offset : offset + _PIECE]))
    rest = [*pieces, _TRAILER.pack(_MAGIC, sum(map(len, pieces)), checksum)]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while rest:
            written = os.writev(descriptor, rest[:_PIECES_AT_ONCE])
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if written:
                rest[0] = rest[0][written:]
    finally:
        os.close(descriptor)
