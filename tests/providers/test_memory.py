from __future__ import annotations

import uuid

import pytest

from mscfs.providers.base import StorageProvider
from mscfs.providers.memory import MemoryProvider
from tests.providers.contract import ProviderContract, body


@pytest.fixture
def provider() -> StorageProvider:
    return MemoryProvider(options={"base_path": uuid.uuid4().hex})


class TestMemoryProvider(ProviderContract):
    pass


def test_providers_of_one_base_path_share_their_objects() -> None:
    name = uuid.uuid4().hex
    MemoryProvider(options={"base_path": name}).put("k", b"1")
    assert body(MemoryProvider(profile="other", options={"base_path": name}), "k") == b"1"
    assert list(MemoryProvider(options={"base_path": name + "x"}).list()) == []
