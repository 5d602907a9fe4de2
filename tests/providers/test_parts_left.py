"""Parts of an upload that cannot be thrown away just now are not forgotten (W6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from mscfs.config.load import parse_config
from mscfs.errors import StoreUnavailableError
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import Request, lost_answer, status

pytestmark = pytest.mark.emulator


@dataclass(frozen=True)
class Store:
    kind: str
    server: Any
    proxy: FaultProxy
    bucket: str
    provider: StorageProvider


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest, fault_proxy: Callable[[str], FaultProxy]) -> Store:
    """A bucket behind a proxy; what fails is tried once more."""
    server = request.getfixturevalue(f"{request.param}_server")
    proxy = fault_proxy(server.url)
    profile = through(server.new_bucket(), proxy) | {"retry": {"attempts": 2, "delay": 0.01}}
    bucket = profile["storage_provider"]["options"]["base_path"].split("/")[0]
    provider = open_provider(parse_config({"profiles": {"data": profile}}), "data")
    return Store(request.param, server, proxy, bucket, provider)


def test_W6_an_upload_whose_end_was_not_heard_of_leaves_no_parts(store: Store) -> None:
    version = store.provider.put("k", b"old").version
    upload = store.provider.start_upload("k")
    upload.put_part(1, b"new")
    with store.proxy.failing(lost_answer(), "POST", where=_is_the_end, times=1):
        assert upload.complete(expected=version).version == store.provider.head("k").version
    assert _objects_and_parts(store) == 1


def _is_the_end(request: Request) -> bool:
    return request.key.endswith("/compose") or "uploadId" in request.query


def _objects_and_parts(store: Store) -> int:
    if store.kind == "gcs":
        return len(store.server.call("GET", f"/storage/v1/b/{store.bucket}/o").get("items", []))
    client = store.server.client()
    listed, uploads = (
        getattr(client, call)(Bucket=store.bucket) for call in ("list_objects_v2", "list_multipart_uploads")
    )
    return len(listed.get("Contents", [])) + len(uploads.get("Uploads", []))


def test_W6_what_cannot_be_thrown_away_is_told_and_can_be_later(store: Store) -> None:
    first, second = store.provider.start_upload("k"), store.provider.start_upload("k")
    for upload in (first, second):
        upload.put_part(1, b"1")
    with store.proxy.failing(status(503), "DELETE"):
        with pytest.raises(StoreUnavailableError):
            first.abort()
        assert store.proxy.count("DELETE") == 2  # it was tried again
        with pytest.raises(StoreUnavailableError):
            store.provider.abort_upload("k", second.token)
    first.abort()
    store.provider.abort_upload("k", second.token)
    assert _objects_and_parts(store) == 0
