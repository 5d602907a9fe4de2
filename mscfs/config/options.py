"""The options of each storage provider and credentials provider. Imports pydantic.

A value that is wrong here concerns one profile; the shared format leaves options to the providers, so a file with
a bad option in another profile is still a good file.
"""

from __future__ import annotations

from typing import Annotated, Any, Required

from pydantic import AfterValidator, BeforeValidator, Field, ValidatorFunctionWrapHandler, WrapValidator, with_config
from typing_extensions import TypedDict

from mscfs.config.check import STRICT, Block
from mscfs.config.schema import AnyMapping, Flag, Text


def _number(value: Any) -> Any:
    # "${PART_SIZE}" is always a string after expansion.
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _bucket(path: str) -> str:
    if "://" in path or not path.strip("/"):
        raise ValueError("must be a bucket or container, and optionally a prefix, as in bucket/prefix")
    return path


def _directory(path: str) -> str:
    if path and not path.startswith("/"):
        raise ValueError("must be an absolute path")
    return path or "/"


def _endpoint(url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("must be a URL that starts with http:// or https://")
    return url


def _no_checksum(_: Any) -> Any:
    raise ValueError("must be removed: gcs_s3 works without")


def _verify(value: Any) -> bool | str:
    if isinstance(value, bool | str):
        return value
    raise ValueError("must be true, false or the path of a CA bundle")


def _flag_or_mapping(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return value if isinstance(value, bool) else handler(value)


Bucket = Annotated[str, AfterValidator(_bucket), Field(description="a bucket, and optionally a prefix")]
Endpoint = Annotated[str, AfterValidator(_endpoint), Field(description="a URL")]
Number = Annotated[int, BeforeValidator(_number), Field(ge=1, description="a positive whole number")]
Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0, description="a positive number of seconds")]
Checksum = Annotated[
    str,
    Field(pattern="^(?i:CRC32|CRC32C|SHA1|SHA256|CRC64NVME)$", description="CRC32, CRC32C, SHA1, SHA256 or CRC64NVME"),
]
ChecksumPolicy = Annotated[
    str, Field(pattern="^(when_supported|when_required)$", description="when_supported or when_required")
]
NotEmpty = Annotated[str, Field(min_length=1, description="a string that is not empty")]


@with_config(STRICT)
class MemoryOptions(TypedDict, total=False):
    """`memory`: objects live as long as the process; for tests and for trying things out."""

    base_path: Required[str]


@with_config(STRICT)
class FileOptions(TypedDict, total=False):
    """`file`."""

    base_path: Required[Annotated[str, AfterValidator(_directory), Field(description="an absolute path")]]


@with_config(STRICT)
class NativeOptions(TypedDict, total=False):
    """`rust_client`: settings of the native client alone."""

    multipart_chunksize: Number
    max_concurrency: Number
    max_pool_connections: Number
    connect_timeout: Seconds
    read_timeout: Seconds
    checksum_algorithm: Checksum
    skip_signature: Flag
    allow_http: Flag


class _ObjectStoreOptions(TypedDict, total=False):
    base_path: Required[Bucket]
    multipart_threshold: Number
    multipart_chunksize: Number
    io_chunksize: Number
    max_concurrency: Number
    max_pool_connections: Number
    connect_timeout: Seconds
    read_timeout: Seconds
    rust_client: Annotated[
        NativeOptions, WrapValidator(_flag_or_mapping), Field(description="true, false or a mapping")
    ]


class _S3Options(_ObjectStoreOptions, total=False):
    endpoint_url: Endpoint
    region_name: Text
    profile_name: Text
    verify: Annotated[Any, BeforeValidator(_verify)]
    request_checksum_calculation: ChecksumPolicy
    response_checksum_validation: ChecksumPolicy
    retries: AnyMapping
    s3: AnyMapping
    signature_version: Text


@with_config(STRICT)
class S3Options(_S3Options, total=False):
    """`s3`."""

    checksum_algorithm: Checksum


@with_config(STRICT)
class S8kOptions(_S3Options, total=False):
    """`s8k`."""

    checksum_algorithm: Checksum
    infer_content_type: Flag


@with_config(STRICT)
class GcsS3Options(_S3Options, total=False):
    """`gcs_s3`."""

    checksum_algorithm: Annotated[str, BeforeValidator(_no_checksum)]


@with_config(STRICT)
class GcsOptions(_ObjectStoreOptions, total=False):
    """`gcs`."""

    endpoint_url: Endpoint
    project_id: Text
    skip_signature: Flag


@with_config(STRICT)
class AzureOptions(_ObjectStoreOptions, total=False):
    """`azure`."""

    endpoint_url: Required[
        Annotated[
            str,
            AfterValidator(_endpoint),
            Field(min_length=1, description="the account's URL, as https://ACCOUNT.blob.core.windows.net"),
        ]
    ]
    validate_content: Flag


@with_config(STRICT)
class S3Credentials(TypedDict, total=False):
    """`S3Credentials`."""

    access_key: Required[NotEmpty]
    secret_key: Required[NotEmpty]
    session_token: Text


@with_config(STRICT)
class AzureCredentials(TypedDict, total=False):
    """`AzureCredentials`."""

    connection: Required[NotEmpty]


@with_config(STRICT)
class GoogleIdentityPoolCredentials(TypedDict, total=False):
    """`GoogleIdentityPoolCredentialsProvider`."""

    audience: Required[NotEmpty]
    token_supplier: Required[NotEmpty]


@with_config(STRICT)
class GoogleServiceAccountCredentials(TypedDict, total=False):
    """`GoogleServiceAccountCredentialsProvider`: one of the two."""

    file: NotEmpty
    info: AnyMapping


@with_config(STRICT)
class FileBasedCredentials(TypedDict, total=False):
    """`FileBasedCredentials`."""

    credential_file_path: Required[NotEmpty]


STORAGE_OPTIONS: dict[str, Block] = {
    "file": FileOptions,
    "memory": MemoryOptions,
    "s3": S3Options,
    "s8k": S8kOptions,
    "gcs_s3": GcsS3Options,
    "gcs": GcsOptions,
    "azure": AzureOptions,
}

_S3_TYPES = frozenset({"s3", "s8k", "gcs_s3"})
CREDENTIALS_OPTIONS: dict[str, tuple[Block | None, frozenset[str]]] = {
    "S3Credentials": (S3Credentials, _S3_TYPES),
    "FileBasedCredentials": (FileBasedCredentials, _S3_TYPES),
    "AzureCredentials": (AzureCredentials, frozenset({"azure"})),
    # Its options go to azure.identity.DefaultAzureCredential, which knows many.
    "DefaultAzureCredentials": (None, frozenset({"azure"})),
    "GoogleIdentityPoolCredentialsProvider": (GoogleIdentityPoolCredentials, frozenset({"gcs"})),
    "GoogleServiceAccountCredentialsProvider": (GoogleServiceAccountCredentials, frozenset({"gcs"})),
}
"""For each credentials provider its options (None: any) and the storage providers it serves."""

UNSUPPORTED_STORAGE = frozenset({"ais", "ais_s3", "oci", "huggingface", "s3_cuobject"})
UNSUPPORTED_CREDENTIALS = frozenset({"AISCredentials", "HuggingFaceCredentials"})
"""Valid in the shared format, not offered here."""
