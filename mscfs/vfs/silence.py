"""Directories that have fallen silent: a call to a `file` store may take for ever.

The kernel holds up whoever asks while an NFS server is away, or while the process behind a FUSE file system is stopped;
no time-out can be set. So these calls are watched. One that waits has its store probed; when that is not answered
either, the store is down, and whoever waits for it is told so. The thread that is held up is left to itself: it ends
when the directory answers again. All other stores end their calls by themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import trio

from mscfs.errors import StoreTimeoutError
from mscfs.replicas.source import Source
from mscfs.vfs.prober import Prober
from mscfs.vfs.transport import RunBlocking

Result = TypeVar("Result")

SILENT = 10.0
"""Seconds without an answer, of a call and of a probe, after which the call is given up."""
ASK_AFTER = 2.0
"""Seconds that a call waits before its store is probed."""
INTERVAL = 1.0
"""Seconds between two looks at those that wait."""


@dataclass(slots=True, eq=False)
class _Waiting:
    scope: trio.CancelScope
    store: str
    began: float
    silent: str = ""


class Silence:
    """See the module. Nothing is given up unless `run` runs."""

    def __init__(self, sources: Sequence[Source], prober: Prober) -> None:
        self._sources = {source.profile: source for source in sources if source.provider.capabilities.real_directories}
        self._prober = prober
        self._waiting: set[_Waiting] = set()

    @contextmanager
    def watching(self, store: str) -> Iterator[None]:
        """Give up what is done within when that store falls silent (`""`: any of them): StoreTimeoutError.

        It may be done all the same, later, as with an answer that was lost.
        """
        if not self._sources or (store and store not in self._sources):
            yield
            return
        waiting = _Waiting(trio.CancelScope(), store, trio.current_time())
        self._waiting.add(waiting)
        try:
            with waiting.scope:
                yield
        finally:
            self._waiting.remove(waiting)
        if waiting.scope.cancelled_caught:
            raise _error(waiting.silent)

    def watched(self, run_blocking: RunBlocking, store: str) -> RunBlocking:
        """The same `run_blocking` for calls that wait for one store."""

        async def run(call: Callable[..., Result], /, *arguments: object) -> Result:
            with self.watching(store):
                return await run_blocking(call, *arguments)

        return run

    async def run(self) -> NoReturn:
        """Look after those that wait, until cancelled."""
        while True:
            await trio.sleep(INTERVAL)
            self._look()

    def _look(self) -> None:
        silent = {profile for profile in self._sources if self._prober.waits_for(profile) >= SILENT}
        for profile in silent:
            if self._sources[profile].health.healthy:
                self._sources[profile].failed(_error(profile))
        for waiting in list(self._waiting):
            waited = trio.current_time() - waiting.began
            stores = {waiting.store} if waiting.store else self._sources.keys()
            if waited >= SILENT and silent & stores:
                waiting.silent = min(silent & stores)
                waiting.scope.cancel()
            elif waited >= ASK_AFTER:
                for profile in stores:
                    self._prober.suspect(profile)


def _error(store: str) -> StoreTimeoutError:
    return StoreTimeoutError(f"the directory does not answer, not within {SILENT:g} s", store=store)
