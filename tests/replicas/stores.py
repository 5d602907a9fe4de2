"""A primary and replicas made of scripted memory stores, below one manager."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mscfs.journal import Journal
from mscfs.providers.base import StorageProvider
from mscfs.providers.memory import MemoryProvider
from mscfs.replicas.health import Health
from mscfs.replicas.manager import ReadConsistency, ReplicaManager
from mscfs.replicas.source import Replica, Source
from mscfs.replicas.step import StepResult, bring_up_to_date
from mscfs.types import ByteRange, ObjectMetadata, Version
from tests.doubles import Clock, Script, Scripted

_numbers = itertools.count()


def memory(profile: str) -> MemoryProvider:
    return MemoryProvider(profile=profile, options={"base_path": f"{profile}-{next(_numbers)}"})


@dataclass
class Stores:
    """`primary`, `one` (priority 1) and `two` (priority 2); everything is kept by the journal in `directory`."""

    directory: Path
    read_consistency: ReadConsistency = "primary"
    propagate_deletes: bool = False
    read_only: tuple[str, ...] = ()
    piece: int = 1 << 20
    tells_hashes: bool = True
    names: tuple[str, ...] = ("one", "two")
    inner: dict[str, StorageProvider] = field(default_factory=dict)
    """Providers to wrap instead of memory, by profile."""

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.script = Script()
        self.primary = self._store("primary")
        self.replicas = {name: self._store(name) for name in self.names}
        self.journal = Journal(self.directory / "journal.db", clock=self.clock)
        self.manager = ReplicaManager(
            Source("primary", self.primary, health=Health(clock=self.clock)),
            [
                Replica(
                    name,
                    store,
                    health=Health(clock=self.clock, refusals_count=True),
                    read_priority=number,
                    read_only=name in self.read_only,
                    index=number - 1,
                )
                for number, (name, store) in enumerate(self.replicas.items(), 1)
            ],
            self.journal,
            read_consistency=self.read_consistency,
            propagate_deletes=self.propagate_deletes,
        )

    def _store(self, profile: str) -> Scripted:
        inner = self.inner.get(profile) or memory(profile)
        return Scripted(inner, script=self.script, piece=self.piece, tells_hashes=self.tells_hashes)

    @property
    def one(self) -> Scripted:
        return self.replicas["one"]

    @property
    def two(self) -> Scripted:
        return self.replicas["two"]

    def everyone(self) -> Iterator[Scripted]:
        yield self.primary
        yield from self.replicas.values()

    def read(self, key: str = "k", byte_range: ByteRange | None = None, expected: Version | None = None) -> bytes:
        with self.manager.get(key, byte_range, expected=expected) as reader:
            return reader.read_all()

    def served_by(self, key: str = "k", byte_range: ByteRange | None = None, expected: Version | None = None) -> str:
        with self.manager.get(key, byte_range, expected=expected) as reader:
            reader.read_all()
            return reader.source

    def step(self, profile: str = "one", key: str = "k", *, delete: bool = False) -> StepResult:
        return bring_up_to_date(self.manager, profile, key, delete=delete)

    def everywhere(self, key: str = "k", content: bytes = b"0123456789") -> ObjectMetadata:
        """Put an object and bring it to all replicas; the journal is empty afterwards."""
        written = self.primary.inner.put(key, content)
        for name in self.replicas:
            self.step(name, key)
        self.forget()
        return written

    def carry_out(self) -> None:
        """Carry out all wishes once."""
        for claimed in self.journal.claim(1000, even_if_not_due=True):
            self.step(claimed.replica, claimed.key, delete=claimed.kind == "delete")
            self.journal.finish(claimed)

    def wishes(self) -> set[tuple[str, str, str]]:
        rows = self.journal._database.query("SELECT replica, key, kind FROM wishes")
        return {(replica, key.decode(), kind) for replica, key, kind in rows}

    def forget(self) -> None:
        """Begin to count anew."""
        for store in self.everyone():
            store.calls.clear()
            store.ranges.clear()
            store.served = 0
        self.script.steps.clear()


def content(store: Scripted, key: str = "k") -> bytes | None:
    """What a store holds, whatever state it is in."""
    entries = {entry.key for entry in store.inner.list(key)}
    if key not in entries:
        return None
    with store.inner.get(key) as reader:
        return reader.read_all()
