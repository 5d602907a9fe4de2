"""A file system without kernel, processes or threads: the blocking core runs inline."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mscfs.cache.arena import SharedMemory
from mscfs.cache.chunks import ChunkCache
from mscfs.config.load import parse_config
from mscfs.config.values import Config
from mscfs.errors import StorageError
from mscfs.fuse.assembly import MountParts, assemble, make_memory, open_cache
from mscfs.providers.base import MultipartUpload
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.outage import pages_of_primary, pages_of_replica
from mscfs.replicas.step import StepResult, bring_up_to_date
from mscfs.store import open_store
from mscfs.types import ByteRange, ObjectMetadata, Version
from mscfs.workers.protocol import Fetch, FetchDone, FetchSummary, Stores, pack_text, unpack_text
from mscfs.workers.tasks import Tasks, put_file


async def inline(call: Callable[..., Any], /, *arguments: Any) -> Any:
    """Run a blocking call here and now, after giving way once as a thread would."""
    await trio.lowlevel.checkpoint()
    return call(*arguments)


class InlineFetch:
    def promote(self) -> None:
        pass

    def cancel(self) -> None:
        pass


@dataclass
class InlineTransport:
    """Moves bytes in this process. `before` is awaited at the start of each call: tests hold it up there."""

    manager: ReplicaManager
    cache: ChunkCache | None
    memory: SharedMemory
    nursery: trio.Nursery
    chunk_size: int
    before: Callable[..., Any] | None = None
    fetches: int = 0
    bytes_fetched: int = 0
    uploads: int = 0
    listings: int = 0
    opened: list[MultipartUpload] = field(default_factory=list)
    parts: int = 0
    completed: int = 0
    aborted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tasks = Tasks(
            self.manager, self.cache, self.memory, namespace=self.manager.identity, chunk_size=self.chunk_size
        )

    def watching(self, store: str) -> AbstractContextManager[None]:
        return nullcontext()

    def on_trouble(self, store: str, error: StorageError) -> None:
        pass

    def tell(self, stores: Stores) -> None:
        self.stores = stores

    async def _enter(self, *what: object) -> None:
        await trio.lowlevel.checkpoint()
        if self.before is not None:
            await self.before(*what)

    def start_fetch(
        self,
        key: str,
        version: Version,
        first: int,
        count: int,
        target: int,
        *,
        foreground: bool,
        present: int = 0,
        lacking: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        on_arrival,
        on_slow,
        on_end,
    ) -> InlineFetch:
        request = Fetch(1, pack_text(key), version, first, count, target, foreground, present, lacking, without)
        self.nursery.start_soon(self._fetch, request, on_arrival, on_end)
        return InlineFetch()

    async def _fetch(self, request: Fetch, on_arrival, on_end) -> None:
        key = unpack_text(request.key)
        try:
            await self._enter("fetch", key, request.first)
            self.fetches += 1
            done = self._tasks.perform(request, lambda message: on_arrival(message.size), lambda: False)
        except StorageError as error:
            on_end(None, error)
        except Exception as error:  # noqa: BLE001 - a bug is told as the worker tells it
            on_end(None, StorageError(f"internal error: {error!r}"))
        else:
            assert isinstance(done, FetchDone)
            self.bytes_fetched += done.summary.bytes
            on_end(done.summary, None)

    async def upload(
        self,
        key: str,
        path: Path,
        *,
        metadata: Mapping[str, str] | None,
        if_absent: bool,
        expected: Version | None,
        repeated: bool = False,
    ) -> ObjectMetadata:
        await self._enter("claim" if if_absent else "upload", key)
        self.uploads += not if_absent
        return put_file(
            self.manager.primary,
            key,
            path,
            metadata=metadata,
            if_absent=if_absent,
            expected=expected,
            repeated=repeated,
        )

    async def begin_parts(self, key: str, metadata: Mapping[str, str] | None) -> tuple[int, str]:
        await self._enter("begin_parts", key)
        self.opened.append(self.manager.primary.start_upload(key, metadata=metadata))
        return len(self.opened), self.opened[-1].token or f"token-{len(self.opened)}"

    async def send_part(self, upload: int, key: str, number: int, path: Path, part: ByteRange) -> None:
        await self._enter("send_part", key, number)
        self.opened[upload - 1].put_slice(number, path, part)
        self.parts += 1

    async def complete_parts(
        self, upload: int, key: str, *, if_absent: bool, expected: Version | None
    ) -> ObjectMetadata:
        await self._enter("complete_parts", key)
        written = self.opened[upload - 1].complete(if_absent=if_absent, expected=expected)
        self.completed += 1
        return written

    async def abort_parts(self, upload: int, key: str, token: str) -> None:
        await self._enter("abort_parts", key)
        self.opened[upload - 1].abort()
        self.aborted.append(key)

    async def download(self, key: str, version: Version, target: Path) -> FetchSummary:
        await self._enter("download", key)
        with self.manager.open_version(key, None, version) as reader, target.open("wb") as file:
            for piece in reader:
                file.write(piece)
        return FetchSummary(reader.source, reader.byte_range.size, reader.missing, reader.stale)

    async def list_directory(self, directory, on_page, *, store="", stand_in=False):
        await self._enter("list", directory)
        self.listings += not store
        pages = partial(pages_of_replica if stand_in else pages_of_primary, self.manager)
        for page in (self.manager.replica(store).provider.list_pages if store else pages)(directory):
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
    outdated: list[tuple[int, str]]
    """Directories and names that the kernel was told to ask for again."""

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
    options = config.profiles["data"].mscfs
    memory = make_memory(options)
    try:
        async with trio.open_nursery() as nursery:
            transport = InlineTransport(manager, cache, memory, nursery, options.chunk_size)
            outdated: list[tuple[int, str]] = []
            parts = assemble(
                config, "data", manager, cache, memory, transport, nursery, inline,
                read_only=read_only, on_outdated=lambda directory, name: outdated.append((directory, name)),
            )  # fmt: skip
            await parts.recorder.open()
            yield World(parts, transport, root, outdated)
            nursery.cancel_scope.cancel()
    finally:
        parts.area.close()
        parts.recorder.close()
        if cache is not None:
            cache.close()
        manager.close()
        memory.close()
