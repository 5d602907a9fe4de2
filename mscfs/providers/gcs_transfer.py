"""Bytes from and to Google Cloud Storage through Google's own library."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from google.cloud.storage import Blob

from mscfs.config.values import MIB
from mscfs.errors import NotFoundError, VersionMismatchError
from mscfs.providers.base import ObjectReader, Source, source_size
from mscfs.providers.gcs_connection import GcsConnection
from mscfs.providers.sources import open_local, read_pieces
from mscfs.types import ByteRange, ObjectMetadata

_PIECE = 4 * MIB


class GcsReader(ObjectReader):
    """Reads one generation, range by range. The first is fetched at once, so that its errors are those of `get`."""

    def __init__(self, connection: GcsConnection, blob: Blob, metadata: ObjectMetadata, byte_range: ByteRange) -> None:
        super().__init__(metadata, byte_range, source=connection.profile)
        self._connection = connection
        self._blob = blob
        self._first = self._fetch(byte_range.offset)

    def _pieces(self) -> Iterator[bytes]:
        piece, self._first = self._first, b""
        offset = self.byte_range.offset
        while piece:
            yield piece
            offset += len(piece)
            piece = self._fetch(offset)

    def _fetch(self, offset: int) -> bytes:
        end = min(offset + _PIECE, self.byte_range.end)
        if offset >= end:
            return b""
        try:
            with self._connection.errors(self.metadata.key):
                fetched: bytes = self._blob.download_as_bytes(
                    start=offset,
                    end=end - 1,
                    raw_download=True,
                    timeout=self._connection.timeout,
                    checksum=None,
                    retry=None,
                )
        except NotFoundError as error:
            # The SDK asks for the generation it knows: the object may be there, this version of it is not.
            raise VersionMismatchError("the object has changed", store=error.store, key=error.key) from None
        return fetched


class _SourceFile:
    """A source of pieces as the file the SDK reads from: in order, once."""

    def __init__(self, pieces: Iterator[bytes | memoryview]) -> None:
        self._pieces = pieces
        self._gathered = bytearray()
        self._position = 0

    def read(self, size: int) -> bytes:
        while len(self._gathered) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._gathered += piece
        data = bytes(memoryview(self._gathered)[:size])
        del self._gathered[:size]
        self._position += len(data)
        return data

    def tell(self) -> int:
        return self._position


@contextmanager
def as_file(source: Source, *, store: str, key: str) -> Iterator[tuple[io.BytesIO | _SourceFile, int]]:
    """A source as a file, and its size."""
    if isinstance(source, bytes | memoryview):
        yield io.BytesIO(source), len(source)
    elif isinstance(source, Path):
        with open_local(source, store=store, key=key) as (_, size):
            yield _SourceFile(read_pieces(source, store=store, key=key)), size
    else:
        yield _SourceFile(iter(source)), source_size(source)
