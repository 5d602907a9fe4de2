"""Probes: the daemon learns which store went down in a worker's hands, and that one came back without being used."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress

import trio

from mscfs.errors import NotFoundError, StorageError
from mscfs.providers.base import StorageProvider
from mscfs.replicas.source import Source
from mscfs.types import ByteRange
from mscfs.vfs.outlook import Outlook
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the stores that are down; their circuit breakers decide how often one is asked."""
SAMPLE_BYTES = 64 << 10
"""How much of an object is read to see that a store delivers."""
DOWN_INTERVAL = 3.0
"""Seconds between two probes of a primary that is down, whatever its breaker says: everybody waits for it. A replica
that keeps a probe waiting for so long is asked once more beside it."""
PRIMARY_PROBES = 3
REPLICA_PROBES = 2
"""Of a store that keeps its probes waiting, so many at once: it may be back by now, and answer the next one."""
_NEVER = float("-inf")

TOLD_AFTER = 10.0
"""Seconds after which the log tells of a replica that is down: most are back sooner, and some come and go."""

LOOK = 2.0
"""Seconds that somebody who wants to know how the stores are waits for those that do not answer."""
BELIEVED = 1.0
"""Seconds for which a store that has answered a probe is not asked by those."""


class Prober:
    """Asks stores with one cheap request each, all at once: suspects, those that are down, and unknown ones.

    It also tells the log when the mount is degraded, and when it is not any more (R8), and which replicas stay down.
    """

    def __init__(
        self, primary: Source, replicas: Sequence[Source], run_blocking: RunBlocking, outlook: Outlook
    ) -> None:
        self._primary = primary
        self._sources = (primary, *replicas)
        self._run_blocking = run_blocking
        self._outlook = outlook
        self._suspects: set[str] = set()
        self._under_way: defaultdict[str, list[float]] = defaultdict(list)
        """When the probes began that were not answered so far."""
        self._answered: dict[str, float] = {}
        self._asked: dict[str, float] = {}
        """When the stores that are down were last asked."""
        self._is_degraded = False
        self._told: set[str] = set()
        """The replicas that are down as far as the log knows."""
        self._wake = trio.Event()
        self._probe_ended = trio.Event()

    def suspect(self, profile: str) -> None:
        """A worker process met an error at this store: find out how it is."""
        self._suspects.add(profile)
        self._wake.set()

    def waits_for(self, profile: str) -> float:
        """Seconds for which the store has kept its probes waiting: the oldest that is under way. 0: none is."""
        return trio.current_time() - min(self._under_way[profile], default=trio.current_time())

    async def look(self) -> Collection[str]:
        """Find out how the stores are that are believed to be well; returns those that have not answered so far.

        What fails is asked again at once, until it is down or has answered.
        """
        now = trio.current_time()
        wanted = [source for source in self._sources if now - self._answered.get(source.profile, _NEVER) > BELIEVED]
        unsettled: set[str] = set()
        with trio.move_on_after(LOOK):
            while True:
                unsettled = {
                    source.profile
                    for source in wanted
                    if source.health.healthy and self._answered.get(source.profile, _NEVER) < now
                }
                if not unsettled:
                    break
                self._suspects |= unsettled
                self._wake.set()
                await self._probe_ended.wait()
        return unsettled

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
                        now = trio.current_time()
                        self._under_way[source.profile].append(now)
                        nursery.start_soon(self._probe, source, now)

    def _is_due(self, source: Source, *, suspected: bool) -> bool:
        under_way, is_primary = len(self._under_way[source.profile]), source is self._primary
        if source.health.healthy:
            return not under_way and (suspected or source in self._outlook.unknown)
        now = trio.current_time()
        if is_primary or under_way:
            is_overdue = now - self._asked.get(source.profile, _NEVER) >= DOWN_INTERVAL
            is_due = is_overdue and under_way < (PRIMARY_PROBES if is_primary else REPLICA_PROBES)
        else:
            is_due = source.health.may_try()
        if is_due:
            self._asked[source.profile] = now
        return is_due

    async def _probe(self, source: Source, began: float) -> None:
        profile = source.profile
        try:
            seconds = await self._run_blocking(_timed_probe, source.provider, self._sample(source))
            rival = self._outlook.rival(source)
            if rival is not None:
                with suppress(StorageError):
                    rivals = await self._run_blocking(
                        _timed_probe, rival.provider, self._outlook.samples.get(rival.profile, "")
                    )
                    if self._outlook.is_still_slow(source, seconds, rivals):
                        return
        except StorageError as error:
            if not error.transient:
                self._answered[profile] = trio.current_time()
            if self._answered.get(profile, _NEVER) <= began or not error.transient:  # no later probe was answered
                source.failed(error)
                if source.health.healthy and error.transient:
                    self._suspects.add(profile)  # one failure decides nothing: ask again
        except Exception:
            log.exception("a bug in the provider of %s: its probe failed, the mount goes on", profile)
        else:
            self._answered[profile] = trio.current_time()
            self._outlook.probed(source, seconds)
            self._report()
        finally:
            self._under_way[profile].remove(began)
            self._probe_ended.set()
            self._probe_ended = trio.Event()

    def _sample(self, source: Source) -> str:
        """What to read of a replica that is left alone: one that answers other questions may still not deliver."""
        is_tested = source is not self._primary and not source.health.healthy
        return self._outlook.samples.get(source.profile, "") if is_tested else ""

    def _report(self) -> None:
        self._report_primary()
        for replica in self._sources[1:]:
            profile, health = replica.profile, replica.health
            if profile not in self._told and health.down_for >= TOLD_AFTER:
                self._told.add(profile)
                log.warning("the replica %s is down, it is asked again and again: %s", profile, health.last_error)
            elif profile in self._told and health.healthy:
                self._told.remove(profile)
                log.info("the replica %s is back", profile)

    def _report_primary(self) -> None:
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


def _timed_probe(provider: StorageProvider, sample: str) -> float:
    """Probe, and read the beginning of an object if there is one; how long the last of them took, in seconds."""
    began = time.monotonic()
    provider.probe()
    if sample:
        began = time.monotonic()
        with suppress(NotFoundError), provider.get(sample, ByteRange(0, SAMPLE_BYTES)) as answer:
            answer.read_all()
    return time.monotonic() - began
