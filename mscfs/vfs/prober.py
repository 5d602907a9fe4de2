"""Probes: the daemon learns which store went down in a worker's hands, and that one came back without being used."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from mscfs.errors import StorageError
from mscfs.replicas.source import Source
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two looks at the stores that are down; their circuit breakers decide how often one is asked."""


class Prober:
    """Asks suspect stores, and stores that are down, with one cheap request each; all at once, one at a time each."""

    def __init__(self, sources: Sequence[Source], run_blocking: RunBlocking) -> None:
        self._sources = sources
        self._run_blocking = run_blocking
        self._suspects: set[str] = set()
        self._asked: set[str] = set()
        self._wake = trio.Event()

    def suspect(self, profile: str) -> None:
        """A worker process met an error at this store: find out how it is."""
        self._suspects.add(profile)
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                with trio.move_on_after(INTERVAL):
                    await self._wake.wait()
                self._wake = trio.Event()
                suspects, self._suspects = self._suspects, set()
                for source in self._sources:
                    if source.profile in self._asked:
                        continue
                    if source.profile in suspects or (not source.health.healthy and source.health.may_try()):
                        self._asked.add(source.profile)
                        nursery.start_soon(self._probe, source)

    async def _probe(self, source: Source) -> None:
        try:
            await self._run_blocking(source.provider.probe)
        except StorageError as error:
            source.health.failed(error)
        except Exception:
            log.exception("a bug in the provider of %s: its probe failed, the mount goes on", source.profile)
        else:
            source.health.succeeded()
        finally:
            self._asked.discard(source.profile)
