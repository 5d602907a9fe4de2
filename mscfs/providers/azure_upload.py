"""Uploads to Azure in blocks: staged in any order, invisible, and committed as a whole."""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from azure.storage.blob import BlobBlock, BlobClient, ContentSettings

from mscfs.config.values import MIB
from mscfs.providers.azure_connection import AzureConnection, condition
from mscfs.providers.azure_metadata import object_metadata
from mscfs.providers.base import LARGEST_PART_IN_MEMORY, MultipartUpload
from mscfs.providers.keys import with_symlink
from mscfs.providers.slices import FileSlice
from mscfs.providers.sources import open_local
from mscfs.types import ByteRange, ObjectMetadata, Version

MAX_BLOCKS = 50_000
LARGEST_BLOCK = 4000 * MIB


class BlockUpload(MultipartUpload):
    """One upload. `put_part` may be called from several threads.

    Blocks that are never committed, be it after `abort` or a crash, are no object and in no listing; the service
    drops them after a week, or when another upload of the same key ends.
    """

    def __init__(
        self,
        connection: AzureConnection,
        key: str,
        blob_name: str,
        *,
        metadata: dict[str, str],
        content_type: str,
        validate: bool,
    ) -> None:
        self._connection = connection
        self._key = key
        self._blob_name = blob_name
        self._metadata = metadata
        self._content_type = content_type
        self._validate = validate
        self._token = uuid.uuid4().hex[:16]
        self._sizes: dict[int, int] = {}
        self._lock = threading.Lock()

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        self._stage(number, bytes(data), len(data))

    def put_slice(self, number: int, path: Path, part: ByteRange) -> None:
        if part.size <= LARGEST_PART_IN_MEMORY:
            super().put_slice(number, path, part)
            return
        with open_local(path, store=self._connection.profile, key=self._key) as (file, _):
            self._stage(number, FileSlice(file.fileno(), part), part.size)

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        return self._commit(None, if_absent=if_absent, expected=expected)

    def put_blocks(
        self, parts: Iterator[bytes | memoryview], *, if_absent: bool, expected: Version | None
    ) -> ObjectMetadata:
        """Send a source part by part, with the MD5 of the whole, which the service does not find out by itself."""
        md5 = hashlib.md5(usedforsecurity=False)
        for number, part in enumerate(parts, start=1):
            md5.update(part)
            self.put_part(number, part)
        return self._commit(md5.digest(), if_absent=if_absent, expected=expected)

    def put_whole(self, body: bytes, *, if_absent: bool, expected: Version | None) -> ObjectMetadata:
        """Send a small object in one request."""
        with self._connection.errors(self._key, if_absent=if_absent):
            answer = self._blob.upload_blob(
                body,
                overwrite=True,
                metadata=self._metadata,
                content_settings=ContentSettings(content_type=self._content_type),
                validate_content=self._validate,
                **condition(if_absent=if_absent, expected=expected),
            )
            return self._describe(answer, len(body), hashlib.md5(body, usedforsecurity=False).digest())

    def _stage(self, number: int, body: bytes | FileSlice, size: int) -> None:
        with self._connection.errors(self._key):
            # An empty block is refused; it adds nothing.
            if size:
                self._blob.stage_block(self._block(number), body, length=size, validate_content=self._validate)
        with self._lock:
            self._sizes[number] = size

    def _commit(self, md5: bytes | None, *, if_absent: bool, expected: Version | None) -> ObjectMetadata:
        blocks = [BlobBlock(self._block(number)) for number, size in sorted(self._sizes.items()) if size]
        with self._connection.errors(self._key, if_absent=if_absent):
            answer = self._blob.commit_block_list(
                blocks,
                content_settings=ContentSettings(
                    content_type=self._content_type, content_md5=bytearray(md5) if md5 else None
                ),
                metadata=self._metadata,
                **condition(if_absent=if_absent, expected=expected),
            )
            return self._describe(answer, sum(self._sizes.values()), md5)

    def _describe(self, answer: Mapping[str, Any], size: int, md5: bytes | None) -> ObjectMetadata:
        return with_symlink(
            object_metadata(
                self._key,
                size=size,
                last_modified=answer["last_modified"],
                etag=answer["etag"],
                metadata=self._metadata,
                content_type=self._content_type,
                content_md5=md5,
            )
        )

    def abort(self) -> None:
        """Forget the blocks: the service has no call that takes them away."""
        self._sizes.clear()

    @property
    def _blob(self) -> BlobClient:
        return self._connection.container.get_blob_client(self._blob_name)

    def _block(self, number: int) -> str:
        # All names of blocks of one blob must be equally long.
        return f"{self._token}{number:05d}"


def block_size_for(size: int, wanted: int) -> int:
    """The size of blocks, `wanted` where the service takes it, that makes an object of `size` bytes possible."""
    return max(min(wanted, LARGEST_BLOCK), -(-size // MAX_BLOCKS))
