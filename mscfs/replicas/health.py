"""One circuit breaker for each store: a store that fails is left alone for a while, then tried again."""

from __future__ import annotations

import time
from collections.abc import Callable

from mscfs.errors import AccessDeniedError, StorageError, StoreMissingError, StoreTimeoutError
from mscfs.replicas.lock import ProcessLock

FAILURES_TO_OPEN = 3
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
LONGEST_TRIAL = 15.0
"""A caller that tries a store and never tells what came of it keeps others off for so long."""


class Health:
    """Thread-safe. Closed: the store is used. Open: it is skipped until a pause is over; then one caller tries it.

    A time-out opens at once (each costs a reader seconds); other transient failures open after three in a row. Pauses
    (seconds) double while trials fail. Answers such as "not found" show a store that works; with `refusals_count`,
    "access denied" does not.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, refusals_count: bool = False) -> None:
        self._clock = clock
        self._refusals_count = refusals_count
        self._lock = ProcessLock()
        self._failures = 0
        self._pause = 0.0
        self._open_until = 0.0
        self._trial_until = 0.0
        self.last_error = ""

    @property
    def healthy(self) -> bool:
        """Whether the breaker is closed."""
        return self._pause == 0.0

    @property
    def pausing(self) -> bool:
        """Whether the store is left alone just now; does not use up a trial."""
        return self._pause > 0.0 and self._clock() < max(self._open_until, self._trial_until)

    def may_try(self) -> bool:
        """Whether a caller may use the store now. After a pause, true for one caller at a time."""
        with self._lock:
            if self._pause == 0.0:
                return True
            if self.pausing:
                return False
            self._trial_until = self._clock() + LONGEST_TRIAL
            return True

    def succeeded(self) -> None:
        """The store answered."""
        if self._failures or self._pause:
            with self._lock:
                self._failures = 0
                self._pause = self._open_until = self._trial_until = 0.0
                self.last_error = ""

    def failed(self, error: StorageError) -> None:
        """The store did not do its job. Errors that are plain answers count as success."""
        if not error.transient and not (self._refusals_count and isinstance(error, AccessDeniedError)):
            self.succeeded()
            return
        with self._lock:
            self._failures += 1
            self.last_error = str(error)
            now = self._clock()
            at_once = isinstance(error, StoreTimeoutError | StoreMissingError)
            # Calls that began before the pause may still fail during it: they are no trials.
            if now >= self._open_until and (self._pause or at_once or self._failures >= FAILURES_TO_OPEN):
                self._pause = min(self._pause * 2, LONGEST_PAUSE) if self._pause else FIRST_PAUSE
                self._open_until = now + self._pause
                self._trial_until = 0.0
