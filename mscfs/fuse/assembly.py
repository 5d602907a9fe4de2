"""Puts the parts of a mount together."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import trio

from mscfs.cache.arena import UNIT, Arena, SharedMemory
from mscfs.cache.budget import memory_budget
from mscfs.cache.chunks import ChunkCache
from mscfs.config.load import find_profile
from mscfs.config.values import CacheConfig, Config, MscfsOptions
from mscfs.directories import cache_directory, private
from mscfs.errors import ConfigError
from mscfs.journal import Journal, process_token
from mscfs.replicas.manager import ReplicaManager
from mscfs.vfs.attributes import AttributeMaker
from mscfs.vfs.fetcher import FETCH_BYTES, Fetcher
from mscfs.vfs.filesystem import Filesystem
from mscfs.vfs.hedging import Hedging
from mscfs.vfs.holdings import Holdings
from mscfs.vfs.homing import Homing
from mscfs.vfs.inodes import InodeTable
from mscfs.vfs.lastknown import LastKnown
from mscfs.vfs.namespace import Namespace, OnOutdated
from mscfs.vfs.outlook import Outlook
from mscfs.vfs.pinned import PinnedObject
from mscfs.vfs.prober import Prober
from mscfs.vfs.questions import Questions
from mscfs.vfs.recorder import Recorder
from mscfs.vfs.remembered import Remembered
from mscfs.vfs.replicator import DEFAULT_UPLOADERS, Replicator
from mscfs.vfs.saver import AttributeSaver
from mscfs.vfs.siblings import SiblingReadAhead
from mscfs.vfs.silence import Silence
from mscfs.vfs.staging import StagingArea, staging_directories
from mscfs.vfs.transport import RunBlocking, Transport
from mscfs.vfs.uploads import Uploads
from mscfs.workers.protocol import FetchSummary

BUFFER_SHARE = 0.75
"""How much of the memory limit buffers may fill: the rest is for messages and parts on their way to the stores."""
FEWEST_CHUNKS = 16
"""Buffers never hold fewer chunks, however small the limit: a few reads at once must be possible."""
RESERVE_SHARE = 8
"""One part in so many of the buffers' memory, at most one range of the longest kind, is kept for second requests."""


@dataclass(frozen=True)
class MountParts:
    """What a mount is made of."""

    manager: ReplicaManager
    journal: Journal
    cache: ChunkCache | None
    """None: nothing is kept on disk."""
    namespace: Namespace
    recorder: Recorder
    area: StagingArea
    fetcher: Fetcher
    replicator: Replicator
    homing: Homing
    prober: Prober
    silence: Silence
    outlook: Outlook
    hedging: Hedging
    filesystem: Filesystem
    run_blocking: RunBlocking
    on_any_store: RunBlocking
    """For calls that ask several stores: a directory among them that is silent holds up nobody for ever."""


def make_memory(options: MscfsOptions) -> SharedMemory:
    """The memory for all bytes on their way, from `memory_limit` and what the cgroup allows (L4)."""
    budget = memory_budget(options.memory_limit, smallest=0)
    return SharedMemory(max(int(budget * BUFFER_SHARE), FEWEST_CHUNKS * options.chunk_size) // UNIT * UNIT)


def open_cache(config: Config, profile: str) -> ChunkCache | None:
    """The node's chunk cache on disk; None with `caching_enabled: false`."""
    if not find_profile(config, profile).caching_enabled:
        return None
    settings = config.cache or CacheConfig()
    directory = settings.location / "mscfs" if settings.location else cache_directory()
    private(directory.parent) if settings.location is None else directory.parent.mkdir(parents=True, exist_ok=True)
    return ChunkCache(directory, settings.size, policy=settings.eviction_policy, purge_factor=settings.purge_factor)


def names_file(journal: Journal) -> Path:
    """Where the names that the primary told are kept, beside a profile's journal."""
    return journal.path.with_name("names.db")


def uploader_count() -> int:
    """The number of uploader tasks, from MSC_REPLICA_UPLOAD_THREADS. Raises ConfigError."""
    given = os.environ.get("MSC_REPLICA_UPLOAD_THREADS", "")
    if not given:
        return DEFAULT_UPLOADERS
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"MSC_REPLICA_UPLOAD_THREADS must be a positive number, not {given!r}")
    return int(given)


def assemble(
    config: Config,
    profile: str,
    manager: ReplicaManager,
    cache: ChunkCache | None,
    memory: SharedMemory,
    transport: Transport,
    nursery: trio.Nursery,
    run_blocking: RunBlocking,
    *,
    read_only: bool,
    on_outdated: OnOutdated,
) -> MountParts:
    """Make the file system of a profile. Listings run in `nursery`; nothing is asked of any store yet."""
    settings = find_profile(config, profile)
    options = settings.mscfs
    journal = manager.journal
    assert journal is not None
    hedging = Hedging(manager.sources, enabled=options.hedging)
    outlook = Outlook(manager.sources, transport.tell, watches=options.hedging, on_down=hedging.store_is_down)
    transport.on_trouble = outlook.failed
    prober = Prober(manager.primary_source, manager.replicas, run_blocking, outlook)
    hedging.suspect = prober.suspect
    silence = Silence(manager.sources, prober)
    transport.watching = silence.watching
    on_primary = silence.watched(run_blocking, profile)
    holdings = Holdings(
        manager.replicas,
        transport.list_directory,
        nursery,
        ttl=options.metadata_ttl,
        clock=trio.current_time,
        suspect=prober.suspect,
    )
    replicator = Replicator(
        manager, journal, transport, run_blocking, on_settled=holdings.settled, uploaders=uploader_count()
    )

    def on_summary(target: PinnedObject, summary: FetchSummary) -> None:
        _count(manager, summary)
        outlook.read(target.key, summary)
        holdings.told(target.key, summary)
        for name in summary.errors:
            prober.suspect(name)
        if not read_only:
            behind = (*summary.missing, *summary.skipped, *summary.stale)
            replicator.gather(manager.back_fill_wishes(target.key, behind, target.version.size))

    # Where the store keeps attributes itself nothing has to be kept in user metadata.
    keeps = options.preserve_attributes and not manager.capabilities.posix_attributes
    # Without replicas nobody could serve what the names stand for.
    last_known = LastKnown(names_file(journal)) if manager.replicas else None
    recorder = Recorder(last_known, run_blocking, clock=trio.current_time)
    namespace = Namespace(
        InodeTable(None if manager.capabilities.posix_attributes else Remembered()),
        Questions(manager, run_blocking, silence, asks_markers=keeps),
        recorder,
        transport,
        nursery,
        asking_is_cheap=manager.capabilities.real_directories,
        wants_metadata=keeps,
        ttl=options.metadata_ttl,
        clock=trio.current_time,
        suspect=prober.suspect,
        on_outdated=on_outdated,
    )
    area = StagingArea(private(staging_directories(journal.path)) / process_token(), options.staging_limit)
    fetcher = Fetcher(
        Arena(memory, reserve=min(FETCH_BYTES, memory.size // RESERVE_SHARE)),
        cache,
        transport,
        namespace=manager.identity,
        chunk_size=options.chunk_size,
        deadline=options.read_deadline,
        lacking=holdings.lacking,
        hedging=hedging,
        on_summary=on_summary,
    )
    saver = AttributeSaver(manager, namespace, on_primary, nursery, keeps=keeps, on_wishes=replicator.wake)
    homing = Homing(manager, journal, namespace, area, run_blocking, on_wishes=replicator.wake)
    uploads = Uploads(
        manager,
        journal,
        transport,
        namespace,
        area,
        run_blocking,
        saver,
        nursery=nursery,
        on_wishes=replicator.wake,
        on_kept=homing.kept,
    )
    filesystem = Filesystem(
        manager=manager,
        journal=journal,
        transport=transport,
        namespace=namespace,
        fetcher=fetcher,
        uploads=uploads,
        area=area,
        attributes=AttributeMaker(options, reads_kept=keeps),
        saver=saver,
        run_blocking=on_primary,
        page_cache=options.page_cache,
        siblings=SiblingReadAhead(fetcher) if options.sibling_read_ahead else None,
        read_only=read_only,
        on_wishes=replicator.wake,
    )
    return MountParts(
        manager,
        journal,
        cache,
        namespace,
        recorder,
        area,
        fetcher,
        replicator,
        homing,
        prober,
        silence,
        outlook,
        hedging,
        filesystem,
        run_blocking,
        silence.watched(run_blocking, ""),
    )


def _count(manager: ReplicaManager, summary: FetchSummary) -> None:
    """Add what a worker process read to this process's counters and health; failures it tells as they happen."""
    for source in manager.sources:
        if source.profile == summary.source:
            source.statistics.add(hits=1, bytes_read=summary.bytes)
            if source.health.healthy:  # else it is a late answer of a store that is probed before it is used again
                source.health.succeeded()
