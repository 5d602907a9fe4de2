"""Google Cloud Storage through the native client: what it is told, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mscfs.providers.gcs_connection import GcsConnection, from_status
from mscfs.providers.keys import with_symlink
from mscfs.providers.native import NativeClient, client_options, retry_config, user_metadata
from mscfs.types import ObjectMetadata

_MD5 = re.compile(r"[0-9a-f]{32}")


def native_client(connection: GcsConnection, prefix: str) -> NativeClient:
    """The native client of a bucket."""

    def open_store(credentials: Callable[[], Any] | None) -> Any:
        from obstore.store import GCSStore  # noqa: PLC0415 - loaded when first used

        connect_timeout, read_timeout = connection.native_timeout
        settings: Any = {
            "client_options": client_options(
                url=connection.endpoint,
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                # Otherwise the service unpacks gzip-encoded objects, and their length and ranges are wrong.
                default_headers={"accept-encoding": "gzip"},
            ),
            "retry_config": retry_config(),
        }
        return GCSStore(
            connection.bucket_name,
            config={"base_url": connection.endpoint, "skip_signature": connection.anonymous},
            credential_provider=credentials,
            **settings,
        )

    def describe(key: str, meta: Mapping[str, Any], attributes: Mapping[str, str]) -> ObjectMetadata:
        etag = (meta["e_tag"] or "").strip('"')
        return with_symlink(
            ObjectMetadata(
                key,
                meta["size"],
                meta["last_modified"],
                tag=meta["version"] or "",
                content_type=attributes.get("Content-Type"),
                metadata=user_metadata(attributes),
                # The XML API's ETag is the MD5, except for composed and for customer-encrypted objects.
                content_hash=f"md5:{etag}" if _MD5.fullmatch(etag) else "",
                storage_class=attributes.get("Storage-Class"),
            )
        )

    return NativeClient(
        profile=connection.profile,
        prefix=prefix,
        open_store=open_store,
        describe=describe,
        from_status=from_status,
        credentials=None if connection.anonymous else connection.token,
        pin="version",
    )
