"""Running the journal of a profile to emptiness."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from mscfs.client.interruption import Interruption
from mscfs.client.replicator import Shares, carry_out, upload_threads
from mscfs.errors import StorageError
from mscfs.journal import ClaimedWish, Journal
from mscfs.replicas.manager import ReplicaManager

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
"""Seconds between two tries of one wish during a drain: somebody waits, so they are shorter than the journal's."""
POLL_SECONDS = 0.2
MOST_FAILING = 1000
"""With so many failed wishes in hand, no others of that replica are tried: it is not a matter of single objects."""


@dataclass(frozen=True, slots=True)
class DrainFailure:
    """A wish that was tried and not carried out: it stays in the journal. `key` is empty for a whole replica."""

    profile: str
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """How far a drain is: wishes carried out, bytes moved, entries left."""

    done: int
    bytes: int
    remaining: int


@dataclass(frozen=True, slots=True)
class DrainResult:
    """`remaining` counts everything the journal still holds, uploads of a mount included; 0 means all is done."""

    done: int
    bytes: int
    remaining: int
    failures: tuple[DrainFailure, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing is left."""
        return self.remaining == 0


def drain(
    manager: ReplicaManager,
    *,
    timeout: float | None = None,
    threads: int | None = None,
    on_progress: Callable[[DrainProgress], object] | None = None,
) -> DrainResult:
    """Carry out all wishes in the journal of a profile, also those that are not due yet, and wait for other processes'.

    What fails for a passing reason is tried again until `timeout` (seconds; None: without limit), anything else once.
    Returns at the time-out even when a store does not answer. Wishes that were not carried out stay in the journal,
    also when the process dies. `on_progress` is called from this thread about five times a second. Raises
    StorageError when the journal cannot be used.
    """
    if manager.journal is None or not manager.journal.path.exists():
        return DrainResult(0, 0, 0)
    work = _Drain(manager, manager.journal, threads or upload_threads())
    try:
        work.run(None if timeout is None else time.monotonic() + timeout, on_progress)
    finally:
        work.stop()
    return work.result()


class _Drain:
    """Failed wishes stay claimed, so that nobody else tries them at the same time, and are given back at the end."""

    def __init__(self, manager: ReplicaManager, journal: Journal, threads: int) -> None:
        self._interruption = Interruption()
        self._manager = self._interruption.over(manager)
        self._journal = journal
        self._threads = threads
        self._shares = Shares(manager, threads)
        self._changed = threading.Condition()
        self._stopped = False
        self._alive = 0
        self._done = 0
        self._bytes = 0
        self._working = 0
        self._tries: Counter[tuple[str, str]] = Counter()
        self._failing: Counter[str] = Counter()
        self._waiting: list[tuple[float, int, ClaimedWish, str]] = []
        self._given_up: list[tuple[ClaimedWish, str]] = []
        self._order = itertools.count()
        self._error: StorageError | None = None

    def run(self, deadline: float | None, on_progress: Callable[[DrainProgress], object] | None) -> None:
        """Work until there is nothing left to try, or until the deadline on the monotonic clock."""
        for _ in range(self._threads):
            self._alive += 1
            # Daemons: a store that does not answer must hold up neither this call nor, for long, the program's end.
            threading.Thread(target=self._serve, name="mscfs-drain", daemon=True).start()
        while True:
            with self._changed:
                left = POLL_SECONDS if deadline is None else min(POLL_SECONDS, deadline - time.monotonic())
                if not self._alive or left <= 0:
                    break
                self._changed.wait(left)
            if on_progress:
                on_progress(DrainProgress(self._done, self._bytes, self._journal.pending()))
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Take no more wishes, and give back what failed."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            given_up = [*self._given_up, *((wish, reason) for _, _, wish, reason in self._waiting)]
        for wish, reason in given_up:
            self._journal.postpone(wish, reason)

    def result(self) -> DrainResult:
        """What was done and what was not."""
        with self._changed:
            failures = [DrainFailure(wish.replica, wish.key, reason) for wish, reason in self._given_up]
            failures += [DrainFailure(wish.replica, wish.key, reason) for _, _, wish, reason in sorted(self._waiting)]
        for profile, lag in self._journal.lag().items():
            if profile not in self._shares.writable:
                reason = f"{lag.entries} wishes, but it is no replica of {self._manager.profile} that may be written to"
                failures.append(DrainFailure(profile, "", reason))
        return DrainResult(self._done, self._bytes, self._journal.pending(), tuple(failures))

    def _serve(self) -> None:
        try:
            while (wish := self._next()) is not None:
                self._work(wish)
        except StorageError as error:
            with self._changed:
                self._error = error
                self._stopped = True
        finally:
            with self._changed:
                self._alive -= 1
                self._changed.notify_all()

    def _next(self) -> ClaimedWish | None:
        while True:
            with self._changed:
                if self._stopped:
                    return None
                if self._waiting and self._waiting[0][0] <= time.monotonic():
                    wish = heapq.heappop(self._waiting)[2]
                    self._failing[wish.replica] -= 1
                    return self._taken(wish)
                profiles = [profile for profile in self._shares.open() if self._failing[profile] < MOST_FAILING]
                # Counted before looking, so that no other thread concludes meanwhile that all is done.
                self._working += 1
            claimed = self._journal.claim(1, replicas=profiles, even_if_not_due=True) if profiles else []
            with self._changed:
                self._working -= 1
                if claimed:
                    return self._taken(claimed[0])
            if not self._more_to_come():
                return None
            with self._changed:
                if not self._stopped:
                    self._changed.wait(POLL_SECONDS)

    def _more_to_come(self) -> bool:
        with self._changed:
            if self._working or self._waiting:
                return True
            failing = self._failing.copy()
        # What is left now are this drain's failures, and what other processes work on.
        self._journal.release_dead_claims()
        lag = self._journal.lag()
        return any(
            lag[profile].entries > failing[profile]
            for profile in self._shares.writable
            if profile in lag and failing[profile] < MOST_FAILING
        )

    def _taken(self, wish: ClaimedWish) -> ClaimedWish:
        self._working += 1
        self._shares.take(wish.replica)
        return wish

    def _work(self, wish: ClaimedWish) -> None:
        try:
            with self._interruption.step():
                moved = carry_out(self._manager, wish).bytes
        except StorageError as error:
            self._failed(wish, str(error), again=error.transient)
        except Exception as error:  # noqa: BLE001 - a bug must cost this one copy, not the drain
            self._failed(wish, repr(error), again=False)
        else:
            self._journal.finish(wish)
            with self._changed:
                self._done += 1
                self._bytes += moved
        finally:
            self._shares.give_back(wish.replica)
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _failed(self, wish: ClaimedWish, reason: str, *, again: bool) -> None:
        with self._changed:
            stopped = self._stopped
            self._failing[wish.replica] += 1
            if not stopped and not again:
                self._given_up.append((wish, reason))
            elif not stopped:
                name = (wish.replica, wish.key)
                pause = min(FIRST_PAUSE * 2 ** self._tries[name], LONGEST_PAUSE)
                self._tries[name] += 1
                heapq.heappush(self._waiting, (time.monotonic() + pause, next(self._order), wish, reason))
        if stopped:
            self._journal.postpone(wish, reason)
