"""A write that was done, and of which the client did not hear or which came twice, is no conflict (W5)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mscfs.config.load import parse_config
from mscfs.errors import AlreadyExistsError, VersionMismatchError
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from mscfs.types import CLAIM_KEY
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import Fault, Request, duplicate, lost_answer

pytestmark = pytest.mark.emulator

LARGE = bytes(range(256)) * 24_000
"""Sent in parts."""


@pytest.fixture(params=["s3", "gcs", "azure"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
def proxy(server: Any, fault_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    return fault_proxy(server.url)


@pytest.fixture(params=[True, False], ids=["native", "sdk"])
def provider(server: Any, proxy: FaultProxy, request: pytest.FixtureRequest) -> StorageProvider:
    profile = through(server.new_bucket(), proxy)
    profile["storage_provider"]["options"] |= {"rust_client": request.param, "multipart_threshold": 5 << 20}
    profile["retry"] = {"attempts": 3, "delay": 0.01}
    return open_provider(parse_config({"profiles": {"data": profile}}), "data")


def is_write(request: Request) -> bool:
    return request.method in {"PUT", "POST"} and "/token" not in request.target and ".mscfs-" not in request.target


@pytest.mark.parametrize("fault", [lost_answer(), duplicate()], ids=["lost answer", "duplicate"])
def test_W5_a_retry_that_finds_its_own_write_is_no_conflict(
    provider: StorageProvider, proxy: FaultProxy, fault: Fault
) -> None:
    version = provider.put("k", b"old").version
    for content in (b"new", LARGE):
        with proxy.failing(fault, where=is_write, times=1):
            version = provider.put("k", content, expected=version, metadata={"Run": "1"}).version
        with provider.get("k", expected=version) as answer:
            assert answer.read_all() == content
        assert provider.head("k").version == version


def test_W5_a_retry_that_finds_somebody_elses_write_is_a_conflict(provider: StorageProvider, proxy: FaultProxy) -> None:
    old = provider.put("k", b"old").version
    provider.put("k", b"theirs")
    with proxy.failing(duplicate(), where=is_write, times=1), pytest.raises(VersionMismatchError):
        provider.put("k", b"mine!!", expected=old)
    assert provider.get("k").read_all() == b"theirs"


@pytest.mark.parametrize("fault", [lost_answer(), duplicate()], ids=["lost answer", "duplicate"])
def test_W5_who_takes_a_name_finds_his_own_claim(provider: StorageProvider, proxy: FaultProxy, fault: Fault) -> None:
    with proxy.failing(fault, where=is_write, times=1):
        made = provider.put("k", b"", if_absent=True, metadata={CLAIM_KEY: "mine"})
    assert provider.head("k").version == made.version
    with proxy.failing(fault, where=is_write, times=1), pytest.raises(AlreadyExistsError):
        provider.put("k", b"", if_absent=True, metadata={CLAIM_KEY: "of another"})
    provider.put("k", b"written since", metadata={CLAIM_KEY: "mine"})
    with pytest.raises(AlreadyExistsError):
        provider.put("k", b"", if_absent=True, metadata={CLAIM_KEY: "mine"})


def test_W5_a_new_file_whose_answer_was_lost_is_ours(provider: StorageProvider, proxy: FaultProxy) -> None:
    with proxy.failing(lost_answer(), where=is_write, times=1):
        provider.put("k", b"mine", if_absent=True)
    assert provider.get("k").read_all() == b"mine"
    with pytest.raises(AlreadyExistsError):
        provider.put("k", b"mine", if_absent=True)
