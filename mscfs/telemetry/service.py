"""The control commands of a running mount: status, drain, where, stop."""

from __future__ import annotations

import dataclasses
import errno
import os
import time
from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import version
from itertools import accumulate
from typing import Any

import msgspec
import trio

from mscfs.cache.chunks import ChunkCache
from mscfs.errors import UsageError
from mscfs.fuse.requests import BOUNDS, OperationCounts
from mscfs.fuse.session import Mount
from mscfs.replicas.source import Source
from mscfs.telemetry import control, registry
from mscfs.telemetry.lag import what_replicas_lack
from mscfs.telemetry.status import (
    CacheStatus,
    ConditionalWrites,
    HedgeStatus,
    JournalStatus,
    LoopStatus,
    MemoryStatus,
    MountState,
    MountStatus,
    PrimaryStatus,
    ReplicaStatus,
    RequestStatus,
    StagingStatus,
    StoreState,
)
from mscfs.vfs.leftbehind import left_behind

DRAIN_SECONDS = 3600.0


class MountService:
    """Answers for one mount."""

    def __init__(self, mount: Mount) -> None:
        self._mount = mount

    async def serve(self) -> None:
        """Answer on the control socket until cancelled."""
        handlers = {"status": self.status, "drain": self.drain, "where": self.where, "stop": self.stop}
        await control.serve(registry.socket_path(), handlers)

    async def status(self, arguments: Mapping[str, Any]) -> object:
        """The status document. With `look` the stores are asked first how they are, and are given a moment."""
        silent = await self._mount.parts.prober.look() if arguments.get("look") else ()
        return msgspec.to_builtins(await self.document(silent))

    async def drain(self, arguments: Mapping[str, Any]) -> object:
        """Wait until the replicas are up to date, for `timeout` seconds.

        Tells what is left; how much of that was tried in the last `elapsed` seconds and would fail again; and what each
        replica lacks and why, with one reason for each.
        """
        began = trio.current_time()
        seconds = arguments.get("timeout", DRAIN_SECONDS)
        elapsed = arguments.get("elapsed", 0)
        if not isinstance(seconds, int | float) or not isinstance(elapsed, int | float):
            raise UsageError("`timeout` and `elapsed` must be numbers of seconds")
        remaining = await self._mount.drain(float(seconds))
        parts = self._mount.parts
        lag = await parts.run_blocking(parts.journal.lag)
        return {
            "remaining": remaining,
            "hopeless": parts.replicator.hopeless(began - elapsed),
            "replicas": [
                dataclasses.asdict(behind)
                for behind in what_replicas_lack((replica.profile for replica in parts.manager.replicas), lag)
            ],
        }

    async def where(self, arguments: Mapping[str, Any]) -> object:
        """Which stores hold `key`, in reading order, the primary last."""
        return [dataclasses.asdict(placement) for placement in await self._mount.where(str(arguments.get("key", "")))]

    async def stop(self, arguments: Mapping[str, Any]) -> object:
        """Begin to unmount."""
        self._mount.stop()
        return {}

    async def exposition(self) -> bytes:
        """The metrics of the mount, for a scraper. Stores are not asked: a scrape costs no request."""
        return await self._mount.parts.run_blocking(_expose, await self.document())

    async def document(self, silent: Collection[str] = ()) -> MountStatus:
        """What the mount is doing, as one value; `silent` are stores that have just not answered."""
        mount, parts = self._mount, self._mount.parts
        lag = await parts.run_blocking(parts.journal.lag)
        pending = await parts.run_blocking(parts.journal.pending)
        kept = await parts.run_blocking(left_behind, parts.journal)
        primary = parts.manager.primary_source
        replicas = []
        for replica in parts.manager.replicas:
            behind = lag.get(replica.profile)
            replicas.append(
                ReplicaStatus(
                    profile=replica.profile,
                    read_priority=replica.read_priority,
                    read_only=replica.read_only,
                    state=_state(replica, silent),
                    hits=replica.statistics.hits,
                    bytes_read=replica.statistics.bytes_read,
                    errors=replica.statistics.errors,
                    pending=behind.entries if behind else 0,
                    pending_bytes=behind.bytes if behind else 0,
                    oldest_pending_seconds=behind.oldest_seconds if behind else 0.0,
                    p95_seconds=parts.outlook.latencies[replica.profile].p95,
                    last_error=replica.health.last_error or (behind.last_error if behind else ""),
                )
            )
        return MountStatus(
            profile=mount.request.profile,
            mountpoint=str(mount.request.mountpoint),
            pid=os.getpid(),
            state=_mount_state(mount),
            primary=PrimaryStatus(
                profile=primary.profile,
                state=_state(primary, silent),
                hits=primary.statistics.hits,
                bytes_read=primary.statistics.bytes_read,
                errors=primary.statistics.errors,
                p95_seconds=parts.outlook.latencies[primary.profile].p95,
                last_error=primary.health.last_error,
                conditional_writes=_CONDITIONAL_WRITES[mount.primary_decides],
            ),
            replicas=replicas,
            cache=_cache_status(parts.cache),
            memory=MemoryStatus(
                used=parts.fetcher.buffers.arena.used,
                limit=parts.fetcher.buffers.arena.size,
                waiting=parts.fetcher.buffers.hungry,
            ),
            hedges=HedgeStatus(started=parts.hedging.started, won=parts.hedging.won),
            loop=LoopStatus(mean_delay=mount.loop_delay.mean, worst_delay=mount.loop_delay.worst),
            staging=StagingStatus(files=parts.area.files, bytes=parts.area.bytes),
            journal=JournalStatus(pending=pending, recovering=mount.recovery.left, kept=len(kept)),
            requests=[_request_status(name, counts) for name, counts in sorted(mount.requests.items())],
            version=_version(),
            read_only=mount.request.read_only,
            started=mount.started,
            uptime=time.time() - mount.started,
            skipped_keys=parts.namespace.skipped_keys,
            conflicts=parts.namespace.shadowed_names,
        )


_CONDITIONAL_WRITES = {
    None: ConditionalWrites.UNKNOWN,
    True: ConditionalWrites.DECIDED,
    False: ConditionalWrites.COMPARED,
}


def _cache_status(cache: ChunkCache | None) -> CacheStatus:
    if cache is None:
        return CacheStatus()
    now = cache.statistics()
    return CacheStatus(bytes=now.bytes, limit=now.limit, hits=now.hits, misses=now.misses, evictions=now.evictions)


def _request_status(operation: str, counts: OperationCounts) -> RequestStatus:
    *within, answered = accumulate(counts.durations)
    return RequestStatus(
        operation=operation,
        begun=counts.begun,
        answered=answered,
        seconds=counts.seconds,
        within={str(bound): number for bound, number in zip(BOUNDS, within, strict=True)},
        errors={errno.errorcode.get(number, str(number)): times for number, times in sorted(counts.errors.items())},
    )


@cache
def _version() -> str:
    return version("mscfs")  # looks on disk


def _expose(document: MountStatus) -> bytes:
    from mscfs.telemetry.metrics import expose  # noqa: PLC0415 - most mounts are never scraped

    return expose([document])


def _state(source: Source, silent: Collection[str]) -> StoreState:
    if not source.health.healthy:
        return StoreState.DOWN
    return StoreState.SILENT if source.profile in silent else StoreState.HEALTHY


def _mount_state(mount: Mount) -> MountState:
    if mount.stopping:
        return MountState.STOPPING
    healthy = mount.parts.manager.primary_source.health.healthy
    return MountState.HEALTHY if healthy else MountState.DEGRADED
