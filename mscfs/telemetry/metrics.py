"""The status documents of mounts as metrics, in Prometheus' text format. Imports prometheus_client, which loads long.

The tables are the whole list; docs/operations.md explains each. Labels are names that a person chose (profile,
mountpoint) or that this program knows (states, operations, errno): no text of a store or of a file ever is one (L5).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from mscfs.telemetry.status import (
    SILENT,
    MountState,
    MountStatus,
    PrimaryStatus,
    ReplicaStatus,
    RequestStatus,
    StoreState,
)

Subject = TypeVar("Subject")

_MOUNT = ("profile", "mountpoint")
_STORE = (*_MOUNT, "store", "role")
_STORE_STATES = (StoreState.HEALTHY, StoreState.DOWN)
"""A scrape does not ask the stores, so none of them can be silent."""


@dataclass(frozen=True)
class _Gauge(Generic[Subject]):
    name: str
    meaning: str
    value: Callable[[Subject], float | None]
    """None: it is not known."""

    def family(self, labels: Sequence[str]) -> GaugeMetricFamily | CounterMetricFamily:
        return GaugeMetricFamily(self.name, self.meaning, labels=labels)


@dataclass(frozen=True)
class _Counter(_Gauge[Subject]):
    def family(self, labels: Sequence[str]) -> GaugeMetricFamily | CounterMetricFamily:
        return CounterMetricFamily(self.name, self.meaning, labels=labels)


_OF_MOUNTS: tuple[_Gauge[MountStatus], ...] = (
    _Gauge("mscfs_mount_start_time_seconds", "When the mount started, since the epoch.", lambda m: m.started),
    _Gauge("mscfs_cache_bytes", "Size of the chunk cache, which the mounts of a node share.", lambda m: m.cache.bytes),
    _Gauge("mscfs_cache_limit_bytes", "Bound of the chunk cache; 0 keeps nothing on disk.", lambda m: m.cache.limit),
    _Counter("mscfs_cache_hits_total", "Chunks that were found in the cache.", lambda m: m.cache.hits),
    _Counter("mscfs_cache_misses_total", "Chunks that were not found in the cache.", lambda m: m.cache.misses),
    _Counter("mscfs_cache_evictions_total", "Chunks removed to make room in the cache.", lambda m: m.cache.evictions),
    _Gauge("mscfs_memory_bytes", "Memory in use for buffers.", lambda m: m.memory.used),
    _Gauge("mscfs_memory_limit_bytes", "Bound of the memory for buffers.", lambda m: m.memory.limit),
    _Gauge("mscfs_memory_waiting_requests", "Requests that wait for memory.", lambda m: m.memory.waiting),
    _Counter(
        "mscfs_hedges_started_total", "Second requests for what a store kept waiting.", lambda m: m.hedges.started
    ),
    _Counter("mscfs_hedges_won_total", "Second requests that were complete first.", lambda m: m.hedges.won),
    _Gauge(
        "mscfs_loop_delay_mean_seconds", "Mean delay of the event loop in the last minute.", lambda m: m.loop.mean_delay
    ),
    _Gauge(
        "mscfs_loop_delay_worst_seconds",
        "Longest delay of the event loop in the last minute.",
        lambda m: m.loop.worst_delay,
    ),
    _Gauge("mscfs_staging_files", "Files that are not on the primary yet.", lambda m: m.staging.files),
    _Gauge("mscfs_staging_bytes", "Size of the files that are not on the primary yet.", lambda m: m.staging.bytes),
    _Gauge("mscfs_journal_pending_entries", "Journal entries of every kind that wait.", lambda m: m.journal.pending),
    _Gauge(
        "mscfs_journal_recovering_entries",
        "Journal entries of ended mounts that are being settled.",
        lambda m: m.journal.recovering,
    ),
    _Gauge(
        "mscfs_journal_kept_contents",
        "Contents that are not on the primary and nobody has in hand: see mscfs recover.",
        lambda m: m.journal.kept,
    ),
    _Gauge("mscfs_skipped_keys", "Keys that cannot be paths and are not shown.", lambda m: m.skipped_keys),
    _Gauge("mscfs_conflicts", "Names that are a file and a directory at once.", lambda m: m.conflicts),
)

_OF_STORES: tuple[_Gauge[PrimaryStatus | ReplicaStatus], ...] = (
    _Counter("mscfs_store_reads_total", "Reads that the store answered.", lambda s: s.hits),
    _Counter("mscfs_store_read_bytes_total", "Bytes that the store sent.", lambda s: s.bytes_read),
    _Counter(
        "mscfs_store_errors_total",
        "Reads from the store, copies to it and probes of it that failed.",
        lambda s: s.errors,
    ),
    _Gauge(
        "mscfs_store_answer_p95_seconds",
        "Time within which 95 of 100 recent answers of the store began.",
        lambda s: s.p95_seconds,
    ),
)

_OF_REPLICAS: tuple[_Gauge[ReplicaStatus], ...] = (
    _Gauge("mscfs_replica_lag_entries", "Journal entries that wait for the replica.", lambda r: r.pending),
    _Gauge("mscfs_replica_lag_bytes", "Bytes that wait for the replica.", lambda r: r.pending_bytes),
    _Gauge(
        "mscfs_replica_lag_seconds",
        "Age of the oldest journal entry that waits for the replica.",
        lambda r: r.oldest_pending_seconds,
    ),
)


def expose(mounts: Sequence[MountStatus]) -> bytes:
    """One exposition of all these mounts, whose profiles and mountpoints differ; UTF-8."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MountCollector(mounts))
    return generate_latest(registry)


class MountCollector(Collector):
    """The families of some mounts. Of one that does not answer there is little to tell."""

    def __init__(self, mounts: Sequence[MountStatus]) -> None:
        self._mounts = mounts
        self._telling = [mount for mount in mounts if mount.state not in SILENT]

    def collect(self) -> Iterator[Metric]:
        """Every family that has a sample, once."""
        yield from (family for family in self._families() if family.samples)

    def _families(self) -> Iterator[Metric]:
        states = GaugeMetricFamily("mscfs_mount_state", "1 for the state of the mount.", labels=(*_MOUNT, "state"))
        for mount in self._mounts:
            _add_states(states, _of(mount), MountState, mount.state)
        yield states
        info = GaugeMetricFamily(
            "mscfs_mount_info", "The mount and its version; always 1.", labels=(*_MOUNT, "version", "read_only")
        )
        for mount in self._telling:
            info.add_metric([*_of(mount), mount.version, str(mount.read_only).lower()], 1)
        yield info
        for number in _OF_MOUNTS:
            family = number.family(_MOUNT)
            for mount in self._telling:
                _add(family, _of(mount), number.value(mount))
            yield family
        yield from self._store_families()
        yield from self._request_families()

    def _store_families(self) -> Iterator[Metric]:
        replicas = [((*_of(mount), r.profile, "replica"), r) for mount in self._telling for r in mount.replicas]
        primaries = [((*_of(mount), mount.primary.profile, "primary"), mount.primary) for mount in self._telling]
        stores: list[tuple[tuple[str, ...], PrimaryStatus | ReplicaStatus]] = [*replicas, *primaries]
        states = GaugeMetricFamily("mscfs_store_state", "1 for the state of the store.", labels=(*_STORE, "state"))
        for labels, store in stores:
            state = StoreState.DOWN if store.state is StoreState.DOWN else StoreState.HEALTHY
            _add_states(states, labels, _STORE_STATES, state)
        yield states
        for of_store in _OF_STORES:
            family = of_store.family(_STORE)
            for labels, store in stores:
                _add(family, labels, of_store.value(store))
            yield family
        for of_replica in _OF_REPLICAS:
            family = of_replica.family(_STORE)
            for labels, replica in replicas:
                _add(family, labels, of_replica.value(replica))
            yield family

    def _request_families(self) -> Iterator[Metric]:
        labels = (*_MOUNT, "operation")
        begun = CounterMetricFamily(
            "mscfs_requests_total", "Requests of the kernel, answered or under way.", labels=labels
        )
        durations = HistogramMetricFamily(
            "mscfs_request_duration_seconds", "Time from a request of the kernel to its answer.", labels=labels
        )
        errors = CounterMetricFamily(
            "mscfs_request_errors_total",
            "Requests of the kernel that were answered with an error.",
            labels=(*labels, "errno"),
        )
        for mount in self._telling:
            for request in mount.requests:
                operation = (*_of(mount), request.operation)
                begun.add_metric(operation, request.begun)
                durations.add_metric(operation, _buckets(request), request.seconds)
                for name, times in request.errors.items():
                    errors.add_metric((*operation, name), times)
        yield from (begun, durations, errors)


def _of(mount: MountStatus) -> tuple[str, str]:
    return mount.profile, os.fsencode(mount.mountpoint).decode(errors="backslashreplace")


def _add(family: GaugeMetricFamily | CounterMetricFamily, labels: Sequence[str], value: float | None) -> None:
    if value is not None:
        family.add_metric(labels, value)


def _add_states(
    family: GaugeMetricFamily, labels: Sequence[str], states: type[StrEnum] | Sequence[StrEnum], now: StrEnum
) -> None:
    for state in states:
        family.add_metric((*labels, state.value), state is now)


def _buckets(request: RequestStatus) -> list[tuple[str, float]]:
    return [*request.within.items(), ("+Inf", request.answered)]
