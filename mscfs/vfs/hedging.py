"""Second requests: when a program waits longer than usual for a store, another one is asked too (contract R9).

Worker processes say which fetches are slow; here it is decided whether a second attempt is made. It costs the stores
more than one request for each read, so there is an allowance: a few at once, and in the long run one for every twenty
fetches. Fetches that wait for a store which is down by now, or was a moment ago, are helped without asking for the
price: they are not more requests than usual, only late ones.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from mscfs.errors import StoreUnavailableError
from mscfs.replicas.source import Source
from mscfs.vfs.race import Race

log = logging.getLogger(__name__)

SHARE = 0.05
"""Second requests for each fetch, in the long run."""
BURST = 8.0
"""Second requests at once, while all goes well otherwise."""


class Hedging:
    """See the module. One for each mount; `sources` are all stores.

    Without `enabled` a second store is asked only when the first is down by then, and would never answer: a directory
    that fell silent. Whoever finds that out is told of it as a `suspect`.
    """

    def __init__(self, sources: Sequence[Source], *, enabled: bool) -> None:
        self._sources = {source.profile: source for source in sources}
        self._enabled = enabled
        self.suspect: Callable[[str], None] = lambda _: None
        self._allowance = BURST
        self._slow: set[Race] = set()
        self._crowded: OrderedDict[Race, None] = OrderedDict()
        """Those for whose second attempt there was no memory, the first one first."""
        self.started = 0
        """Second requests."""
        self.won = 0
        """Those that were complete first."""

    def begins(self) -> None:
        """A fetch begins."""
        self._allowance = min(BURST, self._allowance + SHARE)

    def slow(self, race: Race) -> None:
        """The first attempt waits too long for its store, or a program waits now for one that does."""
        if not race.may_hedge:
            return
        self._slow.add(race)
        store = self._sources.get(race.slow_store)
        if store is None or not self._has_other(race):
            return
        if not self._enabled and store.health.healthy:
            self.suspect(store.profile)
            return
        # A store that was down a moment ago has to show first that it is well.
        is_late = not store.health.healthy or store.health.on_probation
        if not is_late and (self._allowance < 1 or not race.is_awaited):
            return
        if not race.hedge():
            self._crowded[race] = None
            return
        self._crowded.pop(race, None)
        self.started += 1
        if not is_late:
            self._allowance -= 1

    def has_room(self) -> None:
        """There may be memory for second attempts by now. Raises nothing."""
        for race in list(self._crowded):
            self._crowded.pop(race, None)
            self._help(race)
            if race in self._crowded:
                self._crowded.move_to_end(race, last=False)
                return  # no more memory: it is the first again, and the others wait on

    def store_is_down(self, profile: str) -> None:
        """Nobody need wait for this store any longer. Raises nothing."""
        for race in list(self._slow):
            if race.slow_store == profile:
                self._help(race)

    def over(self, race: Race, *, second_won: bool) -> None:
        """A fetch is over."""
        self._slow.discard(race)
        self._crowded.pop(race, None)
        if second_won:
            self.won += 1
            store = self._sources[race.slow_store]
            store.health.failed(StoreUnavailableError("another store was faster", store=race.slow_store))

    def _help(self, race: Race) -> None:
        try:
            self.slow(race)
        except Exception:
            log.exception("a bug in a second request: the mount goes on with the first")

    def _has_other(self, race: Race) -> bool:
        useless = {race.slow_store, *race.lacking}
        return any(name not in useless and source.health.healthy for name, source in self._sources.items())
