"""Uploads to Google Cloud Storage in parts: temporary objects that are composed into one.

The XML API has multipart uploads of its own, but they take no precondition (W5), and a resumable upload takes its
bytes in order only. Composing is atomic, conditional, and takes parts from any thread. The parts live below
`PARTS_DIRECTORY`, which listings leave out, and are deleted when the upload ends. A crash leaves them there: they
hold nothing that was acknowledged, and may be deleted at any time. A bucket with soft delete keeps deleted parts, and
bills them, for as long as its policy says.
"""

from __future__ import annotations

import io
import logging
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from google.cloud.storage import Blob

from mscfs.config.values import MIB
from mscfs.errors import NotFoundError, StorageError
from mscfs.providers.base import LARGEST_PART_IN_MEMORY, MultipartUpload
from mscfs.providers.gcs_connection import GcsConnection, pages_of
from mscfs.providers.slices import FileSlice
from mscfs.providers.sources import open_local
from mscfs.types import ByteRange, ObjectMetadata, Version

PARTS_DIRECTORY = ".mscfs-parts/"
"""Below a profile's base path."""

_MAX_COMPONENTS = 32
"""How many objects one call composes."""

_THREADS = 8
_CHUNK = 16 * MIB
"""Bytes that the SDK holds of a part that goes in several requests."""
_logger = logging.getLogger(__name__)


def is_part(name: str) -> bool:
    """Whether this is the name of a part, below this profile's base path or of a profile within it."""
    return f"/{PARTS_DIRECTORY}" in f"/{name}"


class ComposedUpload(MultipartUpload):
    """One upload. `put_part` may be called from several threads."""

    def __init__(
        self,
        connection: GcsConnection,
        key: str,
        target: Callable[[], Blob],
        *,
        prefix: str,
        describe: Callable[[Blob], ObjectMetadata],
    ) -> None:
        self._connection = connection
        self._key = key
        self._target = target
        self._describe = describe
        self._directory = self.token = f"{prefix}{PARTS_DIRECTORY}{uuid.uuid4().hex}/"
        self._parts: dict[int, str] = {}
        self._temporary: set[str] = set()
        self._lock = threading.Lock()

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        self._send(number, io.BytesIO(data), len(data))

    def put_slice(self, number: int, path: Path, part: ByteRange) -> None:
        if part.size <= LARGEST_PART_IN_MEMORY:
            super().put_slice(number, path, part)
            return
        with open_local(path, store=self._connection.profile, key=self._key) as (file, _):
            self._send(number, FileSlice(file.fileno(), part), part.size)

    def _send(self, number: int, body: io.BytesIO | FileSlice, size: int) -> None:
        name = f"{self._directory}{number:05d}"
        with self._lock:
            self._temporary.add(name)
        with self._connection.errors(self._key):
            self._connection.bucket.blob(name, chunk_size=_CHUNK).upload_from_file(
                body, size=size, timeout=self._connection.timeout, checksum="crc32c", retry=None
            )
        with self._lock:
            self._parts[number] = name

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        condition = self._connection.condition(self._key, if_absent=if_absent, expected=expected)
        names = [name for _, name in sorted(self._parts.items())]
        with self._connection.errors(self._key, if_absent=if_absent):
            if len(names) > _MAX_COMPONENTS:
                with ThreadPoolExecutor(_THREADS) as pool:
                    while len(names) > _MAX_COMPONENTS:
                        groups = [names[at : at + _MAX_COMPONENTS] for at in range(0, len(names), _MAX_COMPONENTS)]
                        names = list(pool.map(self._join, groups))
            target = self._target()
            if names:
                self._compose(target, names, condition)
            else:
                timeout = self._connection.timeout
                target.upload_from_string(b"", if_generation_match=condition, timeout=timeout, retry=None)
            # Before the parts are gone: what goes wrong here is tried again.
            described = self._describe(target)
        try:
            self.abort()
        except StorageError as error:
            profile, directory = self._connection.profile, self._directory
            _logger.warning("%s: temporary objects below %s stay behind: %s", profile, directory, error.message)
        return described

    def abort(self) -> None:
        with self._lock:
            names = sorted(self._temporary)
            self._parts.clear()
        delete_parts(self._connection, self._directory, names)
        with self._lock:
            self._temporary.difference_update(names)

    def _join(self, names: Sequence[str]) -> str:
        """Compose some parts into a larger temporary object."""
        joined = f"{names[0]}+"
        with self._lock:
            self._temporary.add(joined)
        self._compose(self._connection.bucket.blob(joined), names, None)
        return joined

    def _compose(self, target: Blob, names: Sequence[str], condition: int | None) -> None:
        bucket = self._connection.bucket
        target.compose(
            [bucket.blob(name) for name in names],
            if_generation_match=condition,
            timeout=self._connection.timeout,
            retry=None,
        )


def delete_parts(connection: GcsConnection, directory: str, names: Sequence[str] | None = None) -> None:
    """Delete temporary objects: those named, or all below the directory of one upload.

    All are tried; raises the StorageError of one that is left.
    """
    if names is None:
        with connection.errors(directory):
            listing = connection.client.list_blobs(
                connection.bucket, prefix=directory, timeout=connection.timeout, retry=None
            )
            names = [blob.name for page in pages_of(listing) for blob in page]
    if not names:
        return
    with ThreadPoolExecutor(_THREADS) as pool:
        failures = [error for error in pool.map(lambda name: _delete(connection, name), names) if error is not None]
    if failures:
        raise failures[0]


def _delete(connection: GcsConnection, name: str) -> StorageError | None:
    try:
        with connection.errors(name):
            connection.bucket.blob(name).delete(timeout=connection.timeout, retry=None)
    except NotFoundError:
        return None
    except StorageError as error:
        return error
    return None
