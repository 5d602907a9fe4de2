"""What replicas are known to lack, so that no read asks a far or slow replica for what it does not have.

Two things tell it: the replica's own "not found", and one listing of the directory, fetched in the background once some
names of it were missing. Neither is a proof. A replica that is said to lack an object is asked last instead of first,
and the wish to fill it is the same; one that is said to hold it is asked as ever, and its copy checked.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from mscfs.errors import StorageError
from mscfs.providers.page import PAGE_SIZE, Page
from mscfs.replicas.source import Replica
from mscfs.vfs.paths import to_bytes
from mscfs.vfs.transport import OnPage
from mscfs.workers.protocol import FetchSummary

log = logging.getLogger(__name__)

MISSES = 3
"""So many names of a directory that a replica did not have make it worth a listing."""
FEWEST_PAGES = 10
"""A listing may take so many pages, and one for each miss that it might have spared: a huge directory is given up, and
tried again after twice as many misses."""
AT_ONCE = 2
"""Listings under way."""
LARGEST = 300_000
"""Listed names that are remembered, at about 70 bytes each."""
_ANSWER_WEIGHT = 3
"""An answer about one name takes the memory of so many listed ones."""
_NEVER = float("-inf")


class ListReplica(Protocol):
    """Lists a directory of one store: `Transport.list_directory`."""

    async def __call__(self, directory: str, on_page: OnPage, *, store: str) -> Sequence[str]:
        """List it; `on_page` is called with each page."""


class _Directory:
    """One directory of one replica. Names are hashes: two names with one hash cost a request, and no more."""

    __slots__ = ("answers", "due", "is_coming", "misses", "names", "place", "taken", "weight")

    def __init__(self, profile: str, directory: str) -> None:
        self.place = profile, directory
        self.misses = 0
        self.due = MISSES
        """Misses after which to list it, when no listing is believed."""
        self.names: set[int] = set()
        """Of the last listing."""
        self.taken = _NEVER
        """When that listing began."""
        self.answers: dict[int, tuple[bool, float]] = {}
        """What was learned of single names, and when."""
        self.is_coming = False
        self.weight = 0

    def lacks(self, name: int, since: float) -> bool:
        """Whether what was learned after `since` says so, the latest word first."""
        answer = self.answers.get(name)
        if answer is not None and answer[1] >= self.taken and answer[1] > since:
            return not answer[0]
        return self.taken > since and name not in self.names

    def is_copied(self, name: int, since: float) -> bool:
        """Whether a copy was made here after `since`."""
        held, when = self.answers.get(name, (False, _NEVER))
        return held and when > since


class Holdings:
    """See the module. What was learned is believed for `ttl` seconds. Listings run in `nursery`.

    Directories on disk are left out: to ask them costs less than to remember. With a `ttl` of 0 nothing is.
    `suspect` is told of replicas that did not answer.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        list_replica: ListReplica,
        nursery: trio.Nursery,
        *,
        ttl: float,
        clock: Callable[[], float],
        suspect: Callable[[str], None],
    ) -> None:
        self._replicas = {
            replica.profile: replica
            for replica in replicas
            if ttl > 0 and not replica.provider.capabilities.real_directories
        }
        self._list_replica = list_replica
        self._nursery = nursery
        self._ttl = ttl
        self._clock = clock
        self._suspect = suspect
        self._at_once = trio.CapacityLimiter(AT_ONCE)
        self._directories: OrderedDict[tuple[str, str], _Directory] = OrderedDict()
        self._weight = 0

    def lacking(self, key: str) -> tuple[str, ...]:
        """The profiles of the replicas that lack an object, as far as is known."""
        if not self._directories:
            return ()
        directory, name = _split(key)
        since = self._clock() - self._ttl
        return tuple(
            profile
            for profile in self._replicas
            if (known := self._directories.get((profile, directory))) is not None and known.lacks(name, since)
        )

    def told(self, key: str, summary: FetchSummary) -> None:
        """A read came to this."""
        for profile in summary.missing:
            if profile in self._replicas:
                self._missed(profile, key)
        if summary.source in self.lacking(key):
            self.settled(summary.source, key, held=True)  # it was asked all the same

    def settled(self, profile: str, key: str, *, held: bool) -> None:
        """This mount brought a replica up to date for one key."""
        directory, name = _split(key)
        known = self._directories.get((profile, directory))
        # Of what nothing is known, a copy need not be known either: the replica is asked first.
        if known is not None:
            self._answered(known, name, held=held)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _missed(self, profile: str, key: str) -> None:
        directory, name = _split(key)
        known = self._directories.get((profile, directory))
        if known is None:
            known = self._directories[profile, directory] = _Directory(profile, directory)
        self._directories.move_to_end(known.place)
        since = self._clock() - self._ttl
        if not known.is_copied(name, since):  # else it was asked before the copy was there
            self._answered(known, name, held=False)
        known.misses += 1
        replica = self._replicas[profile]
        if known.misses >= known.due and known.taken <= since and not known.is_coming and replica.health.healthy:
            known.is_coming = True
            self._nursery.start_soon(self._list, known)

    async def _list(self, known: _Directory) -> None:
        (profile, directory), taken = known.place, self._clock()
        names: set[int] = set()
        scope = trio.CancelScope()

        def take(page: Page) -> None:
            names.update(map(hash, page.names))
            is_too_long = len(names) > min(LARGEST // 2, PAGE_SIZE * max(FEWEST_PAGES, known.misses))
            if is_too_long or self._clock() - taken >= self._ttl:
                scope.cancel()

        try:
            with scope:
                async with self._at_once:
                    await self._list_replica(directory, take, store=profile)
        except StorageError:
            self._suspect(profile)
        except Exception:
            log.exception("a bug in the listing of %r", directory)
        else:
            if scope.cancelled_caught:
                known.due = 2 * known.misses
            else:
                known.taken, known.names = taken, names
                known.answers = {name: answer for name, answer in known.answers.items() if answer[1] >= taken}
                self._weigh(known)
        finally:
            known.is_coming = False

    def _answered(self, known: _Directory, name: int, *, held: bool) -> None:
        known.answers[name] = held, self._clock()
        self._weigh(known)

    def _weigh(self, known: _Directory) -> None:
        """Bound what is remembered: the directories that were missed in longest ago are forgotten."""
        if self._directories.get(known.place) is not known:
            return  # forgotten meanwhile
        weight = len(known.names) + _ANSWER_WEIGHT * (1 + len(known.answers))
        self._weight += weight - known.weight
        known.weight = weight
        while self._weight > LARGEST and self._directories:
            _, oldest = self._directories.popitem(last=False)
            self._weight -= oldest.weight


def _split(key: str) -> tuple[str, int]:
    """A key's directory, as listings have it, and the hash of its name."""
    directory, slash, name = key.rpartition("/")
    return directory + slash, hash(to_bytes(name))
