"""Azure Blob Storage through the native client: what it is told, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mscfs.errors import StorageError
from mscfs.providers.azure_connection import AzureConnection, from_status
from mscfs.providers.azure_metadata import object_metadata
from mscfs.providers.keys import with_symlink
from mscfs.providers.native import NativeClient, client_options, retry_config, user_metadata
from mscfs.types import ObjectMetadata

_CODE = re.compile(r"<Code>(\w+)</Code>")


def native_client(connection: AzureConnection, prefix: str) -> NativeClient:
    """The native client of a container."""

    def open_store(credentials: Callable[[], Any] | None) -> Any:
        from obstore.store import AzureStore  # noqa: PLC0415 - loaded when first used

        connect_timeout, read_timeout = connection.native_timeout
        settings: Any = {
            "config": {
                "endpoint": connection.endpoint,
                "account_name": connection.account_name,
                # Said, so that no variable of the environment says otherwise.
                "use_emulator": False,
                "skip_signature": False,
                **connection.signing(),
            },
            "client_options": client_options(
                url=connection.endpoint, connect_timeout=connect_timeout, read_timeout=read_timeout
            ),
            "retry_config": retry_config(),
        }
        return AzureStore(connection.container_name, credential_provider=credentials, **settings)

    return NativeClient(
        profile=connection.profile,
        prefix=prefix,
        open_store=open_store,
        describe=_describe,
        from_status=_from_status,
        credentials=connection.token if connection.has_tokens else None,
    )


def _describe(key: str, meta: Mapping[str, Any], attributes: Mapping[str, str]) -> ObjectMetadata:
    return with_symlink(
        object_metadata(
            key,
            size=meta["size"],
            last_modified=meta["last_modified"],
            etag=meta["e_tag"] or "",
            metadata=user_metadata(attributes),
            content_type=attributes.get("Content-Type"),
            content_md5=None,  # the native client does not tell it
            tier=attributes.get("Storage-Class"),
        )
    )


def _from_status(status: int, body: str) -> tuple[type[StorageError], str]:
    code = _CODE.search(body)
    return from_status(status, code[1] if code else "")
