"""A store in its role below one profile: the primary or a replica, with its health and what it served."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field

from mscfs.errors import NotFoundError, StorageError, VersionMismatchError
from mscfs.providers.base import StorageProvider
from mscfs.replicas.health import Health
from mscfs.replicas.lock import ProcessLock


@dataclass(slots=True)
class SourceStatistics:
    """Counters since the process started."""

    hits: int = 0
    """Reads this store answered, whole or in part."""
    bytes_read: int = 0
    errors: int = 0
    """Requests it failed, whatever became of what they were for."""
    _lock: ProcessLock = field(default_factory=ProcessLock, repr=False)

    def add(self, *, hits: int = 0, bytes_read: int = 0, errors: int = 0) -> None:
        """Count; safe from any thread."""
        with self._lock:
            self.hits += hits
            self.bytes_read += bytes_read
            self.errors += errors


def _nobody_asks(_: StorageError) -> None:
    """Whoever asks looks at the counter."""


@dataclass(eq=False, slots=True)
class Source:
    """The primary, or one replica. `on_failure` is called with each failure that is counted, by whoever met it."""

    profile: str
    provider: StorageProvider
    health: Health = field(default_factory=Health)
    statistics: SourceStatistics = field(default_factory=SourceStatistics)
    on_failure: Callable[[StorageError], None] = _nobody_asks

    def failed(self, error: StorageError) -> None:
        """Take an error of this store into account: "not there" and "another version" are plain answers."""
        self.health.failed(error)
        if not isinstance(error, NotFoundError | VersionMismatchError):
            self.statistics.add(errors=1)
            self.on_failure(error)


@dataclass(eq=False, slots=True)
class Replica(Source):
    """One replica. `index` is its position in the configuration's reading order, from 0."""

    # A replica that refuses us is of no use; the primary's refusal is the answer.
    health: Health = field(default_factory=functools.partial(Health, refusals_count=True))
    read_priority: int = 1
    read_only: bool = False
    index: int = 0
