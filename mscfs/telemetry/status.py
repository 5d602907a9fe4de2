"""The status document of a mount: what `mscfs status --json` prints, in these words and units."""

from __future__ import annotations

import enum

import msgspec


class MountState(enum.StrEnum):
    """How a mount is."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    """The primary is down: reads come from replicas, writes fail at close()."""
    STOPPING = "stopping"
    UNRESPONSIVE = "unresponsive"
    """The daemon runs and does not answer its control socket."""
    DEAD = "dead"
    """The daemon was killed and its mountpoint is there still: programs get ENOTCONN."""


SILENT = frozenset({MountState.UNRESPONSIVE, MountState.DEAD})
"""Mounts that tell nothing of themselves."""


class StoreState(enum.StrEnum):
    """How a store is, seen from this mount."""

    HEALTHY = "healthy"
    SILENT = "silent"
    """It has not answered a question that was asked just now; requests to it may still succeed."""
    DOWN = "down"
    """It failed repeatedly and is left alone between trials."""


class ConditionalWrites(enum.StrEnum):
    """How writes to the primary are kept from overwriting each other (contract W5)."""

    DECIDED = "decided"
    """By the store, atomically."""
    COMPARED = "compared"
    """By mscfs, which looks just before it writes: the store does not decide."""
    UNKNOWN = "unknown"


class PrimaryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The primary."""

    profile: str
    state: StoreState = StoreState.HEALTHY
    hits: int = 0
    bytes_read: int = 0
    errors: int = 0
    p95_seconds: float | None = None
    """Within so many seconds 95 of 100 recent answers began; None while too little is known."""
    last_error: str = ""
    conditional_writes: ConditionalWrites = ConditionalWrites.UNKNOWN


class ReplicaStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One replica. `hits` are reads it answered; `pending` are journal entries that wait for it."""

    profile: str
    read_priority: int
    read_only: bool = False
    state: StoreState = StoreState.HEALTHY
    hits: int = 0
    bytes_read: int = 0
    errors: int = 0
    pending: int = 0
    pending_bytes: int = 0
    oldest_pending_seconds: float = 0.0
    p95_seconds: float | None = None
    last_error: str = ""


class CacheStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The chunk cache on disk. Sizes in bytes; it is shared by the mounts of a node, its counters are this mount's.

    A `limit` of 0: the profile keeps nothing on disk (`caching_enabled`).
    """

    bytes: int = 0
    limit: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0


class MemoryStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The buffers of all reads. Sizes in bytes; `waiting` requests wait for memory."""

    used: int = 0
    limit: int = 0
    waiting: int = 0


class HedgeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Second requests for what a store kept waiting (contract R9), and how many of them were complete first."""

    started: int = 0
    won: int = 0


class LoopStatus(msgspec.Struct, frozen=True, kw_only=True):
    """By how much the event loop was late in the last minute, in seconds: what each request waits beside its work."""

    mean_delay: float = 0.0
    worst_delay: float = 0.0


class StagingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Files that programs write and that are not on the primary yet."""

    files: int = 0
    bytes: int = 0


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The replication journal: entries of every kind that wait.

    `recovering` are those of ended mounts that this one has still to settle.
    `kept` are contents that are not on the primary and that nobody has in hand: a mount uploads what still fits when
    the primary answers, a person decides on the rest (`mscfs recover`).
    """

    pending: int = 0
    recovering: int = 0
    kept: int = 0


class RequestStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The kernel's requests of one operation; those between `begun` and `answered` are under way."""

    operation: str
    begun: int = 0
    answered: int = 0
    seconds: float = 0.0
    """How long the answers took together, without the time that a request waited for its turn."""
    within: dict[str, int] = {}
    """How many answers took so many seconds at most; all others took longer."""
    errors: dict[str, int] = {}
    """How many answers were which error, by its name (ENOENT)."""


class MountStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One mount. Times in seconds; `started` since the epoch. Counters are since the mount started."""

    profile: str
    mountpoint: str
    pid: int
    state: MountState
    primary: PrimaryStatus
    replicas: list[ReplicaStatus] = []
    cache: CacheStatus = CacheStatus()
    memory: MemoryStatus = MemoryStatus()
    hedges: HedgeStatus = HedgeStatus()
    loop: LoopStatus = LoopStatus()
    staging: StagingStatus = StagingStatus()
    journal: JournalStatus = JournalStatus()
    requests: list[RequestStatus] = []
    version: str = ""
    read_only: bool = False
    started: float = 0.0
    uptime: float = 0.0
    skipped_keys: int = 0
    """Keys that cannot be paths and were left out of listings (contract N2)."""
    conflicts: int = 0
    """Keys that are a file and a directory at once (contract N2)."""
