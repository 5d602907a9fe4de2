from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mscfs.client.client import StorageClient
from mscfs.client.config import StorageClientConfig
from mscfs.client.replicator import Replicator
from mscfs.config.values import Config
from mscfs.journal import Journal
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
from tests.client.stores import Store


@dataclass
class World:
    """A primary and two replicas in memory, and clients of them that share one journal."""

    directory: Path
    primary: Store = field(default_factory=lambda: Store("data"))
    near: Store = field(default_factory=lambda: Store("near"))
    far: Store = field(default_factory=lambda: Store("far"))
    read_only: frozenset[str] = frozenset()
    options: dict[str, object] = field(default_factory=dict)
    clients: list[StorageClient] = field(default_factory=list)

    @property
    def replicas(self) -> tuple[Store, Store]:
        return self.near, self.far

    @property
    def journal(self) -> Journal:
        return self.client().store.journal

    def client(self) -> StorageClient:
        """A new client, as in another process: no health, no connection is shared with the others."""
        profile = {"storage_provider": {"type": "file", "options": {"base_path": "/nowhere"}}}
        config = StorageClientConfig.from_dict({"profiles": {"data": profile, "near": profile, "far": profile}}, "data")
        client = StorageClient(config, open_store=self._open)
        self.clients.append(client)
        return client

    def _open(self, _config: Config, profile: str) -> ReplicaManager:
        if profile != "data":
            store = {"near": self.near, "far": self.far}[profile]
            return ReplicaManager(Source(profile, store), [], None)
        replicas = [
            Replica(
                store.profile, store, read_priority=index + 1, read_only=store.profile in self.read_only, index=index
            )
            for index, store in enumerate(self.replicas)
        ]
        return ReplicaManager(
            Source("data", self.primary), replicas, Journal(self.directory / "journal.db"), **self.options
        )

    def replicate(self) -> None:
        """Carry out all wishes."""
        assert self.client().drain(timeout=30).complete


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for client in made.clients:
        client.close()


@pytest.fixture
def no_background(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody carries out wishes until the test drains."""
    monkeypatch.setattr(Replicator, "wake", lambda _self: None)


@pytest.fixture
def file_config(tmp_path: Path) -> Callable[..., StorageClientConfig]:
    """A configuration of `file` profiles below `stores/` in the temporary directory: data, near, far."""

    def make(**extra: object) -> StorageClientConfig:
        names = ("data", "near", "far")
        profiles: dict[str, dict[str, object]] = {
            name: {"storage_provider": {"type": "file", "options": {"base_path": str(tmp_path / "stores" / name)}}}
            for name in names
        }
        profiles["data"]["replicas"] = [
            {"replica_profile": "near", "read_priority": 1},
            {"replica_profile": "far", "read_priority": 2},
        ]
        profiles["data"].update(extra)
        for name in names:
            (tmp_path / "stores" / name).mkdir(parents=True, exist_ok=True)
        return StorageClientConfig.from_dict({"profiles": profiles}, "data")

    return make
