"""Which fetches of this worker process take longer than is usual for the store they wait for.

The threads that fetch are blocked in their stores: another one looks at all of them, and tells the daemon, which may
ask a second store. Who fetches pays some stores into an object for that, and no lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from mscfs.replicas.latency import Waits, size_class

TICK = 0.01
"""Seconds between two looks, while anything is under way."""
_NEVER = float("inf")


class Attempt:
    """One fetch, and the store that it waits for."""

    __slots__ = ("_is_abandoned", "_watch", "asked", "due", "first", "id", "is_slow", "left", "store", "tried")

    def __init__(self, watch: Watch, request_id: int, size: int, is_abandoned: Callable[[], bool]) -> None:
        self._watch = watch
        self._is_abandoned = is_abandoned
        self.id = request_id
        self.left = size
        """Bytes that are not there yet."""
        self.store = ""
        self.tried: list[str] = []
        """The stores that were asked before."""
        self.asked = 0.0
        self.first = 0.0
        """Seconds until the answer began."""
        self.due = _NEVER
        self.is_slow = False

    def asking(self, store: str) -> None:
        """A store is asked now."""
        if self.store:
            self.tried.append(self.store)
        self.store = store
        self.asked = self._watch.clock()
        self.due = self.asked + self._watch.waits_of(store).first

    def answered(self) -> None:
        """Its answer begins."""
        self.first = self._watch.clock() - self.asked
        self.due = self.asked + self._watch.waits_of(self.store).whole[size_class(self.left)]

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._is_abandoned()

    @property
    def took(self) -> float:
        """Seconds since the store was asked."""
        return self._watch.clock() - self.asked


class Watch:
    """See the module. `tell` is called from the watching thread with each attempt that has become slow."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.tell: Callable[[Attempt], None] = _nobody_asks
        self._waits: Mapping[str, Waits] = {}
        self._attempts: dict[int, Attempt] = {}
        self._is_needed = threading.Event()

    def learn(self, waits: Mapping[str, Waits]) -> None:
        """What is slow from now on, for each store; nothing, for those that are not named."""
        self._waits = waits

    def waits_of(self, store: str) -> Waits:
        """What is slow."""
        return self._waits.get(store, _PATIENCE)

    def begin(self, request_id: int, size: int, is_abandoned: Callable[[], bool]) -> Attempt:
        """A fetch of so many bytes begins."""
        attempt = self._attempts[request_id] = Attempt(self, request_id, size, is_abandoned)
        if self._waits and not self._is_needed.is_set():
            self._is_needed.set()
        return attempt

    def end(self, attempt: Attempt) -> None:
        """A fetch is over."""
        self._attempts.pop(attempt.id, None)

    def is_stuck(self, request_id: int) -> bool:
        """Whether a fetch is under way and slow."""
        attempt = self._attempts.get(request_id)
        return attempt is not None and attempt.is_slow

    def look(self) -> None:
        """Tell of what has become slow since the last look."""
        now = self.clock()
        for attempt in list(self._attempts.values()):
            if now >= attempt.due:
                attempt.due = _NEVER
                attempt.is_slow = True
                self.tell(attempt)

    def run(self) -> NoReturn:
        """Look again and again."""
        while True:
            self._is_needed.wait()
            time.sleep(TICK)
            self.look()
            if not self._attempts:
                self._is_needed.clear()
                if self._attempts:  # begun in between
                    self._is_needed.set()


_PATIENCE = Waits(_NEVER, (_NEVER,) * len(Waits().whole))


def _nobody_asks(_: Attempt) -> None:
    """There is no daemon."""
