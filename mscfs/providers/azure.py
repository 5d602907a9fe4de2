"""Azure Blob Storage.

An object's tag is its ETag. Single objects are read and written by the native client where it can; listings, which
carry user metadata here, and everything else go through Microsoft's own library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobClient, BlobProperties, StorageStreamDownloader

from mscfs.config.values import MIB, ProviderConfig
from mscfs.errors import (
    AlreadyExistsError,
    DirectoryNotEmptyError,
    InvalidKeyError,
    KeyTooLongError,
    NotFoundError,
    UnsupportedError,
    VersionMismatchError,
)
from mscfs.providers.azure_connection import AzureConnection, condition
from mscfs.providers.azure_copy import wait_for_copy
from mscfs.providers.azure_metadata import (
    FOLDER_KEY,
    in_utf8_order,
    is_folder_stub,
    list_container,
    properties_metadata,
)
from mscfs.providers.azure_native import native_client
from mscfs.providers.azure_upload import BlockUpload, block_size_for
from mscfs.providers.base import Capabilities, MultipartUpload, ObjectReader, Source, StorageProvider
from mscfs.providers.keys import (
    LONGEST_NAME,
    METADATA_VALUE,
    check_directory_key,
    check_object_key,
    symlink_metadata,
    with_symlink,
)
from mscfs.providers.native import LARGEST_PUT, NotUnderstoodError
from mscfs.providers.presence import BucketPresence
from mscfs.providers.sources import in_memory, local_size, read_parts
from mscfs.types import ByteRange, ObjectMetadata, Version

_CONTENT_TYPE = "application/octet-stream"
_SINGLE_PUT = 8 * MIB
_METADATA_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_MANGLED = re.compile(r"[\x00-\x1f\x7f\\]|\.(/|$)")
"""What the service does not keep: control characters, backslashes, a `.` at the end of a segment."""


class AzureProvider(StorageProvider):
    """One container, or what lies below a prefix in it."""

    capabilities = Capabilities(dialect="azure")

    def __init__(
        self, *, profile: str = "azure", options: Mapping[str, Any], credentials: ProviderConfig | None = None
    ) -> None:
        container, _, prefix = str(options["base_path"]).strip("/").partition("/")
        self.profile = profile
        self._prefix = f"{prefix}/" if prefix else ""
        self._part_size = int(options.get("multipart_chunksize", 32 * MIB))
        self._validate = bool(options.get("validate_content"))
        self._connection = AzureConnection(
            profile=profile, container=container, options=options, credentials=credentials
        )
        # Only the SDK compares checksums of what it moves.
        use_native = options.get("rust_client") is not False and not self._validate
        self._native = native_client(self._connection, self._prefix) if use_native else None
        self._presence = BucketPresence(self.probe)
        self.identity = "/".join(part for part in (self._connection.endpoint, container, prefix) if part)

    def check_new_key(self, key: str) -> None:
        if _MANGLED.search(key):
            message = "Azure keeps no control characters, no backslashes and no '.' at the end of a name"
            raise InvalidKeyError(message, store=self.profile, key=key)
        # Characters, not bytes.
        if len(self._prefix + key) > LONGEST_NAME:
            raise KeyTooLongError(f"Azure's names have at most {LONGEST_NAME} characters", store=self.profile, key=key)

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        if self._native and self._is_named_as_it_is(key) and self._native.serves(key):
            with suppress(NotUnderstoodError), self._presence.confirmed():
                answer = self._native.get(key, byte_range, expected=expected)
                self._refuse_folder(answer.metadata)
                return answer
        with self._connection.errors(key):
            download = self._download(key, byte_range, expected)
            if download is None:
                # Nothing of the object lies in the range: only its properties are of interest.
                properties = self._readable(key).get_blob_properties(**condition(expected=expected))
                described = self._describe(key, properties)
                return _AzureReader(self._connection, None, described, ByteRange(described.content_length, 0))
            # Of a range, the SDK calls the range's length the size.
            length = int(str(download.properties.content_range).rpartition("/")[2])
            described = replace(self._describe(key, download.properties), content_length=length)
            wanted = byte_range or ByteRange(0, length)
            return _AzureReader(self._connection, download, described, wanted.clip(length))

    def head(self, key: str) -> ObjectMetadata:
        if self._native and self._is_named_as_it_is(key) and self._native.serves(key):
            with suppress(NotUnderstoodError), self._presence.confirmed():
                return self._refuse_folder(self._native.head(key))
        with self._connection.errors(key):
            return self._describe(key, self._readable(key).get_blob_properties())

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
        source = in_memory(source, LARGEST_PUT, store=self.profile, key=key)
        if self._native and self._native.takes(key, source, metadata):
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
        self._check_metadata(metadata)
        return self._start_upload(key, metadata, content_type)

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
        conditions = condition(if_absent=if_absent)
        if expected is not None:
            pinned = condition(expected=expected)
            conditions |= {"source_etag": pinned["etag"], "source_match_condition": pinned["match_condition"]}
        with self._connection.errors(source):
            blob = self._blob(target)
            try:
                with self._connection.errors(source):
                    # No metadata at all would mean those of the source.
                    blob.start_copy_from_url(self._readable(source).url, dict(metadata or {}) or None, **conditions)
            except (VersionMismatchError, AlreadyExistsError):
                # The answer does not tell which of the two objects was not as it had to be.
                if if_absent and (expected is None or self.head(source).version == expected):
                    raise AlreadyExistsError("the object exists", store=self.profile, key=target) from None
                raise VersionMismatchError("the object has changed", store=self.profile, key=source) from None
            copied = self._describe(target, wait_for_copy(blob, store=self.profile, key=target))
            return self.set_metadata(target, {}, expected=copied.version) if metadata == {} else copied

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        try:
            with self._connection.errors(key):
                self._readable(key).delete_blob(delete_snapshots="include", **condition(expected=expected))
        except NotFoundError:
            return
        except VersionMismatchError:
            # Also the answer for a key that is gone.
            with suppress(NotFoundError):
                self.head(key)
                raise

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        for entry in in_utf8_order(self._list(prefix)):
            if entry.key > start_after and not is_folder_stub(entry):
                yield entry

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        seen: set[str] = set()
        for entry in self._list(directory, delimiter="/"):
            if is_folder_stub(entry):
                entry = replace(entry, key=f"{entry.key}/", type="directory")  # noqa: PLW2901 - as others would see it
            if entry.is_directory:
                if entry.key == directory or entry.key in seen:
                    continue
                seen.add(entry.key)
            yield entry

    def has_directory(self, directory: str) -> bool:
        return next(self._list(directory, page_size=1), None) is not None or self._has_stub(directory)

    def head_marker(self, directory: str) -> ObjectMetadata:
        if _MANGLED.search(directory):
            raise NotFoundError("no such marker", store=self.profile, key=directory)
        with self._connection.errors(directory):
            return properties_metadata(directory, self._blob(directory).get_blob_properties())

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        check_directory_key(directory, store=self.profile)
        self.check_new_key(directory)
        self._check_metadata(metadata)
        self._put(directory, b"", {**(metadata or {}), FOLDER_KEY: "true"}, None)

    def remove_directory(self, directory: str) -> None:
        check_directory_key(directory, store=self.profile)
        for entry in self._list(directory, page_size=2):
            if entry.key != directory:
                raise DirectoryNotEmptyError("the directory is not empty", store=self.profile, key=directory)
        names = [directory, directory[:-1]] if self._has_stub(directory) else [directory]
        for name in names:
            with suppress(NotFoundError), self._connection.errors(directory):
                self._blob(name).delete_blob(delete_snapshots="include")

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        self._check_metadata(metadata)
        with self._connection.errors(key):
            blob = self._readable(key)
            answer = blob.set_blob_metadata(dict(metadata), **condition(expected=expected))
            changed = Version(0, str(answer["etag"]).strip('"'))
            return self._describe(key, blob.get_blob_properties(**condition(expected=changed)))

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

    def _blob(self, key: str) -> BlobClient:
        return self._connection.container.get_blob_client(self._prefix + key)

    def _readable(self, key: str) -> BlobClient:
        """The client of an object's blob. A key that the service would take for another one is no object."""
        if not self._is_named_as_it_is(key):
            raise NotFoundError("no such object", store=self.profile, key=key)
        return self._blob(key)

    @staticmethod
    def _is_named_as_it_is(key: str) -> bool:
        return bool(key) and not key.endswith("/") and not _MANGLED.search(key)

    def _check_key(self, key: str) -> None:
        check_object_key(key, store=self.profile)
        self.check_new_key(key)

    def _check_metadata(self, metadata: Mapping[str, str] | None) -> None:
        for name, value in (metadata or {}).items():
            if not _METADATA_NAME.fullmatch(name) or not METADATA_VALUE.fullmatch(value):
                message = f"Azure's metadata are identifiers with printable ASCII values, which {name!r} is not"
                raise UnsupportedError(message, store=self.profile)

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
        upload = self._start_upload(key, metadata, content_type)
        source = in_memory(source, _SINGLE_PUT, store=self.profile, key=key)
        if isinstance(source, bytes | memoryview) and len(source) <= _SINGLE_PUT:
            return upload.put_whole(bytes(source), if_absent=if_absent, expected=expected)
        size = local_size(source, store=self.profile, key=key)
        parts = read_parts(source, block_size_for(size, self._part_size), store=self.profile, key=key)
        return upload.put_blocks(parts, if_absent=if_absent, expected=expected)

    def _start_upload(self, key: str, metadata: Mapping[str, str] | None, content_type: str | None) -> BlockUpload:
        return BlockUpload(
            self._connection,
            key,
            self._prefix + key,
            metadata=dict(metadata or {}),
            content_type=content_type or _CONTENT_TYPE,
            validate=self._validate,
        )

    def _download(
        self, key: str, byte_range: ByteRange | None, expected: Version | None
    ) -> StorageStreamDownloader[bytes] | None:
        """The SDK's answer to a read; None where nothing of the object lies in the range."""
        if byte_range is not None and not byte_range.size:
            return None

        try:
            return self._readable(key).download_blob(
                offset=byte_range.offset if byte_range else None,
                length=byte_range.size if byte_range else None,
                max_concurrency=1,
                validate_content=self._validate,
                **condition(expected=expected),
            )
        except HttpResponseError as error:
            if error.status_code == 416:
                return None
            raise

    def _has_stub(self, directory: str) -> bool:
        if _MANGLED.search(directory):
            return False
        try:
            with self._connection.errors(directory):
                properties = self._blob(directory[:-1]).get_blob_properties()
        except NotFoundError:
            return False
        return is_folder_stub(properties_metadata(directory[:-1], properties))

    def _list(self, prefix: str, *, delimiter: str = "", page_size: int = 5000) -> Iterator[ObjectMetadata]:
        with self._connection.errors(prefix):
            listing = list_container(
                self._connection.container, self._prefix + prefix, delimiter=delimiter, page_size=page_size
            )
            for entry in listing:
                yield with_symlink(replace(entry, key=entry.key.removeprefix(self._prefix)))

    def _describe(self, key: str, properties: BlobProperties) -> ObjectMetadata:
        return self._refuse_folder(with_symlink(properties_metadata(key, properties)))

    def _refuse_folder(self, described: ObjectMetadata) -> ObjectMetadata:
        if is_folder_stub(described):
            raise NotFoundError("no such object", store=self.profile, key=described.key)
        return described


class _AzureReader(ObjectReader):
    """The SDK's answer; it binds what it fetches later to the version of its first piece."""

    def __init__(
        self,
        connection: AzureConnection,
        answer: StorageStreamDownloader[bytes] | None,
        metadata: ObjectMetadata,
        byte_range: ByteRange,
    ) -> None:
        super().__init__(metadata, byte_range, source=connection.profile)
        self._connection = connection
        self._answer = answer

    def _pieces(self) -> Iterator[bytes]:
        if self._answer is not None:
            with self._connection.errors(self.metadata.key):
                yield from self._answer.chunks()
