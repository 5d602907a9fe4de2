"""One circuit breaker for each store: a store that fails is left alone for a while, then tried again."""

from __future__ import annotations

import time
from collections.abc import Callable

from mscfs.errors import AccessDeniedError, StorageError, StoreMissingError, StoreTimeoutError
from mscfs.replicas.lock import ProcessLock

FAILURES_TO_OPEN = 3
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
RELAPSE = 10.0
"""A store that fails again so soon (seconds) after it came back is left alone at once, and for longer than before."""
LONGEST_TRIAL = 15.0
"""A caller that tries a store and never tells what came of it keeps others off for so long."""
_NEVER = float("-inf")
_FOREVER = float("inf")


class Health:
    """Thread-safe. Closed: the store is used. Open: it is skipped until a pause is over; then one caller tries it.

    A time-out opens at once (each costs a reader seconds); other transient failures open after three in a row. Pauses
    (seconds) double while trials fail, up to `longest_pause`. Answers such as "not found" show a store that works; with
    `refusals_count`, "access denied" does not.

    `on_change` is called when the breaker opens or closes, by whoever caused it.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, refusals_count: bool = False) -> None:
        self.longest_pause = LONGEST_PAUSE
        self.last_error = ""
        self.on_change: Callable[[], None] = _nobody_cares
        self._clock = clock
        self._refusals_count = refusals_count
        self._lock = ProcessLock()
        self._failures = 0
        self._pause = 0.0
        self._opened = 0.0
        self._last_pause = 0.0
        self._closed = _NEVER
        self._open_until = 0.0
        self._trial_until = 0.0
        self._is_follower = False

    @property
    def healthy(self) -> bool:
        """Whether the breaker is closed."""
        return self._pause == 0.0

    @property
    def down_for(self) -> float:
        """Seconds since the breaker opened; 0 while it is closed."""
        return self._clock() - self._opened if self._pause else 0.0

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
        if not (self._failures or self._pause):
            return
        with self._lock:
            self._failures = 0
            if self._is_follower:
                return
            was_open = self._pause > 0.0
            if was_open:
                self._last_pause, self._closed = self._pause, self._clock()
            self._pause = self._open_until = self._trial_until = 0.0
            self.last_error = ""
        if was_open:
            self.on_change()

    def is_failure(self, error: StorageError) -> bool:
        """Whether an error shows a store that does not work."""
        return error.transient or (self._refusals_count and isinstance(error, AccessDeniedError))

    def failed(self, error: StorageError) -> None:
        """The store did not do its job. Errors that are plain answers count as success."""
        if not self.is_failure(error):
            self.succeeded()
            return
        with self._lock:
            was_closed = self.healthy
            self._failures += 1
            self.last_error = str(error)
            at_once = isinstance(error, StoreTimeoutError | StoreMissingError) or self.on_probation
            # Calls that began before the pause may still fail during it: they are no trials.
            if self._clock() >= self._open_until and (self._pause or at_once or self._failures >= FAILURES_TO_OPEN):
                self._begin_pause()
            has_changed = was_closed and not self.healthy
        if has_changed:
            self.on_change()

    def open(self, reason: str) -> None:
        """Leave the store alone although it answers."""
        with self._lock:
            self.last_error = reason
            self._begin_pause()
        self.on_change()

    def follow(self, *, down: bool) -> None:
        """Whoever sees more than this process says how the store is.

        From now on nobody here tries a store that is down: it is so until the next word.
        """
        with self._lock:
            self._is_follower = True
            self._failures = 0
            self._pause = FIRST_PAUSE if down else 0.0
            self._open_until = _FOREVER if down else 0.0
            self._trial_until = 0.0

    @property
    def on_probation(self) -> bool:
        """Whether the store was down a moment ago."""
        return self._clock() - self._closed < RELAPSE

    def _begin_pause(self) -> None:
        if not self._pause:
            self._opened = self._clock()
        before = self._pause or (self._last_pause if self.on_probation else 0.0)
        self._pause = min(before * 2, self.longest_pause) if before else FIRST_PAUSE
        self._open_until = _FOREVER if self._is_follower else self._clock() + self._pause
        self._trial_until = 0.0


def _nobody_cares() -> None:
    """Whoever cares looks at the health itself."""
