"""Mounts without a kernel over stores in memory: several on one set of stores, each of which can be killed at any step.

The file systems run in a trio loop of their own, in a thread, with a clock that moves only when a test moves it. A
killed one leaves what was on its disk at that moment: its state directory is put back as it was.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import shutil
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
from trio.testing import MockClock

import mscfs.journal.process
from mscfs.cache.chunks import ChunkCache
from mscfs.config.load import parse_config
from mscfs.errors import StorageError
from mscfs.fuse.assembly import MountParts, assemble, make_memory
from mscfs.journal import Journal
from mscfs.providers.memory import MemoryProvider
from mscfs.replicas.health import Health
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
from mscfs.vfs.filesystem import Filesystem
from tests.doubles import Script, Scripted
from tests.vfs.inline import InlineTransport
from tests.vfs.recovering import recover

REPLICAS = ("near", "far")
LONG = 120
"""Seconds after which an operation hangs, whatever the machine is busy with."""

_numbers = itertools.count(1)


class KilledError(BaseException):
    """The process is gone."""


class Steps(Script):
    """All steps of stores and journals. At one of the next ones the host that is at work may be killed."""

    def __init__(self) -> None:
        super().__init__()
        self.countdown = -1
        self.is_dead = False
        self.on_death: Callable[[], None] = lambda: None

    def step(self, profile: str, what: str, key: str) -> None:
        if self.countdown == 0:
            self.is_dead = True
            self.countdown = -1
            self.on_death()
        if self.is_dead:
            raise KilledError
        self.countdown -= self.countdown > 0
        for action in self.actions.values():
            action()


class Loop:
    """A trio loop in a thread. `clock` stands still until `pass_time`."""

    def __init__(self) -> None:
        self.clock = MockClock()
        self._started: queue.Queue[trio.lowlevel.TrioToken] = queue.Queue()
        self._thread = threading.Thread(target=trio.run, args=(self._main,), kwargs={"clock": self.clock}, daemon=True)
        self._thread.start()
        self._token = self._started.get()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run an async function in the loop."""
        return trio.from_thread.run(function, *arguments, trio_token=self._token)

    def pass_time(self, seconds: float) -> None:
        async def jump() -> None:
            self.clock.jump(seconds)
            await trio.testing.wait_all_tasks_blocked()

        self.call(jump)

    def stop(self) -> None:
        trio.from_thread.run_sync(self._end.set, trio_token=self._token)
        self._thread.join()

    async def _main(self) -> None:
        self._end = trio.Event()
        async with trio.open_nursery() as self.nursery:
            self._started.put(trio.lowlevel.current_trio_token())
            await self._end.wait()
            self.nursery.cancel_scope.cancel()


class Stores:
    """The primary and its replicas, for all hosts."""

    def __init__(self, *, tells_hashes: bool) -> None:
        number = next(_numbers)
        self.steps = Steps()
        self.primary, self.near, self.far = (
            Scripted(
                MemoryProvider(profile=name, options={"base_path": f"{name}-of-model-{number}"}),
                script=self.steps,
                tells_hashes=tells_hashes,
            )
            for name in ("data", *REPLICAS)
        )

    def everyone(self) -> tuple[Scripted, Scripted, Scripted]:
        return self.primary, self.near, self.far


class Host:
    """One mount, with a state directory of its own. It works from `start` to `kill` or `stop`."""

    def __init__(self, loop: Loop, stores: Stores, directory: Path, *, cached: bool, **options: Any) -> None:
        self.loop = loop
        self.stores = stores
        self.directory = directory
        self._cached = cached
        profile = {"storage_provider": {"type": "memory", "options": {"base_path": "model"}}}
        replicas = [{"replica_profile": name, "read_priority": at} for at, name in enumerate(REPLICAS, 1)]
        self._config = parse_config(
            {"profiles": {"data": {**profile, "replicas": replicas, "mscfs": options}, "near": profile, "far": profile}}
        )
        self.parts: MountParts
        self.transport: InlineTransport
        self._saved = directory.with_name(directory.name + "-saved")

    @property
    def fs(self) -> Filesystem:
        return self.parts.filesystem

    def start(self) -> None:
        """Mount: what the last mount left behind is settled first."""
        self.directory.mkdir(exist_ok=True)
        self._token = f"0-{next(_numbers)}-"
        self._become()
        self.loop.call(self._start)

    def call(self, function: Callable[..., Awaitable[Any]], *arguments: Any, die_at: int | None = None) -> Any:
        """Do something on the host. With `die_at` it is killed at that step: KilledError, and it must be started."""
        self._become()
        steps = self.stores.steps
        steps.on_death = self._save
        steps.countdown = -1 if die_at is None else die_at
        try:
            outcome = self.loop.call(self._call, function, *arguments)
        finally:
            steps.countdown = -1
        if steps.is_dead:
            self._end()
            raise KilledError
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def kill(self) -> None:
        """Between two operations."""
        self._save()
        self.stores.steps.is_dead = True
        self._end()

    def work(self, limit: int, *, even_if_not_due: bool = True) -> int:
        """Carry out some wishes; returns how many there were."""

        async def work() -> int:
            await self.parts.replicator.write_gathered()
            claimed = self.parts.journal.claim(limit, even_if_not_due=even_if_not_due)
            for wish in claimed:
                try:
                    await self.transport.step(wish.replica, wish.key, delete=wish.kind == "delete")
                except StorageError as error:
                    self.parts.journal.postpone(wish, str(error))
                else:
                    self.parts.journal.finish(wish)
            return len(claimed)

        return self.call(work)

    def wished(self, key: str) -> list[str]:
        """The replicas for which a copy of that key waits."""
        self.call(self.parts.replicator.write_gathered)
        with contextlib.closing(sqlite3.connect(self.directory / "journal.db")) as connection:
            return [name for (name,) in connection.execute("SELECT replica FROM wishes WHERE key = ?", (key.encode(),))]

    # -- inside ---------------------------------------------------------------------------------------------------

    def _become(self) -> None:
        """Rows of the journal belong to the process of this mount, and to no later one."""
        token = self._token
        mscfs.journal.process._own_token = mscfs.journal.process._token = lambda _: token

    def _save(self) -> None:
        shutil.copytree(self.directory, self._saved)

    def _end(self) -> None:
        async def end() -> None:
            self._scope.cancel()
            await self._over.wait()

        self.loop.call(end)
        self.stores.steps.is_dead = False
        shutil.rmtree(self.directory)
        self._saved.rename(self.directory)

    async def _start(self) -> None:
        self._over = trio.Event()
        await self.loop.nursery.start(self._serve)

    async def _call(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        outcome: Any = KilledError()
        done = trio.Event()

        async def call() -> None:
            nonlocal outcome
            try:
                outcome = await function(*arguments)
            except (Exception, KilledError) as error:  # noqa: BLE001 - raised where it was called
                outcome = error
            finally:
                done.set()

        self._nursery.start_soon(call)
        await done.wait()
        with trio.CancelScope():
            await trio.testing.wait_all_tasks_blocked()  # what goes on in the background has come to rest
        return outcome

    async def _run_blocking(self, call: Callable[..., Any], /, *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        name = getattr(call, "__qualname__", type(call).__name__)
        self.stores.steps.step("host", name, "")
        answer = call(*arguments)
        self.stores.steps.step("host", f"{name}.", "")
        return answer

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        clock = trio.current_time
        journal = Journal(self.directory / "journal.db")
        stores = self.stores
        manager = ReplicaManager(
            Source("data", stores.primary, health=Health(clock=clock)),
            [
                Replica(name, store, health=Health(clock=clock, refusals_count=True), read_priority=at, index=at - 1)
                for at, (name, store) in enumerate(zip(REPLICAS, stores.everyone()[1:], strict=True), 1)
            ],
            journal,
        )
        options = self._config.profiles["data"].mscfs
        memory = make_memory(options)
        cache = ChunkCache(self.directory.with_name(self.directory.name + "-cache"), 1 << 30) if self._cached else None
        try:
            with trio.CancelScope() as self._scope:
                async with trio.open_nursery() as self._nursery:
                    self.transport = InlineTransport(manager, cache, memory, self._nursery, options.chunk_size)
                    self.parts = assemble(
                        self._config, "data", manager, cache, memory, self.transport, self._nursery,
                        self._run_blocking, read_only=False, on_outdated=lambda *_: None,
                    )  # fmt: skip
                    await self.parts.recorder.open()
                    recover(manager, journal, self.parts.area.directory.parent)
                    self._nursery.start_soon(self.parts.prober.run)
                    self._nursery.start_soon(self.parts.recorder.run)
                    task_status.started()
                    await trio.sleep_forever()
        except* KilledError:
            pass
        finally:
            self.parts.area.close()
            self.parts.recorder.close()
            if cache is not None:
                cache.close()
            journal.close()
            memory.close()
            self._over.set()
