"""Parts of an upload that cannot be thrown away just now are not forgotten (W6)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mscfs.config.load import parse_config
from mscfs.errors import StoreUnavailableError
from mscfs.providers.registry import open_provider
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import Request, lost_answer, status

pytestmark = pytest.mark.emulator


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_W6_an_upload_whose_end_was_not_heard_of_leaves_no_parts(
    kind: str, request: pytest.FixtureRequest, fault_proxy: Callable[[str], FaultProxy]
) -> None:
    server: Any = request.getfixturevalue(f"{kind}_server")
    proxy = fault_proxy(server.url)
    profile = through(server.new_bucket(), proxy) | {"retry": {"attempts": 2, "delay": 0.01}}
    provider = open_provider(parse_config({"profiles": {"data": profile}}), "data")
    version = provider.put("k", b"old").version
    upload = provider.start_upload("k")
    upload.put_part(1, b"new")
    with proxy.failing(lost_answer(), "POST", where=_is_the_end, times=1):
        assert upload.complete(expected=version).version == provider.head("k").version
    assert _objects_and_parts(kind, server, profile) == 1


def _is_the_end(request: Request) -> bool:
    return request.key.endswith("/compose") or "uploadId" in request.query


def _objects_and_parts(kind: str, server: Any, profile: dict[str, Any]) -> int:
    name = profile["storage_provider"]["options"]["base_path"].split("/")[0]
    if kind == "gcs":
        return len(server.call("GET", f"/storage/v1/b/{name}/o").get("items", []))
    listed, uploads = (
        getattr(server.client(), call)(Bucket=name) for call in ("list_objects_v2", "list_multipart_uploads")
    )
    return len(listed.get("Contents", [])) + len(uploads.get("Uploads", []))


@pytest.mark.parametrize("kind", ["s3", "gcs"])
def test_W6_what_cannot_be_thrown_away_is_told_and_can_be_later(
    kind: str, request: pytest.FixtureRequest, fault_proxy: Callable[[str], FaultProxy]
) -> None:
    server: Any = request.getfixturevalue(f"{kind}_server")
    proxy = fault_proxy(server.url)
    profile = through(server.new_bucket(), proxy) | {"retry": {"attempts": 2, "delay": 0.01}}
    provider = open_provider(parse_config({"profiles": {"data": profile}}), "data")
    first, second = provider.start_upload("k"), provider.start_upload("k")
    for upload in (first, second):
        upload.put_part(1, b"1")
    with proxy.failing(status(503), "DELETE"):
        with pytest.raises(StoreUnavailableError):
            first.abort()
        assert proxy.count("DELETE") == 2  # it was tried again
        with pytest.raises(StoreUnavailableError):
            provider.abort_upload("k", second.token)
    first.abort()
    provider.abort_upload("k", second.token)
    assert _objects_and_parts(kind, server, profile) == 0
