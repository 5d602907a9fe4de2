"""The persistent chunk cache: aligned slices of object versions, one file each, shared by all mounts of a node.

    <directory>/counter                  bytes stored, see `counter`
    <directory>/chunks/<shard>/<digest>-<index>
    <directory>/incoming/<slot>-<n>      insertions under way

A chunk is named by what it is a slice of, version included, so that it never becomes wrong, only useless. A file is
written under `incoming` and renamed into place, and carries a checksum over its bytes and its name: what a crash, a
power cut, a disk or somebody else left there is a miss. Nothing is ever synced; the cache may be deleted at any time.
"""

# Paths are strings where it matters: a Path object costs more than the system call.
# ruff: noqa: PTH102, PTH104, PTH108, PTH116, PTH120

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from mscfs.cache.counter import SharedCounter
from mscfs.cache.eviction import Policy, Victim, Victims, chunk_directories, chunk_files
from mscfs.cache.files import TRAILER_SIZE, Chunk, ChunkId, charge, verified_size, write
from mscfs.directories import private
from mscfs.types import Version

logger = logging.getLogger(__name__)

SHARDS = 256
_ROUNDS = 64
"""How often one insertion looks for victims: more only in a cache that others fill as fast as it is emptied."""


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """What another process needs to open the same cache."""

    directory: Path
    limit: int
    policy: Policy = "lru"
    purge_factor: int = 0


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """`bytes`, `limit` and `evictions` of all processes that share the cache; hits and misses of this one."""

    bytes: int
    limit: int
    hits: int
    misses: int
    evictions: int


def object_digest(namespace: str, key: str, version: Version, chunk_size: int) -> str:
    """Thirty-two hex digits for one version of one object, cut into chunks of one size.

    `namespace` is the primary's identity. Mounts that cut differently never take each other's chunks for theirs.
    """
    name = f"{namespace}\0{key}\0{version.token}\0{chunk_size}"
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]


class ChunkCache:
    """A directory of chunks that never takes more than `limit` bytes on disk, over all processes that share it.

    `policy` `lru` goes by the time of the last `open`, approximately in a large cache (see `eviction`). A full cache is
    emptied to `100 - purge_factor` percent. Blocking and thread-safe, and usable in a forked child. Reading never takes
    a lock.

    Construction raises OSError when the directory cannot be made, PermissionError when it is somebody else's.
    """

    def __init__(self, directory: Path, limit: int, *, policy: Policy = "lru", purge_factor: int = 0) -> None:
        private(directory)
        self.settings = CacheSettings(directory, limit, policy, purge_factor)
        self._shards = private(directory / "chunks")
        self._incoming = private(directory / "incoming")
        self._victims = Victims(self._shards, policy)
        self._numbers = itertools.count()
        self._refusals: set[int | None] = set()
        self._hits = 0
        self._misses = 0
        self._counters: dict[int, list[SharedCounter]] = {}
        """Of each process; the last is the present one, of the others the file was removed."""
        self._remove_unfinished(self._counter)

    @classmethod
    def attach(cls, settings: CacheSettings) -> Self:
        """Open the cache another process has made."""
        return cls(settings.directory, settings.limit, policy=settings.policy, purge_factor=settings.purge_factor)

    def contains(self, chunk: ChunkId) -> bool:
        """Whether a file for this chunk is there; only `open` knows whether it is good."""
        return os.access(self._path(chunk), os.F_OK)

    def open(self, chunk: ChunkId) -> Chunk | None:
        """The chunk, verified; None for a miss. A damaged file is removed. Raises nothing."""
        path = self._path(chunk)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._misses += 1
            return None
        except OSError as error:
            self._unreadable(error)
            return None
        size = None
        try:
            size = verified_size(descriptor, chunk)
            if size is None:
                self._misses += 1
                self._remove_damaged(path, descriptor)
                return None
            if self._victims.heed_use:
                os.utime(descriptor)
        except OSError as error:
            size = None
            self._unreadable(error)
            return None
        finally:
            if size is None:
                os.close(descriptor)
        self._hits += 1
        return Chunk(descriptor, size)

    def insert(self, chunk: ChunkId, data: bytes | memoryview | Sequence[bytes | memoryview]) -> bool:
        """Store a chunk given whole or in pieces, in place of any earlier one, evicting others as needed.

        False when it cannot be: the disk is full, the limit leaves no room, the directory is gone. Then the caller goes
        on without; one line for each reason goes to the log. Killed in between, it leaves nothing that counts.
        """
        pieces = [data] if isinstance(data, bytes | memoryview) else data
        size = charge(sum(len(piece) for piece in pieces) + TRAILER_SIZE)
        try:
            counter = self._present_counter()
            if not self._reserve(counter, size):
                return False
            temporary = f"{self._incoming}/{counter.slot}-{next(self._numbers)}"
            try:
                write(temporary, chunk, pieces)
                self._commit(counter, temporary, self._path(chunk), size)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary)
                with counter.changing():
                    counter.release(size)
                raise
        except OSError as error:
            self._complain("a chunk cannot be stored", error)
            return False
        return True

    def statistics(self) -> CacheStatistics:
        """The numbers now, without a lock."""
        counter = self._counter
        return CacheStatistics(counter.used, self.settings.limit, self._hits, self._misses, counter.evictions)

    def close(self) -> None:
        """Leave the cache. Chunks that are open stay readable."""
        for counter in self._counters.pop(os.getpid(), ()):
            counter.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _counter(self) -> SharedCounter:
        # One for each process: a forked child must not share its parent's locks. Take it once in an operation.
        counters = self._counters.setdefault(os.getpid(), [])
        if not counters:
            counters.append(self._open_counter())
        return counters[-1]

    def _present_counter(self) -> SharedCounter:
        """The counter that those count with who open the cache now: somebody may have emptied the directory."""
        if not self._counter.is_in_place:
            self._counters[os.getpid()].append(self._open_counter())
        return self._counter

    def _open_counter(self) -> SharedCounter:
        return SharedCounter(self.settings.directory / "counter", self._recount)

    def _path(self, chunk: ChunkId) -> str:
        # Neighbours lie in neighbouring shards: a large object fills all shards alike.
        shard = (int(chunk.object_digest[:2], 16) + chunk.index) % SHARDS
        return f"{self._shards}/{shard:02x}/{chunk.object_digest}-{chunk.index}"

    def _reserve(self, counter: SharedCounter, size: int) -> bool:
        """Make room and count it as ours; False when there is none to be had."""
        settings = self.settings
        room = goal = settings.limit - size
        if room < 0:
            return False
        for _ in range(_ROUNDS):
            with counter.changing():
                if counter.used > room:
                    goal = max(0, settings.limit * (100 - settings.purge_factor) // 100 - size)
                while counter.used > goal and (victim := self._victims.pop()):
                    self._evict(counter, victim)
                if counter.used <= goal:
                    counter.reserve(size)
                    return True
            # Victims are looked for without the lock: it takes milliseconds.
            if self._victims.refill():
                continue
            if settings.policy == "no_eviction" or not counter.stored:
                break
            counter.distrust()  # bytes without files: somebody emptied the directory by hand
        with counter.changing():
            if counter.used > room:
                return False
            counter.reserve(size)
            return True

    def _evict(self, counter: SharedCounter, victim: Victim) -> None:
        try:
            status = os.stat(victim.path)
            if self._victims.heed_use and status.st_mtime_ns != victim.modified_ns:
                return  # used since it was chosen
            os.unlink(victim.path)
        except FileNotFoundError:
            return  # another process was quicker
        counter.add_stored(-charge(status.st_size))
        counter.add_eviction()

    def _commit(self, counter: SharedCounter, temporary: str, path: str, size: int) -> None:
        with counter.changing():
            try:
                replaced = charge(os.stat(path).st_size)
            except FileNotFoundError:
                replaced = 0
            try:
                os.rename(temporary, path)
            except FileNotFoundError:
                os.mkdir(os.path.dirname(path), 0o700)
                os.rename(temporary, path)
            counter.add_stored(size - replaced)
            counter.release(size)

    def _remove_damaged(self, path: str, descriptor: int) -> None:
        # Without waiting, as a reader may be an event loop. A file left behind stays a miss, and is replaced.
        counter = self._counter
        with suppress(OSError), counter.changing(wait=False):
            status = os.stat(path)
            if status.st_ino == os.fstat(descriptor).st_ino:
                os.unlink(path)
                counter.add_stored(-charge(status.st_size))

    def _remove_unfinished(self, counter: SharedCounter) -> None:
        """Remove the temporary files of processes that died; their reservations are gone already."""
        with os.scandir(self._incoming) as entries:
            for entry in entries:
                slot = entry.name.partition("-")[0]
                if not slot.isdecimal() or int(slot) == counter.slot or counter.is_dead(int(slot)):
                    with suppress(FileNotFoundError):  # another that starts now was quicker
                        os.unlink(entry.path)

    def _unreadable(self, error: OSError) -> None:
        self._misses += 1
        self._complain("a chunk cannot be read", error)

    def _complain(self, what: str, error: OSError) -> None:
        if error.errno not in self._refusals:
            self._refusals.add(error.errno)
            logger.warning("%s: %s; going on without the cache (%s)", what, error.strerror, self.settings.directory)

    def _recount(self) -> int:
        """Bytes of all chunk files: seconds for a million."""
        return sum(
            charge(status.st_size) for shard in chunk_directories(self._shards) for _, status in chunk_files(shard)
        )
