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


class Chunk:
    """A verified chunk, mapped read-only. It stays readable when it is evicted meanwhile.

    Costs a file descriptor until it is closed: keep a bounded number open.
    """

    __slots__ = ("_mapping", "view")

    def __init__(self, descriptor: int, size: int) -> None:
        self._mapping = mmap.mmap(descriptor, size + TRAILER_SIZE, prot=mmap.PROT_READ)
        self.view = memoryview(self._mapping)[:size]
        """Exactly the data."""

    def close(self) -> None:
        """Give the mapping back, as soon as the last slice of `view` that somebody holds is gone."""
        with suppress(BufferError):
            self.view.release()
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
