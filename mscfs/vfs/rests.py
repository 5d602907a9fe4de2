"""How long copies to a replica wait after others failed: nobody is hammered at, and nobody waits for long."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from mscfs.errors import AccessDeniedError, NoSpaceError, QuotaExceededError, ReadOnlyError

log = logging.getLogger(__name__)

FIRST_REST = 0.5
LONGEST_REST = 60.0
LONGEST_REST_OF_DRAIN = 5.0
"""Seconds. Rests double; somebody waits for a drain."""
_REFUSALS = (NoSpaceError, QuotaExceededError, AccessDeniedError, ReadOnlyError)
"""What a store that says so of one object says of the next one, too."""


class Rests:
    """Counted since the last copy that succeeded; what `uploaders` tasks meet at the same time decides nothing.

    A replica that refuses everything, because it is full for example, is left alone. Other failures are those of single
    objects, and the journal has pauses for each of them; only a drain, which has them tried at once, rests after them.
    """

    def __init__(self, uploaders: int, clock: Callable[[], float]) -> None:
        self._uploaders = uploaders
        self._clock = clock
        self._failures: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def failed(self, replica: str, error: Exception) -> None:
        """A copy failed."""
        self._last[replica] = self._clock()
        self._failures[replica] += 1
        if isinstance(error, _REFUSALS) and error.store == replica:
            self._refusals[replica] += 1
            if self._refusals[replica] == self._uploaders:
                log.warning("the replica %s takes nothing, it is tried again and again: %s", replica, error.message)

    def succeeded(self, replica: str) -> None:
        """A copy succeeded."""
        if self._refusals[replica] >= self._uploaders:
            log.info("the replica %s takes copies again", replica)
        self._failures[replica] = self._refusals[replica] = 0

    def is_refusing(self, replica: str, *, drained: bool) -> bool:
        """Whether nothing is to be tried now."""
        return self._rests(replica, self._refusals, LONGEST_REST_OF_DRAIN if drained else LONGEST_REST)

    def is_failing(self, replica: str) -> bool:
        """Whether a drain is to try nothing now that failed before."""
        return self._rests(replica, self._failures, LONGEST_REST_OF_DRAIN)

    def _rests(self, replica: str, failures: Counter[str], longest: float) -> bool:
        rounds = failures[replica] // self._uploaders
        rest = min(FIRST_REST * 2.0 ** min(rounds - 1, 30), longest) if rounds else 0.0
        return self._clock() < self._last.get(replica, 0.0) + rest
