"""A file system without kernel, processes or threads: the blocking core runs inline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.config.load import parse_config
from mscfs.config.values import Config
from mscfs.fuse.assembly import MountParts, assemble, open_cache
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.step import StepResult, bring_up_to_date
from mscfs.store import open_store
from mscfs.types import ByteRange, ObjectMetadata, Version
from mscfs.vfs.transport import OnChunk
from mscfs.workers.protocol import FetchSummary


async def inline(call: Callable[..., Any], /, *arguments: Any) -> Any:
    """Run a blocking call here and now, after giving way once as a thread would."""
    await trio.lowlevel.checkpoint()
    return call(*arguments)


@dataclass
class InlineTransport:
    """Moves bytes in this process. `before` is awaited at the start of each call: tests hold it up there."""

    manager: ReplicaManager
    cache: ChunkCache
    chunk_size: int
    before: Callable[..., Any] | None = None
    fetches: int = 0
    bytes_fetched: int = 0
    uploads: int = 0
    listings: int = 0

    async def _enter(self, *what: object) -> None:
        await trio.lowlevel.checkpoint()
        if self.before is not None:
            await self.before(*what)

    async def fetch(
        self, key: str, version: Version, first: int, count: int, *, foreground: bool, on_chunk: OnChunk
    ) -> FetchSummary:
        await self._enter("fetch", key, first)
        self.fetches += 1
        wanted = ByteRange(first * self.chunk_size, count * self.chunk_size)
        digest = object_digest(self.manager.identity, key, version, self.chunk_size)
        with self.manager.open_version(key, wanted, version) as reader:
            data = reader.read_all()
        self.bytes_fetched += len(data)
        for index in range(first, first + count):
            begin = (index - first) * self.chunk_size
            piece = data[begin : begin + self.chunk_size]
            kept = self.cache.insert(ChunkId(digest, index), piece)
            on_chunk(index, None if kept else piece)
        return FetchSummary(reader.source, len(data), reader.missing, reader.stale)

    async def upload(
        self, key: str, path: Path, *, metadata: Mapping[str, str] | None, if_absent: bool, expected: Version | None
    ) -> ObjectMetadata:
        await self._enter("upload", key)
        self.uploads += 1
        return self.manager.primary.put(key, path, metadata=metadata, if_absent=if_absent, expected=expected)

    async def download(self, key: str, version: Version, target: Path) -> FetchSummary:
        await self._enter("download", key)
        with self.manager.open_version(key, None, version) as reader, target.open("wb") as file:
            for piece in reader:
                file.write(piece)
        return FetchSummary(reader.source, reader.byte_range.size, reader.missing, reader.stale)

    async def list_directory(self, directory, on_page):
        await self._enter("list", directory)
        self.listings += 1
        for page in self.manager.list_pages(directory):
            on_page(page)
            await self._enter("page", directory)
        return ()

    async def step(self, profile: str, key: str, *, delete: bool) -> StepResult:
        await self._enter("step", profile, key)
        return bring_up_to_date(self.manager, profile, key, delete=delete)


@dataclass
class World:
    """A file system over `file` stores in a temporary directory: `primary`, `near` and `far`."""

    parts: MountParts
    transport: InlineTransport
    root: Path

    @property
    def fs(self):
        return self.parts.filesystem

    def store(self, name: str) -> Path:
        return self.root / name


def file_profile(path: Path, **more: Any) -> dict[str, Any]:
    return {"storage_provider": {"type": "file", "options": {"base_path": str(path)}}, **more}


def memory_profile(path: Path, **more: Any) -> dict[str, Any]:
    return {"storage_provider": {"type": "memory", "options": {"base_path": str(path)}}, **more}


def make_config(root: Path, *, replicas: bool = True, objects: bool = False, **mscfs: Any) -> Config:
    """A `file` primary (with `objects`: an object store in memory) with two replicas of the same kind.

    `mscfs` are keys of the profile's own block.
    """
    for name in ("primary", "near", "far"):
        (root / name).mkdir(exist_ok=True)
    make_profile = memory_profile if objects else file_profile
    extra: dict[str, Any] = {"mscfs": mscfs, "retry": {"attempts": 1, "delay": 0.0}}
    if replicas:
        extra["replicas"] = [
            {"replica_profile": "near", "read_priority": 1},
            {"replica_profile": "far", "read_priority": 2},
        ]
    return parse_config(
        {
            "profiles": {
                "data": make_profile(root / "primary", **extra),
                "near": make_profile(root / "near"),
                "far": make_profile(root / "far"),
            }
        }
    )


@asynccontextmanager
async def world(root: Path, *, read_only: bool = False, **options: Any) -> AsyncIterator[World]:
    """Run a file system; options as in `make_config`. The replicator runs only when the test says so."""
    config = make_config(root, **options)
    manager = open_store(config, "data")
    cache = open_cache(config, "data")
    transport = InlineTransport(manager, cache, config.profiles["data"].mscfs.chunk_size)
    try:
        async with trio.open_nursery() as nursery:
            parts = assemble(config, "data", manager, cache, transport, nursery, inline, read_only=read_only)
            yield World(parts, transport, root)
            nursery.cancel_scope.cancel()
    finally:
        parts.area.close()
        cache.close()
        manager.close()
