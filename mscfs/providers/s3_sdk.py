"""S3 through boto3: what the native client does too, for the keys, bodies and processes that it cannot serve."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from mscfs.config.values import MIB
from mscfs.errors import (
    AlreadyExistsError,
    IntegrityError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import ObjectReader, Source
from mscfs.providers.keys import with_symlink
from mscfs.providers.native import user_metadata
from mscfs.providers.s3_conditions import NO_SUCH_TAG, Conditions, Verdict
from mscfs.providers.s3_connection import S3Connection
from mscfs.providers.s3_errors import is_status
from mscfs.providers.slices import FileSlice
from mscfs.providers.sources import open_local, read_pieces
from mscfs.providers.store_clock import StoreClock
from mscfs.types import ByteRange, ObjectMetadata, Version

CONTENT_TYPE = "application/octet-stream"

_PIECE = MIB
_ATTEMPTS = 10
_MD5 = re.compile(r"[0-9a-f]{32}")


class SdkClient:
    """The objects of one bucket, below a prefix.

    Where the store does not decide about conditions, as `known` may say from the start, it compares before it writes.
    """

    def __init__(self, connection: S3Connection, prefix: str, *, known: Verdict | None = None) -> None:
        self.connection = connection
        self._prefix = prefix
        self._clock = StoreClock()
        self.conditions = Conditions(connection.profile, write=self._try_condition, remove=self._remove, known=known)

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        """As `StorageProvider.get`."""
        for _ in range(_ATTEMPTS):
            answer = self._get(key, byte_range, expected)
            if answer is not None:
                return answer
            described = self.head(key, expected=expected)
            assert byte_range is not None, "an answer without a range has a beginning"
            # It may have been replaced by a longer one since.
            wanted = byte_range.clip(described.content_length)
            if not wanted.size:
                return _S3Reader(self.connection, None, described, wanted)
        raise StoreUnavailableError(
            "the object is replaced faster than it can be read", store=self.connection.profile, key=key
        )

    def head(self, key: str, *, expected: Version | None = None) -> ObjectMetadata:
        """As `StorageProvider.head`; with `expected`, VersionMismatchError when it is another version."""
        with self.connection.errors(key):
            return describe(key, self.head_answer(key, expected))

    def head_answer(self, key: str, expected: Version | None = None) -> Mapping[str, Any]:
        """All that boto3 says of an object."""
        with self.connection.errors(key):
            answer: Mapping[str, Any] = self.connection.client.head_object(**self.named(key), **_if_match(expected))
        return answer

    def put(
        self,
        key: str,
        source: Source,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str = CONTENT_TYPE,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        """As `StorageProvider.put`, in one request. A local file is streamed, another store's answer gathered."""
        request = {
            **self.named(key),
            **self.condition(key, if_absent=if_absent, expected=expected),
            "ContentType": content_type,
            "Metadata": dict(metadata or {}),
        }
        store, began = self.connection.profile, self._clock.monotonic()
        with self.connection.errors(key, if_absent=if_absent, replacing=expected is not None):
            if isinstance(source, Path):
                with open_local(source, store=store, key=key) as (file, size):
                    body = FileSlice(file.fileno(), ByteRange(0, size))
                    answer = self.connection.client.put_object(**request, Body=body)
            else:
                content = b"".join(read_pieces(source, store=store, key=key))
                size = len(content)
                answer = self.connection.client.put_object(**request, Body=content)
        return self.confirm(key, size, answer, request, began=began)

    def abort_upload(self, key: str, token: str) -> None:
        """As `StorageProvider.abort_upload`; the token is S3's UploadId."""
        with self.connection.errors(key):
            try:
                self.connection.client.abort_multipart_upload(**self.named(key), UploadId=token)
            except Exception as error:
                if not is_status(error, 404):
                    raise

    def confirm(
        self,
        key: str,
        size: int,
        answer: Mapping[str, Any],
        request: Mapping[str, Any],
        *,
        began: float | None = None,
    ) -> ObjectMetadata:
        """The metadata of an object just stored. The answer to a write does not tell its time: the store's clock does.

        A HEAD tells where that is not known; the clock is learned from what was written in one request that `began`
        at that time (monotonic).
        """
        tag = tag_of(answer)
        moment = self._clock.now() if tag else None
        if moment is None:
            try:
                written = self.head(key, expected=Version(size, tag))
            except StorageError:
                # The object is stored, whoever replaced it or whatever failed since.
                moment = _told_date(answer)
            else:
                if began is not None:
                    self._clock.learn(began, written.last_modified)
                return written
        return describe(key, {**request, **answer, "ContentLength": size, "LastModified": moment})

    def named(self, key: str) -> dict[str, str]:
        """The arguments that name an object."""
        return {"Bucket": self.connection.bucket, "Key": self._prefix + key}

    def condition(self, key: str, *, if_absent: bool, expected: Version | None) -> dict[str, str]:
        """The arguments for the version a key must have to be written."""
        if not if_absent and expected is None:
            return {}
        verdict = self.conditions.find_out()
        if verdict is not Verdict.HEEDED:
            self.verify(key, if_absent=if_absent, expected=expected)
        if verdict is Verdict.IGNORED:
            return {}
        return {"IfNoneMatch": "*"} if if_absent else _if_match(expected)

    def verify(self, key: str, *, if_absent: bool, expected: Version | None) -> None:
        """Compare before a write, where not every server heeds its conditions."""
        if not if_absent and expected is None:
            return
        try:
            present = self.head(key).version
        except NotFoundError:
            present = None
        if if_absent and present is not None:
            raise AlreadyExistsError("the object exists", store=self.connection.profile, key=key)
        if not if_absent and present != expected:
            raise VersionMismatchError("the object has changed", store=self.connection.profile, key=key)

    def _try_condition(self, key: str) -> None:
        with self.connection.errors(key):
            self.connection.client.put_object(**self.named(key), Body=b"", IfMatch=f'"{NO_SUCH_TAG}"')

    def _remove(self, key: str) -> None:
        with self.connection.errors(key):
            self.connection.client.delete_object(**self.named(key))

    def _get(self, key: str, byte_range: ByteRange | None, expected: Version | None) -> ObjectReader | None:
        """One request; None where nothing of the object lies in the range."""
        request = {**self.named(key), **_if_match(expected)}
        if byte_range is not None:
            if not byte_range.size:
                return None
            request["Range"] = f"bytes={byte_range.offset}-{byte_range.end - 1}"
        with self.connection.errors(key):
            try:
                answer = self.connection.client.get_object(**request)
            except Exception as error:
                if byte_range is not None and is_status(error, 416):
                    return None
                raise
            try:
                return self._reader(key, answer, byte_range)
            except BaseException:
                answer["Body"].close()
                raise

    def _reader(self, key: str, answer: dict[str, Any], byte_range: ByteRange | None) -> ObjectReader:
        length = answer["ContentLength"]
        offset = 0
        if byte_range is not None:
            told = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.get("ContentRange", ""))
            if told is None or int(told[1]) != byte_range.offset:
                raise IntegrityError("the store answered with another range", store=self.connection.profile, key=key)
            offset, answer["ContentLength"] = int(told[1]), int(told[2])
        return _S3Reader(self.connection, answer["Body"], describe(key, answer), ByteRange(offset, length))


def _if_match(expected: Version | None) -> dict[str, str]:
    return {} if expected is None else {"IfMatch": f'"{expected.tag}"'}


def _told_date(answer: Mapping[str, Any]) -> datetime:
    """The time at the store, as the answer's head tells it; ours where it tells none."""
    try:
        return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)
    except (LookupError, ValueError, OverflowError):
        return datetime.now(UTC)


def tag_of(answer: Mapping[str, Any]) -> str:
    """The tag in an answer of boto3."""
    return str(answer.get("ETag", "")).strip('"')


def describe(key: str, answer: Mapping[str, Any]) -> ObjectMetadata:
    """An object's metadata from boto3's answer about it."""
    return with_symlink(
        ObjectMetadata(
            key,
            answer["ContentLength"],
            answer["LastModified"].replace(microsecond=0),
            tag=tag_of(answer),
            type="directory" if key.endswith("/") else "file",
            content_type=answer.get("ContentType"),
            metadata={name.lower(): value for name, value in answer.get("Metadata", {}).items()},
            content_hash=content_hash(answer),
            storage_class=answer.get("StorageClass"),
        )
    )


def content_hash(answer: Mapping[str, Any]) -> str:
    """The MD5, where the ETag is one: not of parts, and not when encrypted with a key of KMS or the customer."""
    tag = tag_of(answer)
    is_plain = answer.get("ServerSideEncryption") in (None, "AES256") and not answer.get("SSECustomerAlgorithm")
    return f"md5:{tag}" if is_plain and _MD5.fullmatch(tag) else ""


def describe_native(key: str, meta: Mapping[str, Any], attributes: Mapping[str, str]) -> ObjectMetadata:
    """An object's metadata from the native client's answer, which does not tell whether the ETag is an MD5."""
    return with_symlink(
        ObjectMetadata(
            key,
            meta["size"],
            meta["last_modified"].replace(microsecond=0),
            tag=(meta["e_tag"] or "").strip('"'),
            content_type=attributes.get("Content-Type"),
            metadata=user_metadata(attributes),
            storage_class=attributes.get("Storage-Class"),
        )
    )


class _S3Reader(ObjectReader):
    """boto3's answer. It is of one version, however long it takes to read."""

    def __init__(self, connection: S3Connection, body: Any, metadata: ObjectMetadata, byte_range: ByteRange) -> None:
        super().__init__(metadata, byte_range, source=connection.profile)
        self._connection = connection
        self._body = body

    def _pieces(self) -> Iterator[bytes]:
        if self._body is not None:
            with self._connection.errors(self.metadata.key):
                yield from self._body.iter_chunks(_PIECE)

    def close(self) -> None:
        if self._body is not None:
            self._body.close()
