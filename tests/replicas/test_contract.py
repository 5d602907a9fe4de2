"""The manager is a storage provider like any other, whatever its replicas are doing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mscfs.errors import (
    IntegrityError,
    NotFoundError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import StorageProvider
from tests.providers.contract import BODY, ProviderContract
from tests.replicas.stores import Stores


class TestReplicasThatLackEverything(ProviderContract):
    @pytest.fixture
    def provider(self, stores: Stores) -> StorageProvider:
        return stores.manager


class _OneInTrouble(ProviderContract):
    """Pinned reads of a version that the healthy stores lack: the one in trouble may hold it, so nobody can say."""

    def test_R1_pinned_read_gives_the_expected_version_or_fails(self, provider: StorageProvider) -> None:
        old = provider.put("k", b"old").version
        new = provider.put("k", b"new").version
        with provider.get("k", expected=new) as answer:
            assert answer.read_all() == b"new"
        with pytest.raises(StoreUnavailableError):
            provider.get("k", expected=old)

    def test_R1_pinned_read_of_a_deleted_key_is_not_found(self, provider: StorageProvider) -> None:
        old = provider.put("k", b"old").version
        provider.delete("k")
        with pytest.raises(StoreUnavailableError):
            provider.get("k", expected=old)


class TestFirstReplicaFailing(_OneInTrouble):
    @pytest.fixture
    def provider(self, stores: Stores) -> StorageProvider:
        stores.one.go_down()
        return stores.manager


class TestFirstReplicaSilent(_OneInTrouble):
    @pytest.fixture
    def provider(self, stores: Stores) -> StorageProvider:
        stores.one.go_down(StoreTimeoutError("silent", store="one"))
        return stores.manager


class _Served(ProviderContract):
    """Every write is on all replicas before anybody reads, so that the replicas serve."""

    def test_get_gives_the_whole_object_and_its_metadata(self, provider: StorageProvider) -> None:
        written = provider.put("a/b", BODY)
        with provider.get("a/b") as answer:
            assert answer.source == "one"
            assert answer.metadata.version == written.version
            assert answer.metadata.last_modified == written.last_modified
            assert answer.read_all() == BODY

    def test_user_metadata_is_kept_and_replaced_with_the_object(self, provider: StorageProvider) -> None:
        """All but a stamp, which a copy has of its own."""
        for metadata in ({"colour": "blue and 'green'"}, {"shape": "round"}):
            provider.put("k", b"1", metadata=metadata)
            assert provider.head("k").metadata == metadata
            with provider.get("k") as answer:
                assert answer.metadata.metadata == metadata

    def test_R1_pinned_read_of_a_deleted_key_is_not_found(self, provider: StorageProvider) -> None:
        """As long as a replica holds the version, open handles read on."""
        old = provider.put("k", b"old").version
        provider.delete("k")
        with pytest.raises(NotFoundError):
            provider.get("k")
        with provider.get("k", expected=old) as answer:
            assert answer.read_all() == b"old"


class TestReplicasServe(_Served):
    @pytest.fixture
    def provider(self, stores: Stores) -> StorageProvider:
        stores.manager.on_wish = stores.carry_out
        return stores.manager


class TestReplicasServeAndDeletesArePropagated(_Served):
    def test_R1_pinned_read_of_a_deleted_key_is_not_found(self, provider: StorageProvider) -> None:
        ProviderContract.test_R1_pinned_read_of_a_deleted_key_is_not_found(self, provider)

    @pytest.fixture
    def provider(self, tmp_path: Path) -> StorageProvider:
        stores = Stores(tmp_path, propagate_deletes=True, tells_hashes=False)
        stores.manager.on_wish = stores.carry_out
        return stores.manager


class TestReplicasBreakOff(_Served):
    """The first replica delivers one byte of everything."""

    replaced_midway = (VersionMismatchError, IntegrityError)

    @pytest.fixture
    def provider(self, tmp_path: Path) -> StorageProvider:
        stores = Stores(tmp_path)
        stores.manager.on_wish = stores.carry_out
        stores.one.truncated_at = 1
        return stores.manager

    def test_get_gives_the_whole_object_and_its_metadata(self, provider: StorageProvider) -> None:
        provider.put("a/b", BODY)
        with provider.get("a/b") as answer:
            assert answer.read_all() == BODY
            assert answer.source == "two"
