"""Uploads to S3 in parts, and copies in parts of what is too large for one request."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mscfs.config.values import GIB, MIB
from mscfs.errors import StorageError
from mscfs.providers.base import LARGEST_PART_IN_MEMORY, MultipartUpload, Source
from mscfs.providers.s3_sdk import SdkClient
from mscfs.providers.slices import FileSlice, WholeBody
from mscfs.providers.sources import open_local, read_parts
from mscfs.types import ByteRange, ObjectMetadata, Version

MAX_PARTS = 10_000
LARGEST_PART = 5 * GIB
_SMALLEST_PART = 5 * MIB
_logger = logging.getLogger(__name__)


class S3Upload(MultipartUpload):
    """One upload. `put_part` may be called from several threads.

    Parts that are never completed, be it after a crash or a failed `abort`, are no object and in no listing; a
    lifecycle rule of the bucket can throw them away.
    """

    def __init__(self, sdk: SdkClient, key: str, created: Mapping[str, Any]) -> None:
        self._sdk = sdk
        self._connection = sdk.connection
        self._key = key
        with self._connection.errors(key):
            upload = self._connection.client.create_multipart_upload(**sdk.named(key), **created)
            self.token = str(upload["UploadId"])
        self._created = created
        self._upload = {**sdk.named(key), "UploadId": self.token}
        self._parts: dict[int, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._is_open = True

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        self._put(number, WholeBody(data), len(data))

    def put_slice(self, number: int, path: Path, part: ByteRange) -> None:
        with open_local(path, store=self._connection.profile, key=self._key) as (file, _):
            content = FileSlice(file.fileno(), part)
            # It is hashed and then sent: what is not too large is read once.
            body = WholeBody(content.read_all()) if part.size <= LARGEST_PART_IN_MEMORY else content
            self._put(number, body, part.size)

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        if not self._parts:
            self.put_part(1, b"")
        parts = sorted(self._parts.items())
        listed = {"Parts": [{"PartNumber": number, "ETag": etag} for number, (etag, _) in parts]}
        self._sdk.verify(self._key, if_absent=if_absent, expected=expected)
        condition = self._sdk.condition(self._key, if_absent=if_absent, expected=expected)
        with self._connection.errors(self._key, if_absent=if_absent, replacing=expected is not None):
            answer = self._connection.client.complete_multipart_upload(
                **self._upload, **condition, MultipartUpload=listed
            )
        self._is_open = False
        return self._sdk.confirm(self._key, sum(size for _, (_, size) in parts), answer, self._created)

    def abort(self) -> None:
        if self._is_open:
            self._sdk.abort_upload(self._key, self.token)
            self._is_open = False

    @contextmanager
    def aborted_on_failure(self) -> Iterator[None]:
        """A failure of what is done inside throws the parts away."""
        try:
            yield
        except BaseException:
            try:
                self.abort()
            except StorageError as error:
                _logger.warning("%s: parts of %s stay behind: %s", self._connection.profile, self._key, error.message)
            raise

    def put_source(self, source: Source, part_size: int, threads: int) -> None:
        """Send a source: a local file with several threads, the rest in order. One part of it is in memory."""
        if isinstance(source, Path):
            with open_local(source, store=self._connection.profile, key=self._key) as (file, size):
                ranges = list(_cut(size, part_size))
                _in_parallel(lambda at: self._put(at[0], FileSlice(file.fileno(), at[1]), at[1].size), ranges, threads)
            return
        for number, part in enumerate(read_parts(source, part_size, store=self._connection.profile, key=self._key), 1):
            self.put_part(number, part)

    def copy_source(self, source: Mapping[str, Any], size: int, part_size: int, threads: int) -> None:
        """Copy another object on the server; `source` are the parameters that name and pin it."""

        def copy(at: tuple[int, ByteRange]) -> None:
            number, part = at
            with self._connection.errors(self._key):
                answer = self._connection.client.upload_part_copy(
                    **self._upload,
                    **source,
                    PartNumber=number,
                    CopySourceRange=f"bytes={part.offset}-{part.end - 1}",
                )
                self._sent(number, answer["CopyPartResult"]["ETag"], part.size)

        _in_parallel(copy, list(_cut(size, part_size)), threads)

    def _put(self, number: int, body: WholeBody | FileSlice, size: int) -> None:
        with self._connection.errors(self._key):
            answer = self._connection.client.upload_part(**self._upload, PartNumber=number, Body=body)
            self._sent(number, answer["ETag"], size)

    def _sent(self, number: int, etag: str, size: int) -> None:
        with self._lock:
            self._parts[number] = (etag, size)


def part_size_for(size: int, wanted: int) -> int:
    """The size of parts, `wanted` where S3 takes it, that makes an object of `size` bytes possible."""
    return max(min(wanted, LARGEST_PART), _SMALLEST_PART, -(-size // MAX_PARTS))


def _cut(size: int, part_size: int) -> Iterator[tuple[int, ByteRange]]:
    for number, offset in enumerate(range(0, size, part_size), start=1):
        yield number, ByteRange(offset, part_size).clip(size)


def _in_parallel(
    work: Callable[[tuple[int, ByteRange]], None], parts: list[tuple[int, ByteRange]], threads: int
) -> None:
    pool = ThreadPoolExecutor(min(threads, len(parts)) or 1)
    try:
        for _ in pool.map(work, parts):
            pass
    finally:
        # What has not begun is not begun any more after a failure.
        pool.shutdown(cancel_futures=True)
