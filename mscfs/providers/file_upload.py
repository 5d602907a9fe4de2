"""An upload in parts to a directory: each part a hidden file, put together on completion."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import BinaryIO

from mscfs.providers.base import MultipartUpload
from mscfs.types import ObjectMetadata, Version

Publish = Callable[[Sequence[BinaryIO], bool, Version | None], ObjectMetadata]


class FileUpload(MultipartUpload):
    """Parts are unnamed files in `directory` (same disk as the target): a crash leaves nothing of them."""

    def __init__(self, directory: str, publish: Publish) -> None:
        self._directory = directory
        self._publish = publish
        self._lock = threading.Lock()
        self._parts: dict[int, BinaryIO] = {}

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        """Write one part; a part sent twice replaces the first."""
        part = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115 - closed by complete or abort
        view = memoryview(data)
        offset = 0
        while offset < len(view):
            offset += os.pwrite(part.fileno(), view[offset:], offset)
        with self._lock:
            before = self._parts.get(number)
            self._parts[number] = part
        if before is not None:
            before.close()

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        """Put the parts together, in the order of their numbers."""
        with self._lock:
            parts = [self._parts[number] for number in sorted(self._parts)]
        written = self._publish(parts, if_absent, expected)
        self.abort()
        return written

    def abort(self) -> None:
        """Throw the parts away."""
        with self._lock:
            parts, self._parts = list(self._parts.values()), {}
        for part in parts:
            part.close()
