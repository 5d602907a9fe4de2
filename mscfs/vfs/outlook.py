"""How the stores are, as this mount sees it: the one view that all worker processes share (contract R9).

Workers say which store failed, and how long reads took; they are told which stores are down and how long an answer may
take before it is slow. So each lesson is paid for once, whichever process has to learn it, and no reader tries out a
store that was down: the prober does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import trio

from mscfs.errors import StorageError, StoreTimeoutError
from mscfs.replicas.latency import NOTICEABLE, Latency, Waits, is_far_slower
from mscfs.replicas.source import Replica, Source
from mscfs.workers.protocol import FetchSummary, Stores

LONGEST_PAUSE = 5.0
"""Between two probes of a store that is down (seconds): they are cheap, and no reader waits for them."""
_READS = 16
"""After so many reads it is looked at anew what is usual."""
_TO_BE_PROBED = Waits(2.0, (2.0, 4.0, 8.0))
"""What is slow (seconds) at a directory where nothing is asked twice: it may never answer, and is probed then."""
_MATERIAL = 0.2
"""Workers are told when what is slow has changed by such a share."""


class Outlook:
    """See the module. `tell` sends to all workers; `on_down` is called with each store that is down from now on.

    Without `watches` workers are not told what is slow, and never say so, but of directories, which may be silent. To
    be made and used in trio's thread; only the health of a store may be changed by others.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        tell: Callable[[Stores], None],
        *,
        watches: bool,
        on_down: Callable[[str], None],
    ) -> None:
        self._sources = {source.profile: source for source in sources}
        self._tell = tell
        self._watches = watches
        self._on_down = on_down
        self._reads = 0
        self._rivals: dict[str, Source] = {}
        """For each store that is left alone because it is far slower: the one that was compared with it."""
        self.samples: dict[str, str] = {}
        """For each store, the object that was last read from it."""
        self.latencies = {source.profile: Latency() for source in sources}
        token = trio.lowlevel.current_trio_token()

        def refresh_soon() -> None:
            with suppress(trio.RunFinishedError):
                token.run_sync_soon(self.refresh, idempotent=True)

        for source in sources:
            source.health.longest_pause = LONGEST_PAUSE
            source.health.on_change = refresh_soon
        self._told = self._present()
        tell(self._told)

    def read(self, key: str, summary: FetchSummary) -> None:
        """A read of an object came to this."""
        source = self._sources.get(summary.source)
        if source is None or not summary.seconds or not source.health.healthy:
            return
        self.latencies[source.profile].add(summary.first, summary.seconds, summary.bytes)
        self.samples[source.profile] = key
        self._reads += 1
        if self._reads % _READS == 0:
            self._compare()
            self.refresh()

    def failed(self, profile: str, error: StorageError) -> None:
        """A worker met this error at a store: each is told once, whatever became of the request."""
        source = self._sources.get(profile)
        if source is not None:
            source.statistics.add(errors=1)
            # An answer, though not a good one, may be late: it does not end a pause.
            if source.health.is_failure(error) or source.health.healthy:
                source.health.failed(error)
        # It may have given the store up by itself, and waits for our word.
        self.refresh(anyway=True)

    def probed(self, source: Source, seconds: float) -> None:
        """A probe of a store succeeded after so long (seconds)."""
        if source in self.unknown:
            self.latencies[source.profile].add(seconds)
        self._rivals.pop(source.profile, None)
        source.health.succeeded()

    def rival(self, source: Source) -> Source | None:
        """The store that was far faster than one that is left alone for that; see `is_still_slow`."""
        return None if source.health.healthy else self._rivals.get(source.profile)

    def is_still_slow(self, source: Source, seconds: float, rivals: float) -> bool:
        """Whether a probe that took so long (seconds) leaves a store down, given that of its rival."""
        if not is_far_slower(seconds, rivals):
            return False
        message = f"a probe took {seconds:.2f} s, and {rivals:.2f} s elsewhere"
        source.health.failed(StoreTimeoutError(message, store=source.profile))
        return True

    @property
    def unknown(self) -> Sequence[Source]:
        """The stores of which too little is known to say whether a slow one is far slower than they are."""
        medians = {profile: latency.median for profile, latency in self.latencies.items()}
        sources = self._sources.values()
        if all((medians[source.profile] or 0) < NOTICEABLE for source in sources if isinstance(source, Replica)):
            return ()
        return [source for source in sources if medians[source.profile] is None and source.health.healthy]

    def refresh(self, *, anyway: bool = False) -> None:
        """Tell the workers what has changed."""
        before, now = self._told, self._present()
        if anyway or now.down != before.down or _differ(before.waits, now.waits):
            self._told = now
            self._tell(now)
        for profile in now.down:
            if profile not in before.down:
                self._on_down(profile)

    def _present(self) -> Stores:
        down = tuple(profile for profile, source in self._sources.items() if not source.health.healthy)
        return Stores(down, self._waits() if len(self._sources) > 1 else {})

    def _waits(self) -> dict[str, Waits]:
        if self._watches:
            return {profile: latency.waits() for profile, latency in self.latencies.items()}
        sources = self._sources.values()
        return {source.profile: _TO_BE_PROBED for source in sources if source.provider.capabilities.real_directories}

    def _compare(self) -> None:
        """Leave replicas alone that answer far slower than another store would."""
        for source in self._sources.values():
            ours = self.latencies[source.profile].median
            if not isinstance(source, Replica) or not source.health.healthy or ours is None:
                continue
            for peer, theirs in self._peers(source):
                if peer.health.healthy and is_far_slower(ours, theirs):
                    self.latencies[source.profile].forget()
                    self._rivals[source.profile] = peer
                    source.health.open(f"takes {ours:.2f} s to answer, and {peer.profile} {theirs:.2f} s")
                    break

    def _peers(self, source: Source) -> Sequence[tuple[Source, float]]:
        peers = [peer for peer in self._sources.values() if peer is not source]
        medians = [(peer, self.latencies[peer.profile].median) for peer in peers]
        return [(peer, median) for peer, median in medians if median is not None]


def _differ(before: Mapping[str, Waits], now: Mapping[str, Waits]) -> bool:
    return any(
        abs(new - old) > _MATERIAL * old
        for profile, waits in now.items()
        for old, new in zip(_flat(before[profile]), _flat(waits), strict=True)
    )


def _flat(waits: Waits) -> Sequence[float]:
    return (waits.first, *waits.whole)
