"""Copies on the server: to another key, or onto itself with other user metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mscfs.config.values import GIB, MIB
from mscfs.providers.s3_sdk import SdkClient, describe
from mscfs.providers.s3_upload import S3Upload, part_size_for
from mscfs.types import ObjectMetadata

LARGEST_COPY = GIB
"""Bytes that one request copies. S3 would take 5 GiB, but a store that is silent meanwhile runs into the time-out."""

_PART = 256 * MIB
_THREADS = 8
_LOST_ON_COPY = ("StorageClass", "ServerSideEncryption", "SSEKMSKeyId", "BucketKeyEnabled")
_LOST_WITH_METADATA = (
    *("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType"),
    *("Expires", "WebsiteRedirectLocation"),
)


def copy_object(
    sdk: SdkClient,
    source: str,
    found: Mapping[str, Any],
    target: str,
    *,
    metadata: Mapping[str, str] | None = None,
    if_absent: bool = False,
    largest: int = LARGEST_COPY,
) -> ObjectMetadata:
    """Copy the version of `source` that boto3's answer `found` describes; other `metadata` replace its own.

    VersionMismatchError when the source is another version by now, or when the target exists and must not, as far
    as the server heeds conditions on copies. A copy in parts loses the tags of the object.
    """
    connection = sdk.connection
    with connection.errors(source):
        origin = {
            "CopySource": {"Bucket": connection.bucket, "Key": sdk.named(source)["Key"]},
            "CopySourceIfMatch": found["ETag"],
        }
        size = int(found["ContentLength"])
    kept = {name: found[name] for name in _LOST_ON_COPY if name in found}
    rewritten = {name: found[name] for name in _LOST_WITH_METADATA if name in found}
    rewritten["Metadata"] = dict(found.get("Metadata", {}) if metadata is None else metadata)
    if size > largest:
        upload = S3Upload(sdk, target, kept | rewritten)
        with upload.aborted_on_failure():
            upload.copy_source(origin, size, part_size_for(size, min(_PART, largest)), _THREADS)
            return upload.complete(if_absent=if_absent)
    request = {**sdk.named(target), **origin, **kept}
    if metadata is not None:
        request |= {**rewritten, "MetadataDirective": "REPLACE"}
    if if_absent and _takes_condition(connection.client):
        request["IfNoneMatch"] = "*"
    with connection.errors(source):
        answer = connection.client.copy_object(**request)
        return describe(target, {**found, **rewritten, **kept, **answer["CopyObjectResult"]})


def _takes_condition(client: Any) -> bool:
    """Whether this version of boto3 knows conditions on the target of a copy."""
    return "IfNoneMatch" in client.meta.service_model.operation_model("CopyObject").input_shape.members
