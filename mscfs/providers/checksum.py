"""Telling whether a store holds the bytes that were sent to it, without keeping them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Checksum:
    """Size and CRC-32 of some bytes."""

    size: int = 0
    crc: int = 0

    @classmethod
    def of(cls, pieces: Iterable[bytes | memoryview]) -> Self:
        """Of the bytes of all pieces."""
        size = crc = 0
        for piece in pieces:
            size += len(piece)
            crc = crc32(piece, crc)
        return cls(size, crc)


def matches(pieces: Iterable[bytes | memoryview], parts: Iterable[Checksum]) -> bool:
    """Whether the bytes of `pieces` are those of `parts`, one after the other, however either is cut."""
    expected = iter([part for part in parts if part.size])
    part = next(expected, None)
    size = crc = 0
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            if part is None:
                return False
            taken = rest[: part.size - size]
            rest = rest[len(taken) :]
            size += len(taken)
            crc = crc32(taken, crc)
            if size == part.size:
                if crc != part.crc:
                    return False
                part = next(expected, None)
                size = crc = 0
    return part is None
