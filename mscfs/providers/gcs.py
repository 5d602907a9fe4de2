"""Google Cloud Storage.

An object's tag is its generation, which every answer of both APIs carries and every request can be bound to
(`docs/adr/0002-identity-of-gcs-objects.md`). Single objects are read and written by the native client where it can;
listings, which carry user metadata here, and everything else go through Google's own library.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from google.cloud.storage import Blob

from mscfs.config.values import MIB, ProviderConfig
from mscfs.errors import (
    AlreadyExistsError,
    DirectoryNotEmptyError,
    InvalidKeyError,
    NotFoundError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import Capabilities, MultipartUpload, ObjectReader, Source, StorageProvider
from mscfs.providers.gcs_connection import PUBLIC_ENDPOINT, GcsConnection, pages_of
from mscfs.providers.gcs_native import native_client
from mscfs.providers.gcs_transfer import GcsReader, as_file
from mscfs.providers.gcs_upload import ComposedUpload, delete_parts, is_part
from mscfs.providers.keys import check_directory_key, check_length, check_object_key, symlink_metadata, with_symlink
from mscfs.providers.native import LARGEST_PUT, NotUnderstoodError
from mscfs.providers.presence import BucketPresence
from mscfs.providers.sources import in_memory
from mscfs.types import ByteRange, ObjectMetadata, Version, from_ns

_PIECE = 4 * MIB
_CONTENT_TYPE = "application/octet-stream"
_RESERVED = (".well-known/acme-challenge/",)
_ATTEMPTS = 10
"""How often a read or a change of metadata starts anew because the object was replaced meanwhile."""

_KEPT_ON_COPY = ("cache_control", "content_disposition", "content_encoding", "content_language", "content_type")
_EPOCH = from_ns(0)
_FIELDS = "name,size,updated,generation,metageneration,md5Hash,contentType,storageClass,metadata"
_LIST_FIELDS = f"items({_FIELDS}),prefixes,nextPageToken"


class GcsProvider(StorageProvider):
    """One bucket, or what lies below a prefix in it."""

    capabilities = Capabilities(dialect="gcs")

    def __init__(
        self, *, profile: str = "gcs", options: Mapping[str, Any], credentials: ProviderConfig | None = None
    ) -> None:
        bucket, _, prefix = str(options["base_path"]).strip("/").partition("/")
        self.profile = profile
        self._prefix = f"{prefix}/" if prefix else ""
        self._chunk_size = max(1, int(options.get("multipart_chunksize", 32 * MIB)) // (MIB // 4)) * (MIB // 4)
        self._connection = GcsConnection(
            profile=profile,
            bucket=bucket,
            options=options,
            credentials=credentials,
        )
        self._timeout = self._connection.timeout
        self._native = None if options.get("rust_client") is False else native_client(self._connection, self._prefix)
        self._presence = BucketPresence(self.probe)
        place = self._connection.endpoint.removeprefix(PUBLIC_ENDPOINT).rpartition("://")[2]
        self.identity = "gs://" + "/".join(part for part in (place, bucket, prefix) if part)

    def check_new_key(self, key: str) -> None:
        check_length(key, self._prefix, store=self.profile)
        name = self._prefix + key
        if "\n" in name or "\r" in name or name.startswith(_RESERVED) or is_part(name):
            raise InvalidKeyError("Google Cloud Storage cannot hold this key", store=self.profile, key=key)

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        self._connection.condition(key, expected=expected)
        if self._native and self._native.serves(key):
            with suppress(NotUnderstoodError), self._presence.confirmed():
                return self._native.get(key, byte_range, expected=expected)
        for _ in range(_ATTEMPTS):
            with self._connection.errors(key):
                blob = self._find(key, expected)
                described = self._describe(blob)
                wanted = (byte_range or ByteRange(0, described.content_length)).clip(described.content_length)
                try:
                    return GcsReader(self._connection, blob, described, wanted)
                except VersionMismatchError:
                    if expected is not None:
                        raise
        raise StoreUnavailableError("the object is replaced faster than it can be read", store=self.profile, key=key)

    def head(self, key: str) -> ObjectMetadata:
        if self._native and self._native.serves(key):
            with suppress(NotUnderstoodError), self._presence.confirmed():
                return self._native.head(key)
        with self._connection.errors(key):
            return self._describe(self._find(key, None))

    def put(
        self,
        key: str,
        source: Source,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        self._check_key(key)
        self._connection.condition(key, expected=expected)
        source = in_memory(source, LARGEST_PUT, store=self.profile, key=key)
        # The native client signs every write: without credentials it would look for some by itself.
        if self._native and not self._connection.anonymous and self._native.takes(key, source, metadata):
            assert isinstance(source, bytes | memoryview)
            try:
                return self._native.put(
                    key,
                    source,
                    metadata=metadata,
                    content_type=content_type or _CONTENT_TYPE,
                    if_absent=if_absent,
                    expected=expected,
                )
            except NotUnderstoodError:
                # It may be stored already: a condition would now be judged by what we wrote ourselves.
                if if_absent or expected is not None:
                    raise
        return self._put(key, source, metadata, content_type, if_absent=if_absent, expected=expected)

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        self._check_key(key)
        return ComposedUpload(
            self._connection,
            key,
            lambda: self._new_blob(key, metadata, content_type),
            prefix=self._prefix,
            describe=self._describe,
        )

    def abort_upload(self, key: str, token: str) -> None:
        if is_part(token):
            delete_parts(self._connection, token)

    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        self._check_key(target)
        condition = self._connection.condition(source, expected=expected)
        with self._connection.errors(source):
            copied, token = self._blob(target), None
            if metadata is not None:
                found = self._find(source, expected)
                condition = found.generation
                for name in _KEPT_ON_COPY:  # else the copy would have none of them
                    setattr(copied, name, getattr(found, name))
                copied.metadata = dict(metadata)
            while True:
                try:
                    with self._connection.errors(source):
                        token, _, _ = copied.rewrite(
                            self._blob(source),
                            token=token,
                            if_generation_match=0 if if_absent else None,
                            if_source_generation_match=condition,
                            timeout=self._timeout,
                            retry=None,
                        )
                except VersionMismatchError:
                    # The answer does not tell which of the two objects was not as it had to be.
                    if if_absent and (expected is None or self.head(source).version == expected):
                        raise AlreadyExistsError("the object exists", store=self.profile, key=target) from None
                    raise
                if token is None:
                    return self._describe(copied)

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        condition = self._connection.condition(key, expected=expected)
        try:
            with self._connection.errors(key):
                self._blob(key).delete(if_generation_match=condition, timeout=self._timeout, retry=None)
        except NotFoundError:
            return

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        for entry in self._list(prefix, start_after=start_after):
            if entry.key > start_after:
                yield entry

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        for entry in self._list(directory, delimiter="/"):
            if entry.key != directory:
                yield entry

    def has_directory(self, directory: str) -> bool:
        return next(self._list(directory, page_size=2), None) is not None

    def head_marker(self, directory: str) -> ObjectMetadata:
        with self._connection.errors(directory):
            blob = self._blob(directory)
            blob.reload(timeout=self._timeout, retry=None)
            return self._describe(blob)

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        check_directory_key(directory, store=self.profile)
        self.check_new_key(directory)
        self._put(directory, b"", metadata, None)

    def remove_directory(self, directory: str) -> None:
        check_directory_key(directory, store=self.profile)
        for entry in self._list(directory, page_size=2):
            if entry.key != directory:
                raise DirectoryNotEmptyError("the directory is not empty", store=self.profile, key=directory)
        self.delete(directory)

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        for _ in range(_ATTEMPTS):
            with self._connection.errors(key):
                blob = self._find(key, expected)
                # A patch merges: what shall go must be named.
                blob.metadata = {**dict.fromkeys(blob.metadata or {}), **metadata}
                try:
                    with self._connection.errors(key):
                        blob.patch(
                            if_generation_match=blob.generation,
                            if_metageneration_match=blob.metageneration,
                            timeout=self._timeout,
                            retry=None,
                        )
                    return self._describe(blob)
                except VersionMismatchError:
                    continue  # `_find` tells whether it is still the expected version
        raise StoreUnavailableError("the metadata are changed all the time", store=self.profile, key=key)

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        return self.put(key, b"", metadata=symlink_metadata(target))

    def prepare(self) -> None:
        if self._native:
            self._native.prepare()

    def probe(self) -> None:
        next(self._list("", page_size=1), None)

    def close(self) -> None:
        if self._native:
            self._native.close()
        self._connection.close()

    def _blob(self, key: str) -> Blob:
        return self._connection.bucket.blob(self._prefix + key, chunk_size=self._chunk_size)

    def _check_key(self, key: str) -> None:
        check_object_key(key, store=self.profile)
        self.check_new_key(key)

    def _new_blob(self, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> Blob:
        blob = self._blob(key)
        if metadata:
            blob.metadata = dict(metadata)
        blob.content_type = content_type or _CONTENT_TYPE
        return blob

    def _find(self, key: str, expected: Version | None) -> Blob:
        if not key or key.endswith("/"):
            raise NotFoundError("no such object", store=self.profile, key=key)
        blob = self._blob(key)
        condition = self._connection.condition(key, expected=expected)
        blob.reload(if_generation_match=condition, timeout=self._timeout, retry=None)
        return blob

    def _put(
        self,
        key: str,
        source: Source,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
        *,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        condition = self._connection.condition(key, if_absent=if_absent, expected=expected)
        with self._connection.errors(key, if_absent=if_absent):
            blob = self._new_blob(key, metadata, content_type)
            with as_file(source, store=self.profile, key=key) as (file, size):
                blob.upload_from_file(
                    file,
                    size=size,
                    content_type=blob.content_type,
                    if_generation_match=condition,
                    timeout=self._timeout,
                    checksum="crc32c",
                    retry=None,
                )
            return self._describe(blob)

    def _list(
        self, prefix: str, *, delimiter: str | None = None, start_after: str = "", page_size: int | None = None
    ) -> Iterator[ObjectMetadata]:
        with self._connection.errors(prefix):
            listing = self._connection.client.list_blobs(
                self._connection.bucket,
                prefix=self._prefix + prefix,
                delimiter=delimiter,
                start_offset=self._prefix + start_after if start_after else None,
                page_size=page_size,
                fields=_LIST_FIELDS,
                timeout=self._timeout,
                retry=None,
            )
            for page in pages_of(listing):
                for name in page.prefixes:
                    if not is_part(name):
                        yield ObjectMetadata(name.removeprefix(self._prefix), 0, _EPOCH, type="directory")
                for blob in page:
                    if not is_part(blob.name):
                        yield self._describe(blob)

    def _describe(self, blob: Blob) -> ObjectMetadata:
        key = blob.name.removeprefix(self._prefix)
        return with_symlink(
            ObjectMetadata(
                key,
                blob.size or 0,
                # The native client's answers know seconds only, and a file's time must not depend on who answered.
                blob.updated.replace(microsecond=0),
                tag=str(blob.generation),
                type="directory" if key.endswith("/") else "file",
                content_type=blob.content_type,
                # Header names, which the native client reads, have no case.
                metadata={name.lower(): value for name, value in (blob.metadata or {}).items()},
                content_hash=f"md5:{base64.b64decode(blob.md5_hash).hex()}" if blob.md5_hash else "",
                storage_class=blob.storage_class,
            )
        )
