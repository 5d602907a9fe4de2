"""The pool of worker processes: fetches apart from uploads and replication, so that nobody starves a reader."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import msgspec
import trio

from mscfs.cache.arena import SharedMemory
from mscfs.cache.chunks import CacheSettings
from mscfs.config.values import Config
from mscfs.errors import MscfsError, StorageError, StoreUnavailableError
from mscfs.log import logged_to
from mscfs.workers.calls import Calls, OnArrival, OnEnd, OnPage, OnSlow, StartedFetch, Watching
from mscfs.workers.launch import Launched
from mscfs.workers.protocol import (
    Download,
    Fetch,
    FetchDone,
    List,
    Prepare,
    Request,
    Result,
    Step,
    Stores,
    Upload,
    WorkerSettings,
    is_foreground,
    unpack_text,
)
from mscfs.workers.worker import Call, OnTrouble, Worker

logger = logging.getLogger(__name__)

TRANSFER_PROCESSES = 1

DEATHS = 3
"""A request over which so many workers died is not repeated."""


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """`busy` requests are with a thread of a worker, `queued` ones wait for one."""

    processes: int
    busy: int
    queued: int
    restarts: int


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Of fetches, and of uploads, downloads, listings and replication."""

    fetch: GroupStatistics
    transfer: GroupStatistics


class WorkerGroup:
    """Processes that share one kind of work. Requests of a process that dies are repeated; `workers` must be run."""

    def __init__(
        self,
        settings: WorkerSettings,
        memory: SharedMemory,
        processes: int,
        launched: Iterator[Launched],
        on_trouble: OnTrouble,
    ) -> None:
        self._settings = settings
        self.workers = [
            Worker(
                settings,
                memory,
                next(launched, None),
                on_finished=self._finish,
                on_death=self._repeat,
                on_trouble=on_trouble,
            )
            for _ in range(processes)
        ]
        self._suspects: deque[Call] = deque()
        self._on_trial: Call | None = None

    def start(self, call: Call) -> None:
        """Have a call carried out by the least loaded process; it is told when it is over."""
        self._dispatch(call)

    async def perform(self, request: Request, on_page: OnPage | None = None) -> Result:
        """Carry out one request, and give it up when cancelled."""
        over = trio.Event()
        call = Call(request, on_page=on_page, on_end=lambda _: over.set())
        self.start(call)
        try:
            await over.wait()
        finally:
            if not over.is_set():
                self._abandon(call)
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result

    def statistics(self) -> GroupStatistics:
        """The numbers now."""
        under_way = busy = 0
        for worker in self.workers:
            under_way += len(worker.calls)
            foreground = sum(is_foreground(call.request) for call in worker.calls.values())
            background = min(len(worker.calls) - foreground, self._settings.background_threads)
            busy += min(foreground + background, self._settings.threads)
        return GroupStatistics(
            processes=len(self.workers),
            busy=busy,
            queued=under_way - busy + len(self._suspects),
            restarts=sum(worker.restarts for worker in self.workers),
        )

    def _dispatch(self, call: Call) -> None:
        min(self.workers, key=lambda worker: (not worker.is_ready, len(worker.calls))).assign(call)

    def _abandon(self, call: Call) -> None:
        if call.worker is not None:
            call.worker.abandon(call)
        else:
            self._suspects.remove(call)
        self._acquit(call)

    def _finish(self, call: Call) -> None:
        call.end()
        self._acquit(call)

    def _repeat(self, calls: list[Call]) -> None:
        """Dispatch the calls of a dead worker again.

        One of them may have killed it. After a second death each is repeated alone, so that the guilty one dies of its
        third and takes no others along.
        """
        for call in calls:
            call.worker = None
            call.deaths += 1
            call.request = _repeated(call)
            if call.is_cancelled:
                call.error = StorageError("given up: nobody waits for it")
                self._finish(call)
            elif call.deaths >= DEATHS:
                call.error = StoreUnavailableError(
                    f"{call.deaths} worker processes died over this request",
                    store=self._settings.profile,
                    key=unpack_text(call.request.key),
                )
                self._finish(call)
            elif call.deaths == DEATHS - 1:
                self._suspects.append(call)
            else:
                self._dispatch(call)
        self._try_next()

    def _acquit(self, call: Call) -> None:
        if call is self._on_trial:
            self._on_trial = None
            self._try_next()

    def _try_next(self) -> None:
        if self._on_trial is None and self._suspects:
            self._on_trial = self._suspects.popleft()
            self._dispatch(self._on_trial)


class WorkerPool(Calls):
    """A service: `await nursery.start(pool.run)`. Calls may be made at any time; they wait for the processes.

    Fetches are written into `memory`, and kept on disk in the cache of the settings `cache`, if any. `namespace` is the
    first part of chunk names, as in `object_digest`. The first processes are those `launched` before.
    """

    def __init__(
        self,
        config: Config,
        profile: str,
        cache: CacheSettings | None,
        memory: SharedMemory,
        *,
        namespace: str,
        chunk_size: int,
        fetch_processes: int = 1,
        fetch_threads: int = 16,
        upload_threads: int = 4,
        step_threads: int = 8,
        list_threads: int = 4,
        store_factory: str = "mscfs.store:open_store",
        launched: Sequence[Launched] = (),
    ) -> None:
        super().__init__()
        fetch = WorkerSettings(
            name="mscfs-fetch",
            config=config,
            profile=profile,
            cache=cache,
            memory_size=memory.size,
            namespace=namespace,
            chunk_size=chunk_size,
            threads=fetch_threads,
            background_threads=max(1, fetch_threads * 3 // 4),
            store_factory=store_factory,
            log_level=logger.getEffectiveLevel(),
            log_file=logged_to(),
        )
        transfer = replace(
            fetch,
            name="mscfs-transfer",
            threads=upload_threads + step_threads + list_threads,
            background_threads=step_threads,
        )
        self.on_trouble: OnTrouble = _nobody_asks
        self.watching: Watching = _nobody_watches
        self._profile = profile
        processes = iter(launched)
        self.fetchers = WorkerGroup(fetch, memory, fetch_processes, processes, self._trouble)
        self.transfers = WorkerGroup(transfer, memory, TRANSFER_PROCESSES, processes, self._trouble)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep all processes running until cancelled; `started` when all are ready.

        Cancelling it ends the processes within two seconds and fails no call: cancel it when nobody calls any more.
        Raises MscfsError when the store cannot be opened.
        """
        try:
            async with trio.open_nursery() as nursery:
                async with trio.open_nursery() as starting:
                    for worker in (*self.fetchers.workers, *self.transfers.workers):
                        starting.start_soon(nursery.start, worker.run)
                task_status.started()
        except BaseExceptionGroup as failures:
            refusals, others = failures.split(MscfsError)
            if refusals is None or others is not None:
                raise
            # All were refused for the same reason.
            raise _first(refusals) from None

    def prepare(self) -> None:
        """Have the processes load what their first requests need, when there is time for it."""
        for worker in (*self.fetchers.workers, *self.transfers.workers):
            worker.tell(Prepare())

    def tell(self, stores: Stores) -> None:
        """Let all workers know how the stores are, those that are started later too."""
        for worker in (*self.fetchers.workers, *self.transfers.workers):
            worker.inform(stores)

    def statistics(self) -> PoolStatistics:
        """The numbers now."""
        return PoolStatistics(self.fetchers.statistics(), self.transfers.statistics())

    async def _perform(self, request: Request, on_page: OnPage | None = None) -> Result:
        with self.watching(self._store_of(request)):
            return await self.transfers.perform(request, on_page)

    def _store_of(self, request: Request) -> str:
        """The store that a request waits for; `""` when it may be another one each time."""
        match request:
            case Step():
                return request.profile
            case List():
                return "" if request.stand_in else request.store or self._profile
            case Download():
                return ""
            case _:
                return self._profile

    def _trouble(self, store: str, error: StorageError) -> None:
        self.on_trouble(store, error)

    def _start_fetch(self, request: Fetch, on_arrival: OnArrival, on_slow: OnSlow, on_end: OnEnd) -> StartedFetch:
        def end(call: Call) -> None:
            on_end(call.result.summary if isinstance(call.result, FetchDone) else None, call.error)

        call = Call(request, on_arrival, on_slow=on_slow, on_end=end)
        self.fetchers.start(call)
        return call


def _nobody_asks(_: str, __: StorageError) -> None:
    """The errors of requests tell enough."""


def _nobody_watches(_: str) -> AbstractContextManager[None]:
    """Every store ends its calls by itself."""
    return nullcontext()


def _repeated(call: Call) -> Request:
    """The request as it is sent the next time."""
    request = call.request
    if isinstance(request, Fetch):
        # What has arrived is there.
        return msgspec.structs.replace(request, present=call.arrived)
    if isinstance(request, Upload):
        return msgspec.structs.replace(request, repeated=True)
    return request


def _first(failures: BaseExceptionGroup[MscfsError]) -> MscfsError:
    failure = failures.exceptions[0]
    return _first(failure) if isinstance(failure, BaseExceptionGroup) else failure
