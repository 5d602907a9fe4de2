"""The uploader tasks: they bring replicas to the primary's state, one wish of the journal at a time."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import trio

from mscfs.errors import StorageError
from mscfs.journal import ClaimedWish, Journal, Wish
from mscfs.replicas.manager import ReplicaManager
from mscfs.vfs.rests import Rests
from mscfs.vfs.transport import RunBlocking, Transport

log = logging.getLogger(__name__)

DEFAULT_UPLOADERS = 8
"""The specification's default of MSC_REPLICA_UPLOAD_THREADS."""
IDLE_SECONDS = 5.0
"""How long to sleep at most: another process may have written to the journal."""
BATCH_SECONDS = 0.05
"""How long wishes of reads are gathered before they are written to the journal together."""


class OnSettled(Protocol):
    """Takes what a step came to."""

    def __call__(self, profile: str, key: str, /, *, held: bool) -> None:
        """The replica holds the key as the primary does, or does not."""


class Replicator:
    """`uploaders` tasks below one dispatcher that claims wishes. Cancelled tasks give their claims back.

    `on_settled` is told that a replica holds, or does not hold, a key as the primary does.
    """

    def __init__(
        self,
        manager: ReplicaManager,
        journal: Journal,
        transport: Transport,
        run_blocking: RunBlocking,
        *,
        on_settled: OnSettled,
        uploaders: int = DEFAULT_UPLOADERS,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._manager = manager
        self._journal = journal
        self._transport = transport
        self._run_blocking = run_blocking
        self._on_settled = on_settled
        self._uploaders = uploaders
        self._wake = trio.Event()
        self._gathered: dict[tuple[str, str], Wish] = {}
        self._gathering = trio.Event()
        self._draining = 0
        self._busy = 0
        self._rests = Rests(uploaders, clock)
        self._hopeless: dict[tuple[str, str], float] = {}
        self._succeeded: dict[str, float] = {}

    def wake(self) -> None:
        """The journal got new wishes."""
        self._wake.set()

    def gather(self, wishes: Sequence[Wish]) -> None:
        """Take back-fill wishes of reads; they reach the journal a moment later, many at once."""
        for wish in wishes:
            self._gathered[wish.replica, wish.key] = wish
        if wishes:
            self._gathering.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            await self._run_blocking(self._journal.release_dead_claims)
        except StorageError as error:
            log.warning("replication waits, the journal cannot be read: %s", error)
        send: trio.MemorySendChannel[ClaimedWish]
        send, receive = trio.open_memory_channel[ClaimedWish](0)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write_gathered)
            for _ in range(self._uploaders):
                nursery.start_soon(self._upload, receive)
            await self._dispatch(send)

    async def drain(self, timeout: float) -> int:  # noqa: ASYNC109 - the deadline is part of the answer
        """Work everything off, also what is not due yet; returns how many entries are left after `timeout` seconds.

        What fails all the same is tried again after a rest.
        """
        self._draining += 1
        self.wake()
        try:
            with trio.move_on_after(timeout):
                while self._gathered or self._busy or await self._run_blocking(self._journal.pending):
                    self.wake()
                    await trio.sleep(BATCH_SECONDS)
        finally:
            self._draining -= 1
        return await self._run_blocking(self._journal.pending) + len(self._gathered)

    def hopeless(self, since: float) -> int:
        """How many wishes, all tried for a drain since then (on trio's clock), no further try would carry out.

        Whatever succeeds at the same replica may have been in the way of the others, as a file that became a directory.
        """
        self._hopeless = {
            name: tried
            for name, tried in self._hopeless.items()
            if tried >= since and tried > self._succeeded.get(name[0], -math.inf)
        }
        return len(self._hopeless)

    # -- inside ---------------------------------------------------------------------------------------------------

    async def _write_gathered(self) -> None:
        while True:
            await self._gathering.wait()
            await trio.sleep(BATCH_SECONDS)
            await self.write_gathered()

    async def write_gathered(self) -> None:
        """Put the gathered wishes into the journal now; they are kept here if that fails."""
        batch, self._gathered, self._gathering = self._gathered, {}, trio.Event()
        self._busy += 1  # neither gathered nor in the journal: a drain must not overlook them
        written = False
        try:
            await self._run_blocking(self._journal.wish, list(batch.values()))
            written = True
        except StorageError as error:
            log.warning("back-fill wishes wait, the journal cannot be written: %s", error)
            self._gathered = {**batch, **self._gathered}
        finally:
            self._busy -= 1
        if written:
            self.wake()
        else:
            await trio.sleep(IDLE_SECONDS)
            self._gathering.set()

    async def _dispatch(self, send: trio.MemorySendChannel[ClaimedWish]) -> None:
        while True:
            self._wake = trio.Event()
            try:
                names = self._ready()
                claimed = await self._claim(names)
                pause = None
                if not claimed:
                    pause = await self._run_blocking(partial(self._journal.next_due, replicas=names))
            except StorageError as error:
                log.warning("replication waits, the journal cannot be read: %s", error)
                claimed, pause = [], IDLE_SECONDS
            for position, wish in enumerate(claimed):
                try:
                    await send.send(wish)
                except trio.Cancelled:
                    for rest in claimed[position:]:
                        self._journal.release(rest)
                    raise
            if not claimed:
                with trio.move_on_after(
                    min(IDLE_SECONDS if pause is None else max(pause, BATCH_SECONDS), IDLE_SECONDS)
                ):
                    await self._wake.wait()

    def _ready(self) -> Sequence[str]:
        """The replicas for which something may be tried now."""
        is_drained = bool(self._draining)
        # A replica known to be down is tried by the prober, which tries only what nobody else is trying.
        return [
            replica.profile
            for replica in self._manager.replicas
            if (replica.health.healthy or is_drained)
            and not self._rests.is_refusing(replica.profile, drained=is_drained)
        ]

    async def _claim(self, ready: Sequence[str]) -> Sequence[ClaimedWish]:
        claimed = await self._take(ready)
        if claimed or not self._draining:
            return claimed
        return await self._take([name for name in ready if not self._rests.is_failing(name)], even_if_not_due=True)

    async def _take(self, replicas: Sequence[str], *, even_if_not_due: bool = False) -> Sequence[ClaimedWish]:
        if not replicas:
            return []
        claim = partial(self._journal.claim, self._uploaders, replicas=replicas, even_if_not_due=even_if_not_due)
        return await self._run_blocking(claim)

    async def _upload(self, receive: trio.MemoryReceiveChannel[ClaimedWish]) -> None:
        async for wish in receive:
            self._busy += 1
            try:
                await self._attempt(wish)
            except StorageError as error:
                # The journal voids the claim as soon as it can be written.
                log.warning("replication waits, the journal cannot be read: %s", error)
                await trio.sleep(IDLE_SECONDS)
            finally:
                self._busy -= 1

    async def _attempt(self, wish: ClaimedWish) -> None:
        replica, began = self._manager.replica(wish.replica), trio.current_time()
        try:
            result = await self._transport.step(wish.replica, wish.key, delete=wish.kind == "delete")
            self._on_settled(wish.replica, wish.key, held=result.outcome in {"fresh", "copied"})
        except StorageError as error:
            if error.store == wish.replica:
                replica.health.failed(error)
            self._rests.failed(wish.replica, error)
            pause = await self._run_blocking(self._journal.postpone, wish, str(error))
            if error.transient:
                self._hopeless.pop((wish.replica, wish.key), None)
            elif self._draining:
                self._hopeless[wish.replica, wish.key] = began
            # A store in trouble has a line of its own, which must not drown in one for each wish and try.
            is_told = error.transient or self._rests.is_refusing(wish.replica, drained=False)
            level = logging.DEBUG if is_told else logging.INFO
            log.log(level, "%s: %s is tried again in %.0f s: %s", wish.replica, wish.key, math.ceil(pause), error)
        except Exception as error:
            self._rests.failed(wish.replica, error)
            log.exception("a bug in bringing %s to %s: it is tried again, the mount goes on", wish.key, wish.replica)
            await self._run_blocking(self._journal.postpone, wish, "internal error, see the log of the mount")
        except trio.Cancelled:
            self._journal.release(wish)
            raise
        else:
            self._rests.succeeded(wish.replica)
            self._succeeded[wish.replica] = trio.current_time()
            self._hopeless.pop((wish.replica, wish.key), None)
            replica.health.succeeded()
            await self._run_blocking(self._journal.finish, wish)
