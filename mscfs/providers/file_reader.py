"""Reading an opened file: it may be replaced meanwhile, its bytes stay."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from mscfs.errors import VersionMismatchError
from mscfs.providers.base import ObjectReader
from mscfs.providers.beneath import storage_errors
from mscfs.providers.file_draft import version_of
from mscfs.providers.file_metadata import describe, read_metadata
from mscfs.types import ByteRange

_PIECE = 1 << 20


class FileReader(ObjectReader):
    """Owns the descriptor; the object's metadata are those of the opened file."""

    def __init__(self, descriptor: int, key: str, byte_range: ByteRange | None, *, source: str) -> None:
        self.descriptor = descriptor
        status = os.fstat(descriptor)
        metadata = describe(key, status, metadata=read_metadata(descriptor, status))
        wanted = (byte_range or ByteRange(0, status.st_size)).clip(status.st_size)
        super().__init__(metadata, wanted, source=source)

    def _pieces(self) -> Iterator[bytes | memoryview]:
        offset = self.byte_range.offset
        while offset < self.byte_range.end:
            with storage_errors(store=self.source, key=self.metadata.key):
                piece = os.pread(self.descriptor, min(_PIECE, self.byte_range.end - offset), offset)
                self.check_unchanged()
            if not piece:
                break
            offset += len(piece)
            yield piece

    def check_unchanged(self) -> None:
        """VersionMismatchError when another program has changed the file in place since it was opened (R1)."""
        if version_of(os.fstat(self.descriptor)) != self.metadata.version:
            message = "the file was changed in place while it was read"
            raise VersionMismatchError(message, store=self.source, key=self.metadata.key)

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):  # of a file on another machine; what was read was read
                os.close(descriptor)

    def __del__(self) -> None:
        # An answer that nobody closed must not cost a descriptor for ever.
        self.close()
