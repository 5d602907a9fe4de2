"""W5 on servers that speak S3's protocol and do not decide about the conditions of writes, or will not hear of them."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from mscfs.errors import AlreadyExistsError, StoreUnavailableError, VersionMismatchError
from mscfs.providers.s3 import S3Provider, S8kProvider
from mscfs.providers.s3_conditions import Verdict
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import Fault, Request, deaf_to, reset, status
from tests.emulators.s3 import S3Server
from tests.providers.test_s3 import opened

pytestmark = pytest.mark.emulator

CONDITIONS = {"if-match", "if-none-match"}


def is_conditional_write(request: Request) -> bool:
    return request.method in {"PUT", "POST"} and bool(request.headers.keys() & CONDITIONS)


NOT_IMPLEMENTED = status(501, b"<Error><Code>NotImplemented</Code></Error>")
SERVERS = {"deaf": deaf_to(*CONDITIONS), "501": NOT_IMPLEMENTED, "400": status(400, b"<Error><Code>Odd</Code></Error>")}


@pytest.fixture(params=[True, False], ids=["native", "sdk"])
def native(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def proxy(s3_server: S3Server, fault_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    return fault_proxy(s3_server.url)


@pytest.fixture
def provider(s3_server: S3Server, proxy: FaultProxy, native: bool) -> S3Provider:
    return opened(through(s3_server.new_bucket(), proxy), rust_client=native)


def keys(provider: S3Provider) -> list[str]:
    return [entry.key for entry in provider.list()]


@pytest.mark.parametrize("fault", SERVERS.values(), ids=SERVERS)
def test_W5_where_the_server_does_not_decide_mscfs_compares(
    provider: S3Provider, proxy: FaultProxy, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    rule = proxy.on(fault, where=is_conditional_write)
    old = provider.put("k", b"old").version
    new = provider.put("k", b"new").version
    with caplog.at_level(logging.WARNING), pytest.raises(VersionMismatchError):
        provider.put("k", b"mine", expected=old)
    rule.assert_fired(1)
    assert "ignores the conditions of writes" in caplog.text
    assert not provider.decides_conditions()
    with pytest.raises(AlreadyExistsError):
        provider.put("k", b"mine", if_absent=True)
    upload = provider.start_upload("k")
    upload.put_part(1, b"mine")
    with pytest.raises(VersionMismatchError):
        upload.complete(expected=old)
    with pytest.raises(VersionMismatchError):
        provider.delete("k", expected=old)
    assert provider.get("k").read_all() == b"new"
    third = provider.put("k", b"third", expected=new)
    provider.put("l", b"first", if_absent=True)
    provider.delete("l", expected=provider.head("l").version)
    assert provider.get("k", expected=third.version).read_all() == b"third"
    assert keys(provider) == ["k"]
    assert proxy.count(key=".mscfs-condition-*") == (2 if rule.fault.unheard else 1)


def test_W5_a_server_that_decides_is_asked_once_and_keeps_nothing_of_it(
    provider: S3Provider, proxy: FaultProxy
) -> None:
    old = provider.put("k", b"old").version
    assert proxy.count(key=".mscfs-condition-*") == 0
    new = provider.put("k", b"new", expected=old).version
    assert provider.decides_conditions()
    proxy.forget()
    with pytest.raises(VersionMismatchError):
        provider.put("k", b"mine", expected=old)
    with pytest.raises(AlreadyExistsError):
        provider.put("k", b"mine", if_absent=True)
    assert [request.method for request in proxy.requests] == ["PUT", "PUT"]
    assert provider.get("k", expected=new).read_all() == b"new"
    assert keys(provider) == ["k"]


def test_W5_where_it_may_not_be_tried_out_mscfs_compares_and_sends_the_condition_too(
    provider: S3Provider, proxy: FaultProxy
) -> None:
    rule = proxy.on(status(403), "PUT", ".mscfs-condition-*")
    old = provider.put("k", b"old").version
    provider.put("k", b"new", expected=old)
    rule.assert_fired(1)
    assert provider._sdk.conditions.verdict is Verdict.UNTOLD
    with pytest.raises(VersionMismatchError):
        provider.put("k", b"mine", expected=old)
    proxy.forget()
    provider.put("l", b"", if_absent=True)
    assert "if-none-match" in proxy.asked("PUT")[0].headers


def test_W5_a_server_that_does_not_answer_is_asked_again(provider: S3Provider, proxy: FaultProxy) -> None:
    old = provider.put("k", b"old").version
    with proxy.failing(reset(), "PUT", ".mscfs-condition-*"), pytest.raises(StoreUnavailableError):
        provider.put("k", b"new", expected=old)
    assert provider._sdk.conditions.verdict is None
    provider.put("k", b"new", expected=old)
    assert provider.decides_conditions()


def test_W5_types_that_are_known_not_to_decide_are_not_tried_out(
    s3_server: S3Server, proxy: FaultProxy, native: bool
) -> None:
    provider = opened(through(s3_server.new_bucket(), proxy), kind=S8kProvider, rust_client=native)
    old = provider.put("k", b"old").version
    provider.put("k", b"new", expected=old)
    with pytest.raises(VersionMismatchError):
        provider.put("k", b"mine", expected=old)
    assert not any(request.headers.keys() & CONDITIONS for request in proxy.asked("PUT"))
    assert proxy.count(key=".mscfs-condition-*") == 0
