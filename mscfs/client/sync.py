"""Bulk comparison and copy from the primary to its replicas (`sync_replicas`)."""

from __future__ import annotations

import enum
import logging
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, takewhile
from queue import Queue
from typing import IO

from mscfs.client.interruption import Interruption
from mscfs.client.replicator import upload_threads
from mscfs.errors import ReadOnlyError, StorageError, StoreMissingError, SyncError, UsageError
from mscfs.replicas.diff import Difference, compare, decide
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica
from mscfs.replicas.step import Outcome, bring_up_to_date

MOST_FAILURES_IN_A_ROW = 20
"""After so many failures of a replica's store one after the other, the rest of that replica is given up."""
MOST_FAILURES_KEPT = 1000

logger = logging.getLogger(__name__)


class ExecutionMode(enum.Enum):
    """Where the copies are made: by threads of this process, or by Ray workers (not supported yet)."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class ReplicaSync:
    """What was done for one replica (dry run: what would be): objects, and the bytes copied."""

    profile: str
    copied: int = 0
    fresh: int = 0
    deleted: int = 0
    failed: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class SyncResult:
    """One entry for each replica that was asked for, in reading order."""

    replicas: tuple[ReplicaSync, ...]
    dryrun: bool = False


OnProgress = Callable[[ReplicaSync], object]
"""Given the counts of one replica so far, after each of its objects, from any thread."""


def sync_replicas(
    manager: ReplicaManager,
    source_path: str = "",
    *,
    replica_indices: Iterable[int] | None = None,
    delete_unmatched_files: bool = False,
    dryrun: bool = False,
    num_workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> SyncResult:
    """Bring everything at and below `source_path` to the replicas as the primary holds it now.

    A copy counts as fresh by the version it carries, never by size and time alone. All replicas are worked on at once,
    each with threads of its own (`num_workers` in all), and none waits for another. With `delete_unmatched_files`,
    what a complete listing of the primary lacks is removed, after the primary was asked once more for each object. A
    dry run changes nothing. A crash leaves whole copies only.

    Raises UsageError for a replica that does not exist, ReadOnlyError for one that may not be written to, and, after
    all the rest was done, SyncError when anything failed. What `on_progress` raises ends that replica's sync early.
    """
    interruption = Interruption()
    manager = interruption.over(manager)
    replicas = _chosen(manager, replica_indices)
    workers = num_workers if num_workers is not None else upload_threads()
    if workers < 1:
        raise UsageError(f"num_workers is {workers}: at least one is needed")
    share = max(1, workers // max(1, len(replicas)))
    runs = [_Run(manager, replica, share, interruption, dryrun=dryrun, on_progress=on_progress) for replica in replicas]
    threads = [
        threading.Thread(
            target=partial(run.run, source_path, delete=delete_unmatched_files), name="mscfs-sync", daemon=True
        )
        for run in runs
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for run in runs:
            run.stop()
    for run in runs:
        if run.refusal is not None:
            raise run.refusal
    result = SyncResult(tuple(run.counts() for run in runs), dryrun)
    failed = sum(counts.failed for counts in result.replicas)
    if failed:
        raise SyncError([failure for run in runs for failure in run.failures], failed, result)
    return result


def _chosen(manager: ReplicaManager, indices: Iterable[int] | None) -> Sequence[Replica]:
    if not manager.replicas:
        raise UsageError(f"profile '{manager.profile}' has no replicas")
    if indices is None:
        chosen = [replica for replica in manager.replicas if not replica.read_only]
        if not chosen:
            raise ReadOnlyError("all replicas are read_only: nothing may be written to them", store=manager.profile)
        return chosen
    chosen = []
    for index in dict.fromkeys(indices):
        if not 0 <= index < len(manager.replicas):
            raise UsageError(
                f"replica {index} does not exist: profile '{manager.profile}' has the replicas 0 to"
                f" {len(manager.replicas) - 1}"
            )
        if manager.replicas[index].read_only:
            raise ReadOnlyError("this replica is read_only", store=manager.replicas[index].profile)
        chosen.append(manager.replicas[index])
    return chosen


@dataclass(slots=True)
class _Counts:
    copied: int = 0
    fresh: int = 0
    deleted: int = 0
    failed: int = 0
    bytes: int = 0


class _Run:
    """One replica: two listings feed workers; what only the replica has is looked at when both are complete."""

    def __init__(
        self,
        manager: ReplicaManager,
        replica: Replica,
        workers: int,
        interruption: Interruption,
        *,
        dryrun: bool,
        on_progress: OnProgress | None,
    ) -> None:
        self.replica = replica
        self.failures: list[tuple[str, str, str]] = []
        self.refusal: BaseException | None = None
        """What `on_progress` raised: the caller wants no more."""
        self._manager = manager
        self._workers = workers
        self._interruption = interruption
        self._dryrun = dryrun
        self._on_progress = on_progress
        self._counts = _Counts()
        self._failures_in_a_row = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def counts(self) -> ReplicaSync:
        """What was done so far."""
        return ReplicaSync(self.replica.profile, **asdict(self._counts))

    def stop(self) -> None:
        """Begin nothing new."""
        self._stopped.set()

    def run(self, path: str, *, delete: bool) -> None:
        """All of it. What fails is recorded, never raised."""
        try:
            with self._interruption.step(), tempfile.TemporaryFile() as unmatched:
                self._work_on(self._listed(path, unmatched))
                if delete:
                    # Not before both listings are complete: one that breaks off must not delete anything.
                    self._work_on(_read_unmatched(unmatched))
        except Exception as error:  # noqa: BLE001 - recorded: the other replicas go on
            self._failed("", error)

    def _listed(self, path: str, unmatched: IO[bytes]) -> Iterator[Difference]:
        """What may have to be copied; keys that only the replica has are put aside, on disk: they may be very many."""
        for difference in _differences(self._manager, self.replica, path):
            if difference.state == "unmatched":
                unmatched.write(difference.key.encode("utf-8", "surrogateescape") + b"\0")
            else:
                yield difference

    def _work_on(self, differences: Iterable[Difference]) -> None:
        queue: Queue[Difference | None] = Queue(self._workers * 4)
        # Daemons: a store that does not answer must not hold up the end of an interrupted program for long.
        threads = [
            threading.Thread(target=self._serve, args=(queue,), name="mscfs-sync-worker", daemon=True)
            for _ in range(self._workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for difference in differences:
                if self._stopped.is_set():
                    break
                queue.put(difference)
        finally:
            for _ in threads:
                queue.put(None)
            for thread in threads:
                thread.join()

    def _serve(self, queue: Queue[Difference | None]) -> None:
        while (difference := queue.get()) is not None:
            if self._stopped.is_set():
                continue
            try:
                with self._interruption.step():
                    self._reconcile(difference)
            except BaseException as error:  # noqa: BLE001 - a worker that died would leave its objects undone in silence
                self._failed(difference.key, error)

    def _reconcile(self, difference: Difference) -> None:
        if difference.state == "uncertain":
            difference = decide(difference, self._manager.primary, self.replica)
        if difference.state == "fresh":
            self._done("fresh")
        elif self._dryrun and difference.state == "unmatched":
            self._done("deleted")
        elif self._dryrun:
            self._done("copied", difference.size)
        else:
            # It asks the primary for each object anew, before it deletes as before it copies.
            delete = difference.state == "unmatched"
            step = bring_up_to_date(self._manager, self.replica.profile, difference.key, delete=delete)
            self._done(step.outcome, step.bytes)

    def _done(self, outcome: Outcome, moved: int = 0) -> None:
        with self._lock:
            counts = self._counts
            counts.copied += outcome == "copied"
            counts.fresh += outcome == "fresh"
            counts.deleted += outcome == "deleted"
            counts.bytes += moved
            self._failures_in_a_row = 0
            self._tell()

    def _failed(self, key: str, error: BaseException) -> None:
        reason = repr(error)
        if isinstance(error, StorageError):
            is_own = error.store in {"", self.replica.profile}
            reason = error.message if is_own else f"{error.store}: {error.message}"
        logger.info("sync of replica %s: %s: %s", self.replica.profile, key, reason)
        with self._lock:
            self._counts.failed += 1
            self._failures_in_a_row += 1
            if len(self.failures) < MOST_FAILURES_KEPT:
                self.failures.append((self.replica.profile, key, reason))
            hopeless = isinstance(error, StoreMissingError) or self._failures_in_a_row >= MOST_FAILURES_IN_A_ROW
            if hopeless and not self._stopped.is_set():
                self._stopped.set()
                self.failures.append((self.replica.profile, "", "given up: its store or the primary is in trouble"))
            self._tell()

    def _tell(self) -> None:
        if self._on_progress is None:
            return
        try:
            self._on_progress(self.counts())
        except BaseException as error:  # noqa: BLE001 - no thread may end by it: another waits for what it has to do
            self.refusal = self.refusal or error
            self._stopped.set()


def _differences(manager: ReplicaManager, replica: Replica, path: str) -> Iterator[Difference]:
    """Of the object `path` and of all below the directory `path`, but not of names that only begin alike."""
    if not path or path.endswith("/"):
        return compare(manager.primary, replica, path, decide_all=False)
    # In key order, the object itself comes before everything else that begins like it.
    itself = takewhile(lambda found: found.key == path, compare(manager.primary, replica, path, decide_all=False))
    return chain(itself, compare(manager.primary, replica, f"{path}/", decide_all=False))


def _read_unmatched(stored: IO[bytes]) -> Iterator[Difference]:
    stored.seek(0)
    rest = b""
    while block := stored.read(1 << 20):
        *keys, rest = (rest + block).split(b"\0")
        for key in keys:
            yield Difference(key.decode("utf-8", "surrogateescape"), "unmatched", 0)
