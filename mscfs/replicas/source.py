"""A store in its role below one profile: the primary or a replica, with its health and what it served."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from mscfs.providers.base import StorageProvider
from mscfs.replicas.health import Health


@dataclass(slots=True)
class SourceStatistics:
    """Counters since the process started."""

    hits: int = 0
    """Reads this store answered."""
    bytes_read: int = 0
    errors: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, *, hits: int = 0, bytes_read: int = 0, errors: int = 0) -> None:
        """Count; safe from any thread."""
        with self._lock:
            self.hits += hits
            self.bytes_read += bytes_read
            self.errors += errors


@dataclass(frozen=True, slots=True)
class Source:
    """The primary, or one replica."""

    profile: str
    provider: StorageProvider
    health: Health = field(default_factory=Health)
    statistics: SourceStatistics = field(default_factory=SourceStatistics)


@dataclass(frozen=True, slots=True)
class Replica(Source):
    """One replica. `index` is its position in the configuration's reading order, from 0."""

    read_priority: int = 1
    read_only: bool = False
    index: int = 0
