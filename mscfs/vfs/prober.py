"""Probes: the daemon learns which store went down in a worker's hands, and that one came back without being used."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import trio

from mscfs.errors import StorageError
from mscfs.replicas.source import Source
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the stores that are down; their circuit breakers decide how often one is asked."""
PRIMARY_INTERVAL = 3.0
"""Seconds between two probes of a primary that is down, whatever its breaker says: everybody waits for it."""
PRIMARY_PROBES = 3
"""Of a primary that keeps its probes waiting, so many at once: it may answer the next one."""


class Prober:
    """Asks suspect stores, and stores that are down, with one cheap request each, all at once.

    It also tells the log when the mount is degraded, and when it is not any more (R8).
    """

    def __init__(self, primary: Source, replicas: Sequence[Source], run_blocking: RunBlocking) -> None:
        self._primary = primary
        self._sources = (primary, *replicas)
        self._run_blocking = run_blocking
        self._suspects: set[str] = set()
        self._under_way: Counter[str] = Counter()
        self._answered: dict[str, float] = {}
        self._primary_asked = float("-inf")
        self._is_degraded = False
        self._wake = trio.Event()

    def suspect(self, profile: str) -> None:
        """A worker process met an error at this store: find out how it is."""
        self._suspects.add(profile)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                self._report()
                with trio.move_on_after(INTERVAL):
                    await self._wake.wait()
                self._wake = trio.Event()
                suspects, self._suspects = self._suspects, set()
                for source in self._sources:
                    if self._is_due(source, suspected=source.profile in suspects):
                        self._under_way[source.profile] += 1
                        nursery.start_soon(self._probe, source)

    def _is_due(self, source: Source, *, suspected: bool) -> bool:
        under_way, is_down = self._under_way[source.profile], not source.health.healthy
        if source is not self._primary or not is_down:
            return not under_way and (suspected or (is_down and source.health.may_try()))
        now = trio.current_time()
        if under_way >= PRIMARY_PROBES or now - self._primary_asked < PRIMARY_INTERVAL:
            return False
        self._primary_asked = now
        return True

    async def _probe(self, source: Source) -> None:
        profile, began = source.profile, trio.current_time()
        try:
            await self._run_blocking(source.provider.probe)
        except StorageError as error:
            if self._answered.get(profile, float("-inf")) <= began:  # and no later probe was answered
                source.health.failed(error)
                if source.health.healthy and error.transient:
                    self._suspects.add(profile)  # one failure decides nothing: ask again
        except Exception:
            log.exception("a bug in the provider of %s: its probe failed, the mount goes on", profile)
        else:
            self._answered[profile] = trio.current_time()
            source.health.succeeded()
            self._report()
        finally:
            self._under_way[profile] -= 1

    def _report(self) -> None:
        health, was_degraded = self._primary.health, self._is_degraded
        self._is_degraded = not health.healthy
        if self._is_degraded and not was_degraded:
            log.warning(
                "degraded, the primary %s is down: names are as last known, reads come from replicas,"
                " writes fail at close(): %s",
                self._primary.profile,
                health.last_error,
            )
        elif was_degraded and not self._is_degraded:
            log.info("the primary %s is back, nothing is degraded any more", self._primary.profile)
