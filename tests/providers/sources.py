"""Sources for `put` that behave as badly as real ones do."""

from __future__ import annotations

from collections.abc import Iterator

from mscfs.errors import StoreUnavailableError
from mscfs.providers.base import ObjectReader
from mscfs.types import ByteRange, ObjectMetadata, from_ns


class PiecesReader(ObjectReader):
    """Another store's answer: promises `size` bytes, delivers `pieces`, then ends or fails."""

    def __init__(self, *pieces: bytes, size: int | None = None, failure: Exception | None = None) -> None:
        promised = sum(map(len, pieces)) if size is None else size
        metadata = ObjectMetadata("source", promised, from_ns(0), tag="source")
        super().__init__(metadata, ByteRange(0, promised), source="elsewhere")
        self._content = pieces
        self._failure = failure

    def _pieces(self) -> Iterator[bytes]:
        yield from self._content
        if self._failure is not None:
            raise self._failure


def failing_reader(first: bytes) -> PiecesReader:
    """An answer that breaks after its first bytes."""
    return PiecesReader(first, size=2 * len(first) + 1, failure=StoreUnavailableError("connection lost"))
