"""Objects in S3 and in what speaks its protocol.

An object's tag is its ETag without quotes. Single objects are read, and small ones written, by the native client where
it can; everything else goes through boto3.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

from mscfs.config.values import MIB, ProviderConfig
from mscfs.errors import (
    AlreadyExistsError,
    DirectoryNotEmptyError,
    NotFoundError,
    StoreUnavailableError,
    UnsupportedError,
    VersionMismatchError,
)
from mscfs.providers.base import Capabilities, MultipartUpload, ObjectReader, Source, StorageProvider
from mscfs.providers.keys import (
    METADATA_VALUE,
    check_directory_key,
    check_length,
    check_object_key,
    check_text,
    symlink_metadata,
)
from mscfs.providers.native import LARGEST_PUT, NativeClient, NotUnderstoodError
from mscfs.providers.page import Page
from mscfs.providers.presence import BucketPresence
from mscfs.providers.s3_conditions import Verdict
from mscfs.providers.s3_connection import S3Connection
from mscfs.providers.s3_copy import LARGEST_COPY, copy_object
from mscfs.providers.s3_errors import from_status
from mscfs.providers.s3_listing import list_bucket, list_pages
from mscfs.providers.s3_sdk import CONTENT_TYPE, SdkClient, describe_native, tag_of
from mscfs.providers.s3_upload import LARGEST_PART, S3Upload, part_size_for
from mscfs.providers.sources import local_size, read_pieces
from mscfs.types import ByteRange, ObjectMetadata, Version

_ATTEMPTS = 10
"""How often a copy starts anew because its source was replaced meanwhile."""

_METADATA_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class S3Provider(StorageProvider):
    """One bucket, or what lies below a prefix in it."""

    capabilities = Capabilities()
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Options that another flavour of S3 needs."""

    largest_copy: int = LARGEST_COPY

    def __init__(
        self, *, profile: str = "s3", options: Mapping[str, Any], credentials: ProviderConfig | None = None
    ) -> None:
        bucket, _, prefix = str(options["base_path"]).strip("/").partition("/")
        self.profile = profile
        self._prefix = f"{prefix}/" if prefix else ""
        self._threshold = min(int(options.get("multipart_threshold", 64 * MIB)), LARGEST_PART)
        self._part_size = int(options.get("multipart_chunksize", 8 * MIB))
        self._threads = int(options.get("max_concurrency", 8))
        connection = S3Connection(
            profile=profile, bucket=bucket, options={**self.defaults, **options}, credentials=credentials
        )
        self._connection = connection
        known = None if self.capabilities.conditional_put else Verdict.IGNORED
        self._sdk = SdkClient(connection, self._prefix, known=known)
        self._native = self._native_client() if connection.is_native else None
        self._presence = BucketPresence(self.probe)
        self.identity = "s3://" + "/".join(part for part in (connection.endpoint, bucket, prefix) if part)

    def check_new_key(self, key: str) -> None:
        check_length(key, self._prefix, store=self.profile)

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        self._check_readable(key)
        with self._presence.confirmed():
            if self._native and self._native.serves(key):
                with suppress(NotUnderstoodError):
                    return self._native.get(key, byte_range, expected=expected)
            return self._sdk.get(key, byte_range, expected=expected)

    def head(self, key: str) -> ObjectMetadata:
        self._check_readable(key)
        with self._presence.confirmed():
            if self._native and self._native.serves(key):
                with suppress(NotUnderstoodError):
                    return self._native.head(key)
            return self._sdk.head(key)

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
        self._check_metadata(metadata)
        size = local_size(source, store=self.profile, key=key)
        # Only another store's answer has to be gathered in memory before it can be sent in one request.
        if size > (self._part_size if isinstance(source, ObjectReader) else self._threshold):
            upload = self._start_upload(key, metadata, content_type)
            with upload.aborted_on_failure():
                upload.put_source(source, part_size_for(size, self._part_size), self._threads)
                return upload.complete(if_absent=if_absent, expected=expected)
        if size <= LARGEST_PUT and not isinstance(source, bytes | memoryview):
            source = b"".join(read_pieces(source, store=self.profile, key=key))
        arguments: dict[str, Any] = {
            "metadata": metadata,
            "content_type": content_type or CONTENT_TYPE,
            "if_absent": if_absent,
            "expected": expected,
        }
        is_plain = not if_absent and expected is None
        if self._native and self._native.takes(key, source, metadata) and (is_plain or self.decides_conditions()):
            assert isinstance(source, bytes | memoryview)
            return self._native.put(key, source, **arguments)
        return self._sdk.put(key, source, **arguments)

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        self._check_key(key)
        self._check_metadata(metadata)
        return self._start_upload(key, metadata, content_type)

    def abort_upload(self, key: str, token: str) -> None:
        self._sdk.abort_upload(key, token)

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
        self._check_metadata(metadata)
        for _ in range(_ATTEMPTS):
            found = self._find(source, expected)
            # Not every server heeds the conditions of a copy.
            if if_absent and self._exists(target):
                raise AlreadyExistsError("the object exists", store=self.profile, key=target)
            # The next round tells which of the two objects was not as it had to be.
            with suppress(VersionMismatchError, AlreadyExistsError, NotFoundError):
                return copy_object(
                    self._sdk,
                    source,
                    found,
                    target,
                    metadata=metadata,
                    if_absent=if_absent,
                    largest=self.largest_copy,
                )
        raise self._too_fast(source)

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        self._check_metadata(metadata)
        for _ in range(_ATTEMPTS):
            found = self._find(key, expected)
            with suppress(VersionMismatchError):
                return copy_object(self._sdk, key, found, key, metadata=metadata, largest=self.largest_copy)
        raise self._too_fast(key)

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        check_text(key, store=self.profile)
        condition = {}
        if expected is not None:
            # Not every server heeds the condition of a delete.
            try:
                present = self.head(key)
            except NotFoundError:
                return
            if present.version != expected or expected.is_written_anew(present.version):
                raise VersionMismatchError("the object has changed", store=self.profile, key=key)
            if self._sdk.conditions.find_out() is not Verdict.IGNORED:
                condition = {"IfMatch": f'"{expected.tag}"'}
        try:
            self._delete(key, condition)
        except UnsupportedError:
            if not condition:
                raise
            self._delete(key, {})

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        for entry in self._list(prefix, start_after=start_after):
            if entry.key:
                yield entry

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        for entry in self._list(directory, delimiter="/"):
            if entry.key != directory:
                yield entry

    def list_pages(self, directory: str = "") -> Iterator[Page]:
        check_text(directory, store=self.profile)
        with self._connection.errors(directory):
            yield from list_pages(self._connection.client, self._connection.bucket, self._prefix + directory)

    def has_directory(self, directory: str) -> bool:
        return next(self._list(directory, page_size=1), None) is not None

    def head_marker(self, directory: str) -> ObjectMetadata:
        check_text(directory, store=self.profile)
        return self._sdk.head(directory)

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        check_directory_key(directory, store=self.profile)
        self.check_new_key(directory)
        self._check_metadata(metadata)
        # A marker that is there may have metadata of another tool.
        with suppress(AlreadyExistsError):
            self._sdk.put(
                directory, b"", metadata=metadata, content_type="application/x-directory", if_absent=metadata is None
            )

    def remove_directory(self, directory: str) -> None:
        check_directory_key(directory, store=self.profile)
        for entry in self._list(directory, page_size=2):
            if entry.key != directory:
                raise DirectoryNotEmptyError("the directory is not empty", store=self.profile, key=directory)
        self._delete(directory, {})

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        return self.put(key, b"", metadata=symlink_metadata(target))

    def decides_conditions(self) -> bool:
        return self._sdk.conditions.find_out() is Verdict.HEEDED

    def prepare(self) -> None:
        if self._native:
            self._native.prepare()

    def probe(self) -> None:
        next(self._list("", page_size=1), None)

    def close(self) -> None:
        if self._native:
            self._native.close()
        self._connection.close()

    def _native_client(self) -> NativeClient:
        return NativeClient(
            profile=self.profile,
            prefix=self._prefix,
            open_store=self._connection.open_native_store,
            describe=describe_native,
            from_status=from_status,
            credentials=self._connection.native_credentials,
        )

    def _check_readable(self, key: str) -> None:
        if not key or key.endswith("/"):
            raise NotFoundError("no such object", store=self.profile, key=key)
        check_text(key, store=self.profile)

    def _check_key(self, key: str) -> None:
        check_object_key(key, store=self.profile)
        self.check_new_key(key)

    def _check_metadata(self, metadata: Mapping[str, str] | None) -> None:
        for name, value in (metadata or {}).items():
            if not _METADATA_NAME.fullmatch(name) or not METADATA_VALUE.fullmatch(value):
                message = f"S3 keeps metadata of printable ASCII without spaces around it, which {name!r} is not"
                raise UnsupportedError(message, store=self.profile)

    def _start_upload(self, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> S3Upload:
        created = {"Metadata": dict(metadata or {}), "ContentType": content_type or CONTENT_TYPE}
        return S3Upload(self._sdk, key, created)

    def _find(self, key: str, expected: Version | None) -> Mapping[str, Any]:
        """All that boto3 says of an object; VersionMismatchError when it is another version than expected."""
        self._check_readable(key)
        with self._presence.confirmed():
            found = self._sdk.head_answer(key)
        with self._connection.errors(key):
            version = Version(found["ContentLength"], tag_of(found))
        if expected is not None and version != expected:
            raise VersionMismatchError("the object has changed", store=self.profile, key=key)
        return found

    def _exists(self, key: str) -> bool:
        try:
            self.head(key)
        except NotFoundError:
            return False
        return True

    def _delete(self, key: str, condition: Mapping[str, str]) -> None:
        with suppress(NotFoundError), self._connection.errors(key):
            self._connection.client.delete_object(**self._sdk.named(key), **condition)

    def _list(
        self, prefix: str, *, delimiter: str = "", start_after: str = "", page_size: int = 1000
    ) -> Iterator[ObjectMetadata]:
        check_text(prefix + start_after, store=self.profile)
        with self._connection.errors(prefix):
            yield from list_bucket(
                self._connection.client,
                self._connection.bucket,
                self._prefix + prefix,
                cut=len(self._prefix),
                delimiter=delimiter,
                start_after=self._prefix + start_after if start_after else "",
                page_size=page_size,
            )

    def _too_fast(self, key: str) -> StoreUnavailableError:
        return StoreUnavailableError("the object is replaced faster than it can be copied", store=self.profile, key=key)


class S8kProvider(S3Provider):
    """SwiftStack. Nothing is known of its conditional writes, so mscfs compares before it writes."""

    capabilities = Capabilities(conditional_put=False, exclusive_create=False)


class GcsS3Provider(S3Provider):
    """Google Cloud Storage through its XML API, which knows neither S3's conditional writes nor its checksums."""

    capabilities = Capabilities(conditional_put=False, exclusive_create=False)
    defaults: ClassVar[Mapping[str, Any]] = {
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
