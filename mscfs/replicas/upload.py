"""A multipart upload to the primary whose completion is followed by the wishes to replicate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mscfs.providers.base import MultipartUpload
from mscfs.types import ByteRange, ObjectMetadata, Version


class ReplicatedUpload(MultipartUpload):
    """Passes everything to the primary's upload; `replicate` is called with what `complete` returned."""

    def __init__(self, upload: MultipartUpload, replicate: Callable[[ObjectMetadata], None]) -> None:
        self._upload = upload
        self._replicate = replicate
        self.token = upload.token

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        """Send a part to the primary."""
        self._upload.put_part(number, data)

    def put_slice(self, number: int, path: Path, part: ByteRange) -> None:
        """Send a part that lies in a local file to the primary."""
        self._upload.put_slice(number, path, part)

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        """Make the object appear on the primary and record the wishes."""
        metadata = self._upload.complete(if_absent=if_absent, expected=expected)
        self._replicate(metadata)
        return metadata

    def abort(self) -> None:
        """Throw the parts away."""
        self._upload.abort()
