"""One circuit breaker for each store: a store that fails is left alone for a while, then tried again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mscfs.errors import StorageError, StoreMissingError, StoreTimeoutError

FAILURES_TO_OPEN = 3
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0


class Health:
    """Thread-safe. Closed: the store is used. Open: it is skipped until a pause is over; then one caller tries it.

    A time-out opens at once (each costs a reader seconds); other transient failures open after three in a row. Pauses
    (seconds) double while trials fail. Answers such as "not found" or "access denied" show a store that works.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = 0.0
        self._open_until = 0.0
        self._trial_until = 0.0
        self.last_error = ""

    @property
    def healthy(self) -> bool:
        """Whether the breaker is closed; does not use up a trial."""
        return self._pause == 0.0

    def may_try(self) -> bool:
        """Whether a caller may use the store now. After a pause, true for one caller at a time."""
        with self._lock:
            if self._pause == 0.0:
                return True
            now = self._clock()
            if now < self._open_until or now < self._trial_until:
                return False
            self._trial_until = now + LONGEST_PAUSE
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
        if not error.transient:
            self.succeeded()
            return
        with self._lock:
            self._failures += 1
            self.last_error = str(error)
            at_once = isinstance(error, StoreTimeoutError | StoreMissingError)
            if self._pause or at_once or self._failures >= FAILURES_TO_OPEN:
                self._pause = min(self._pause * 2, LONGEST_PAUSE) if self._pause else FIRST_PAUSE
                self._open_until = self._clock() + self._pause
                self._trial_until = 0.0
