"""Carrying out wishes: a bounded pool of threads that lives as long as there is something to do.

Nothing depends on the threads: a wish is in the journal before anybody is woken, and stays there until it is carried
out. So they may die with the process at any moment, its end interrupts them, and a forked child, which has none, makes
its own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable

from mscfs.client.interruption import Interruption
from mscfs.errors import ConfigError, StorageError
from mscfs.journal import ClaimedWish, Journal
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.step import StepResult, bring_up_to_date

THREADS_VARIABLE = "MSC_REPLICA_UPLOAD_THREADS"
DEFAULT_THREADS = 8

IDLE_SECONDS = 10.0
"""A thread that finds nothing to do for so long ends; while wishes wait for their time, one stays and looks again."""
SHORTEST_PAUSE = 1.0

logger = logging.getLogger(__name__)


def upload_threads() -> int:
    """The size of the pool: `MSC_REPLICA_UPLOAD_THREADS`, 8 by default. ConfigError for what is not a number from 1."""
    text = os.environ.get(THREADS_VARIABLE)
    if not text:
        return DEFAULT_THREADS
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"{THREADS_VARIABLE} is {text!r}: it must be a whole number of threads, at least 1")
    return int(text)


def carry_out(manager: ReplicaManager, wish: ClaimedWish) -> StepResult:
    """Do what a wish wants. Raises StorageError."""
    return bring_up_to_date(manager, wish.replica, wish.key, delete=wish.kind == "delete")


class Shares:
    """Which replicas may be worked for: one that is slow never takes the last thread from the others. Thread-safe."""

    def __init__(self, manager: ReplicaManager, threads: int) -> None:
        self.writable = tuple(replica.profile for replica in manager.replicas if not replica.read_only)
        self._most = max(1, threads - (len(self.writable) - 1))
        self._busy: Counter[str] = Counter()
        self._lock = threading.Lock()

    def open(self) -> list[str]:
        """The replicas that may have one more thread."""
        with self._lock:
            return [profile for profile in self.writable if self._busy[profile] < self._most]

    def take(self, profile: str) -> None:
        """A thread begins to work for a replica."""
        with self._lock:
            self._busy[profile] += 1

    def give_back(self, profile: str) -> None:
        """It is done."""
        with self._lock:
            self._busy[profile] -= 1


class Replicator:
    """The pool. `wake` may be called from any thread and returns at once; the first call starts the first thread."""

    def __init__(
        self, manager: ReplicaManager, journal: Journal, *, threads: int, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self._interruption = Interruption()
        self._manager = self._interruption.over(manager)
        self._journal = journal
        self._most = threads
        self._idle_seconds = idle_seconds
        self._shares = Shares(manager, threads)
        self._condition = threading.Condition()
        self._alive = 0
        self._idle = 0
        self._woken = False
        self._stopped = False
        self._at_end: Callable[[], None] | None = None

    def wake(self) -> None:
        """There may be something to do."""
        with self._condition:
            if self._stopped:
                return
            self._woken = True
            if self._idle:
                self._condition.notify()
            elif self._alive < self._most:
                self._alive += 1
                threading.Thread(target=self._run, name="mscfs-replicator", daemon=True).start()

    def stop(self, at_end: Callable[[], None]) -> None:
        """Take no further wishes; `at_end` is called when the last thread has finished its step. Returns at once."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
            if self._alive:
                self._at_end = at_end
                return
        at_end()

    def _run(self) -> None:
        try:
            self._journal.release_dead_claims()
            while (wish := self._next()) is not None:
                self._work(wish)
        except Exception as error:  # noqa: BLE001 - whatever happens, the pool must know that this thread is gone
            logger.warning("replication pauses until the next write or read: %s", error)
            self._leave()

    def _leave(self) -> None:
        with self._condition:
            self._alive -= 1
            if not self._alive and self._at_end is not None:
                self._at_end()

    def _next(self) -> ClaimedWish | None:
        """The next wish, waiting for one; None when this thread is not needed any more and has left the pool."""
        rested = False
        while True:
            with self._condition:
                if self._stopped:
                    self._leave()
                    return None
                self._woken = False
            wish = self._claim()
            if wish is not None:
                # Where one was, more may be: each thread that finds something fetches another.
                self.wake()
                return wish
            due = self._journal.next_due(replicas=self._shares.writable)
            with self._condition:
                if self._woken or self._stopped:
                    continue
                if rested and (due is None or self._idle):
                    if due is not None:
                        # The one that stays may have looked before that wish was postponed.
                        self._condition.notify()
                    # In one step with the decision: a wake from now on starts a new thread.
                    self._leave()
                    return None
                pause = self._idle_seconds if due is None else min(max(due, SHORTEST_PAUSE), self._idle_seconds)
                self._idle += 1
                rested = not self._condition.wait(pause)
                self._idle -= 1

    def _claim(self) -> ClaimedWish | None:
        health = {replica.profile: replica.health for replica in self._manager.replicas}
        ready = self._shares.open()
        healthy = [profile for profile in ready if health[profile].healthy]
        claimed = self._journal.claim(1, replicas=healthy) if healthy else []
        for profile in ready:
            if claimed:
                break
            if profile in healthy:
                continue
            # A replica in trouble is tried with one wish at a time.
            claimed = self._journal.claim(1, replicas=[profile])
            if claimed and not health[profile].may_try():
                self._journal.release(claimed.pop())
        if not claimed:
            return None
        self._shares.take(claimed[0].replica)
        return claimed[0]

    def _work(self, wish: ClaimedWish) -> None:
        try:
            with self._interruption.step():
                carry_out(self._manager, wish)
        except StorageError as error:
            if self._interruption.happened:
                self._journal.release(wish)
                self._stopped = True
                return
            pause = self._journal.postpone(wish, str(error))
            level = logging.INFO if error.transient else logging.WARNING
            logger.log(level, "replica %s: %s: tried again in %.0f s", wish.replica, error, pause)
        except Exception as error:
            # A bug must cost this one copy, not the thread and all copies after it.
            logger.exception("replica %s: %s", wish.replica, wish.key)
            self._journal.postpone(wish, repr(error))
        else:
            self._journal.finish(wish)
        finally:
            self._shares.give_back(wish.replica)
