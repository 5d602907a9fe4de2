"""One mount, from the first check to the last flush."""

from __future__ import annotations

import gc
import logging
import math
import os
import resource
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyfuse3
import trio

from mscfs.cache.arena import SharedMemory
from mscfs.config.load import find_profile
from mscfs.config.values import Config
from mscfs.directories import state_directory
from mscfs.errors import MscfsError, StorageError, StoreMissingError, StoreTimeoutError, StoreUnavailableError
from mscfs.fuse import loop, trim
from mscfs.fuse.answers import make_kernel_ask
from mscfs.fuse.assembly import MountParts, assemble, make_memory, names_file, open_cache
from mscfs.fuse.kernel import mounted
from mscfs.fuse.operations import Operations
from mscfs.fuse.ownership import shared
from mscfs.fuse.requests import RequestCounts
from mscfs.fuse.threads import Threads
from mscfs.fuse.tuning import raise_limits
from mscfs.fuse.xattrs import XattrReader
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.placement import Placement, locate
from mscfs.replicas.source import Replica
from mscfs.store import load_store, open_store
from mscfs.vfs.gate import Gate
from mscfs.vfs.loopdelay import LoopDelay
from mscfs.vfs.recovery import Recovery
from mscfs.vfs.transport import RunBlocking
from mscfs.workers.launch import Launched, fork
from mscfs.workers.pool import TRANSFER_PROCESSES, WorkerPool

log = logging.getLogger(__name__)

THREADS = 16
"""For what is rare on the trio side: metadata requests and journal commits."""

COLLECTION = (100_000, 20, 100)
"""Thresholds of Python's garbage collector: requests make many objects and no cycles, and inodes live long."""

PATIENCE = 10.0
"""Seconds that the primary has to answer at the start, if there are replicas to stand in for it, and then once more for
what ended mounts left behind to be settled. Whatever takes longer goes on while the mount answers."""

LOOK_INTERVAL = 1.0
"""Seconds between two looks whether the primary is back, of what has to wait for it."""

CONDITIONS_INTERVAL = 30.0
"""Seconds until a primary that did not answer is asked again what it does with conditions."""

PREPARE_AFTER = 0.3
"""Seconds from the announcement until worker processes make clients, unless a request comes first."""

IDLE_TASKS = 64
"""Of pyfuse3: making a task for each request that has to wait costs more than to keep it."""

MOST_TASKS = 512
"""Requests at once. Each may wait for a store that does not answer, and those behind them are not even looked at. A
write that waits holds its data twice, in memory that nobody counts: so there is a limit."""


@dataclass(frozen=True)
class MountRequest:
    """What to mount where. The profile's `mscfs` options are those of the configuration, overrides applied."""

    config: Config
    profile: str
    mountpoint: Path
    read_only: bool = False
    allow_other: bool = False
    no_exec: bool = False


class Mount:
    """A running mount, as the control socket sees it."""

    def __init__(self, request: MountRequest, parts: MountParts, recovery: Recovery) -> None:
        self.request = request
        self.parts = parts
        self.recovery = recovery
        self.started = time.time()
        self.stopping = False
        self.loop_delay = LoopDelay()
        self.requests = RequestCounts()
        self.primary_decides: bool | None = None
        """Whether the primary decides about the conditions of writes (W5); None while that is not known."""
        self._stop = trio.Event()

    async def drain(self, seconds: float) -> int:
        """Bring all replicas up to date; returns how many journal entries are left after `seconds`."""
        deadline = trio.current_time() + seconds
        with trio.CancelScope(deadline=deadline):
            # What reads have just found missing is told when their fetches end, a moment after their last byte.
            await self.parts.fetcher.settled()
        return await self.parts.replicator.drain(max(0.0, deadline - trio.current_time()))

    async def where(self, key: str) -> list[Placement]:
        """Which stores hold a key. Raises NotFoundError, and StoreTimeoutError for a directory that is silent."""
        return await self.parts.on_any_store(locate, self.parts.manager, key)

    async def find_out(self) -> None:
        """Learn what the primary does with conditions, as soon as it answers."""
        manager = self.parts.manager
        while self.primary_decides is None:
            if not manager.primary_source.health.healthy:
                await trio.sleep(LOOK_INTERVAL)
                continue
            try:
                self.primary_decides = await self.parts.run_blocking(manager.decides_conditions)
            except StorageError as error:
                manager.primary_source.failed(error)
                await trio.sleep(CONDITIONS_INTERVAL)

    def stop(self) -> None:
        """Begin to end: upload what is dirty, then unmount."""
        self.stopping = True
        self._stop.set()

    async def wait_stop(self) -> None:
        """Return when somebody asked the mount to end."""
        await self._stop.wait()


Service = Callable[[Mount], Awaitable[None]]
"""Runs beside the mount until cancelled: the control socket, metrics."""


def run(request: MountRequest, announce: Callable[[str], None], services: Sequence[Service] = ()) -> None:
    """Mount and serve in this process until unmounted, stopped or signalled (blocking).

    `announce` is called once, when the mount answers, with what is wrong with the primary if it is down. Raises
    MountError, ConfigError or StorageError when it cannot start; nothing stays mounted then. Ends within
    `shutdown_timeout` of being told to, whatever the stores do (L2); what could not be uploaded by then stays staged
    for the next mount.
    """
    gc.disable()  # what is loaded stays
    _raise_descriptor_limit()
    loop.install(pyfuse3)
    options = find_profile(request.config, request.profile).mscfs
    memory = make_memory(options)
    load_store(request.config, request.profile)
    gc.freeze()
    processes = (options.workers or _fetch_processes()) + TRANSFER_PROCESSES
    # Before there are threads, a journal or connections.
    launched = [fork(memory) for _ in range(processes)]
    gc.set_threshold(*COLLECTION)
    gc.enable()
    try:
        with shared(state_directory()):
            trio.run(_serve, request, memory, launched, announce, services)
    except BaseExceptionGroup as group:
        refusals, others = group.split(MscfsError)
        if others is not None or refusals is None:
            raise
        # What stopped the mount, without the nurseries it came through.
        raise _first(refusals) from group


def _raise_descriptor_limit() -> None:
    """Use all descriptors we may have: each chunk that a handle keeps mapped costs one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _first(group: BaseExceptionGroup[MscfsError]) -> MscfsError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _serve(
    request: MountRequest,
    memory: SharedMemory,
    launched: Sequence[Launched],
    announce: Callable[[str], None],
    services: Sequence[Service],
) -> None:
    run_blocking = Threads(THREADS).run
    options = find_profile(request.config, request.profile).mscfs
    manager = open_store(request.config, request.profile)
    cache = open_cache(request.config, request.profile)
    pool = WorkerPool(
        request.config,
        request.profile,
        cache.settings if cache is not None else None,
        memory,
        namespace=manager.identity,
        chunk_size=options.chunk_size,
        fetch_processes=len(launched) - TRANSFER_PROCESSES,
        launched=launched,
    )
    try:
        async with trio.open_nursery() as workers:
            await _check_primary(manager, run_blocking)
            await workers.start(pool.run)
            async with trio.open_nursery() as background:
                parts = assemble(
                    request.config,
                    request.profile,
                    manager,
                    cache,
                    memory,
                    pool,
                    background,
                    run_blocking,
                    read_only=request.read_only,
                    on_outdated=make_kernel_ask,
                )
                await parts.recorder.open()
                recovery = Recovery(manager, parts.journal, parts.area.directory.parent, parts.namespace.gate.unsettled)
                if not request.read_only:
                    await run_blocking(recovery.begin)
                    tried = trio.Event()
                    background.start_soon(_recover, recovery, parts.namespace.gate, run_blocking, tried)
                    with trio.move_on_after(PATIENCE):
                        await tried.wait()
                mount = Mount(request, parts, recovery)
                operations = Operations(
                    parts.filesystem,
                    XattrReader(manager, parts.on_any_store),
                    mount.requests,
                    read_only=request.read_only,
                )
                with mounted(
                    operations,
                    request.profile,
                    request.mountpoint,
                    read_only=request.read_only,
                    allow_other=request.allow_other,
                    no_exec=request.no_exec,
                ):
                    if not request.read_only:
                        background.start_soon(parts.replicator.run)
                        background.start_soon(parts.homing.run)
                        background.start_soon(mount.find_out)
                    background.start_soon(parts.prober.run)
                    background.start_soon(parts.silence.run)
                    background.start_soon(parts.recorder.run)
                    background.start_soon(mount.loop_delay.run)
                    background.start_soon(trim.run, run_blocking, trim.find_trim())
                    background.start_soon(parts.fetcher.sweep)
                    background.start_soon(parts.namespace.sweep)
                    for service in services:
                        background.start_soon(service, mount)

                    def announced(trouble: str) -> None:
                        announce(trouble)
                        background.start_soon(_prepare, pool)

                    await _answer(mount, announced, options.shutdown_timeout)
                recovery.is_ending = True
                background.cancel_scope.cancel()
            with trio.move_on_after(1.0, shield=True):
                await parts.replicator.write_gathered()
                await parts.recorder.write()
            parts.recorder.close()
            workers.cancel_scope.cancel()
    finally:
        if cache is not None:
            cache.close()
        manager.close()
        memory.close()


async def _prepare(pool: WorkerPool) -> None:
    """Once whoever waited for the mount has seen it answer: on few cores the workers would keep it waiting."""
    await trio.sleep(PREPARE_AFTER)
    pool.prepare()


async def _answer(mount: Mount, announce: Callable[[str], None], shutdown_timeout: float) -> None:
    """Serve the kernel until the mount is taken away or told to stop; then bring home what is dirty."""
    async with trio.open_nursery() as serving:
        serving.start_soon(_stop_on_signal, mount)
        serving.start_soon(_announce, mount, announce)
        ended = trio.Event()

        async def main_loop() -> None:
            await pyfuse3.main(min_tasks=IDLE_TASKS, max_tasks=MOST_TASKS)
            ended.set()
            mount.stop()

        serving.start_soon(main_loop)
        await mount.wait_stop()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + shutdown_timeout) as deadline:
            failed = await mount.parts.filesystem.finish()
            if failed:
                log.error("%d files could not be uploaded and stay staged; the first: %r", len(failed), failed[0])
            if not ended.is_set():
                pyfuse3.terminate()
                await ended.wait()
        if deadline.cancelled_caught:
            log.error("shutdown took longer than %g s: what is not uploaded stays staged", shutdown_timeout)
        mount.parts.filesystem.keep_staged()
        mount.parts.area.close()
        serving.cancel_scope.cancel()


async def _announce(mount: Mount, announce: Callable[[str], None]) -> None:
    """Tell the waiting parent once the kernel's questions are answered."""
    await mount.parts.run_blocking(raise_limits, mount.request.mountpoint)
    log.info("mounted %s at %s", mount.request.profile, mount.request.mountpoint)
    health = mount.parts.manager.primary_source.health
    announce("" if health.healthy else health.last_error)


async def _stop_on_signal(mount: Mount) -> None:
    with trio.open_signal_receiver(*_ending_signals()) as signals:
        async for number in signals:
            log.info("%s: uploading what is dirty, then unmounting", signal.Signals(number).name)
            mount.stop()


def _ending_signals() -> set[signal.Signals]:
    """SIGHUP tells that the terminal went away, unless the mount was to stay all the same (nohup(1))."""
    hang_up = set() if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else {signal.SIGHUP}
    return {signal.SIGTERM, signal.SIGINT, *hang_up}


def _fetch_processes() -> int:
    """One for every two cores: the rest is needed to answer the kernel and to run the program that reads."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


async def _recover(recovery: Recovery, gate: Gate, run_blocking: RunBlocking, tried: trio.Event) -> None:
    """Settle what ended mounts left behind; `tried` when that is done, or has to wait for the primary."""
    while not recovery.is_over:
        is_down = not recovery.manager.primary_source.health.healthy
        is_waiting = (is_down and tried.is_set()) or not await run_blocking(recovery.step)
        gate.look_again()
        if is_waiting:
            tried.set()
            await trio.sleep(LOOK_INTERVAL)
    tried.set()


async def _check_primary(manager: ReplicaManager, run_blocking: RunBlocking) -> None:
    """A primary that refuses us stops the mount, and one that never was there; one that is down only without a replica.

    A replica counts when it answers. The error names the place and says what to do.
    """
    primary, was_there = manager.primary_source, manager.journal is not None and names_file(manager.journal).exists()
    try:
        # A directory may be silent for ever; other stores end their calls by themselves.
        is_bounded = bool(manager.replicas) or manager.capabilities.real_directories
        with trio.move_on_after(PATIENCE if is_bounded else math.inf) as patience:
            await run_blocking(primary.provider.probe)
        if patience.cancelled_caught:
            raise StoreTimeoutError(f"no answer within {PATIENCE:g} s", store=primary.profile)
    except StorageError as error:
        is_final = isinstance(error, StoreMissingError) and not (manager.replicas and was_there)
        advice = error.advice or StoreUnavailableError.advice
        if manager.replicas and error.transient and not is_final:
            if await _a_replica_answers(manager, run_blocking):
                log.warning("the primary is down, mounting degraded: %s", error)
                primary.health.open(str(error))
                return
            advice = "no replica answers either: check the network"
        elif manager.capabilities.real_directories and advice == StoreUnavailableError.advice:
            advice = "check the disk, or the server, that it is on"
        identity = primary.provider.identity
        raise type(error)(f"{error.message} ({identity}): {advice}", store=primary.profile) from error


async def _a_replica_answers(manager: ReplicaManager, run_blocking: RunBlocking) -> bool:
    """Whether one does within `PATIENCE` seconds; all are asked at once."""
    answered = False
    with trio.move_on_after(PATIENCE):
        async with trio.open_nursery() as nursery:

            async def ask(replica: Replica) -> None:
                nonlocal answered
                try:
                    await run_blocking(replica.provider.probe)
                except StorageError as error:
                    replica.failed(error)
                else:
                    answered = True
                    nursery.cancel_scope.cancel()

            for replica in manager.replicas:
                nursery.start_soon(ask, replica)
    return answered
