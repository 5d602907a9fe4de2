"""The daemon's side of one worker process: started, talked to, and started again when it dies."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import msgspec
import trio

from mscfs.cache.arena import SharedMemory
from mscfs.errors import MscfsError, StorageError
from mscfs.workers.calls import OnArrival, OnPage, OnSlow
from mscfs.workers.launch import Launched, WorkerProcess, run_anew
from mscfs.workers.protocol import (
    Arrived,
    Cancel,
    Failed,
    Fetch,
    FrameBuffer,
    Heartbeat,
    PageDone,
    Part,
    Ping,
    Prepare,
    Promote,
    Ready,
    Request,
    Result,
    Slow,
    Stop,
    Stores,
    ToWorker,
    Trouble,
    WorkerSettings,
    decode_from_worker,
    frame,
    pack_settings,
    unpack_error,
)

logger = logging.getLogger(__name__)

PING_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""A worker that says nothing for so long is killed. Its main thread does nothing but answer."""
START_SECONDS = 60.0
STOP_SECONDS = 2.0
LONGEST_PAUSE = 5.0
"""Between two starts of a worker that does not live long."""
_STEADY_SECONDS = 10.0
_RECEIVE = 256 << 10


OnTrouble = Callable[[str, StorageError], None]
"""Called with the profile of a store that failed in a worker, and its error."""


@dataclass(slots=True, eq=False)
class Call:
    """A request and whoever waits for it. As a `StartedFetch` it is what a fetch's caller holds."""

    request: Request
    on_arrival: OnArrival | None = None
    on_page: OnPage | None = None
    on_slow: OnSlow | None = None
    on_end: Callable[[Call], None] | None = None
    result: Result | None = None
    error: StorageError | None = None
    deaths: int = 0
    """Workers that died while they had it."""
    arrived: int = 0
    """Bytes of a fetch that are there."""
    worker: Worker | None = None
    is_cancelled: bool = False
    """Nobody waits for it any more, but it must be answered."""

    def announce(self, part: Part) -> None:
        """Tell of a page, of bytes that arrived, or that they do not."""
        if isinstance(part, PageDone):
            if self.on_page is not None:
                self.on_page(part.page)
        elif isinstance(part, Slow):
            if self.is_cancelled:
                self.cancel()  # once more: now that it is slow nobody may have to wait for its thread
            elif self.on_slow is not None:
                self.on_slow(part.store, part.tried)
        elif self.on_arrival is not None and part.size > self.arrived:
            self.arrived = part.size
            self.on_arrival(part.size)

    def end(self) -> None:
        """Tell that it is over."""
        if self.on_end is not None:
            self.on_end(self)

    def promote(self) -> None:
        """A program waits for it now."""
        if isinstance(self.request, Fetch) and not self.request.foreground:
            self.request = msgspec.structs.replace(self.request, foreground=True)
            if self.worker is not None:
                self.worker.tell(Promote(self.request.id))

    def cancel(self) -> None:
        """Nobody waits for it any more; it is answered all the same."""
        self.is_cancelled = True
        if self.worker is not None:
            self.worker.tell(Cancel(self.request.id))


class Worker:
    """One process at a time. `on_finished` is told of each call that got its answer, `on_death` of those that did not.

    Calls may be assigned before the process is ready; they are sent when it is. The first process may have been
    launched before.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        memory: SharedMemory,
        launched: Launched | None = None,
        *,
        on_finished: Callable[[Call], None],
        on_death: Callable[[list[Call]], None],
        on_trouble: OnTrouble,
    ) -> None:
        self._settings = settings
        self._memory = memory
        self._launched = launched
        self._on_finished = on_finished
        self._on_death = on_death
        self._on_trouble = on_trouble
        self._stores: Stores | None = None
        """What it was last told of them."""
        self.calls: dict[int, Call] = {}
        self._up = trio.Event()
        self.restarts = 0
        self.process_id = 0
        self._outbox: list[bytes] = []
        self._wake = trio.Event()
        self._ours: socket.socket | None = None
        self._socket: socket.socket | None = None
        """Set while messages may be sent at once: nothing waits to be sent before them."""
        self._last_heard = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether a process takes requests now."""
        return self._up.is_set()

    def assign(self, call: Call) -> None:
        """Send a request now, or as soon as the process is ready."""
        call.worker = self
        self.calls[call.request.id] = call
        if self.is_ready:
            self._request(call)

    def abandon(self, call: Call) -> None:
        """Forget a call; the process is told not to trouble."""
        call.worker = None
        self.calls.pop(call.request.id, None)
        self.tell(Cancel(call.request.id))

    def tell(self, message: Cancel | Promote | Prepare) -> None:
        """Say something about a request that was sent, or that more will come, if there is a process."""
        if self.is_ready:
            self._send(message)

    def inform(self, stores: Stores) -> None:
        """Let the process know how the stores are, now or as soon as it is ready."""
        self._stores = stores
        if self.is_ready:
            self._send(stores)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep a process running until cancelled; `started` when the first one is ready.

        The first process's refusal to start is raised (MscfsError); later ones are tried again.
        """
        pause = 0.0
        announced = False

        def ready() -> None:
            nonlocal announced
            if not announced:
                announced = True
                task_status.started()

        while True:
            began = trio.current_time()
            try:
                async with self._process() as (stream, process):
                    await self._converse(stream, process, ready)
            except MscfsError as error:
                if not announced:
                    raise
                logger.warning("%s cannot start: %s", self._settings.name, error)
            finally:
                self._up = trio.Event()
                self._socket = None
                self._outbox.clear()
            if not announced:
                raise MscfsError(f"the process {self._settings.name} ended while it started; see the log")
            self.restarts += 1
            logger.warning("%s died with %d requests and is started again", self._settings.name, len(self.calls))
            calls, self.calls = list(self.calls.values()), {}
            self._on_death(calls)
            pause = 0.0 if trio.current_time() - began > _STEADY_SECONDS else min(LONGEST_PAUSE, 2 * pause + 0.1)
            await trio.sleep(pause)

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[tuple[trio.SocketStream, WorkerProcess]]:
        launched, self._launched = self._launched or await run_anew(self._memory), None
        process, self._ours = launched.process, launched.connection
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(launched.connection))
        self.process_id = process.pid
        try:
            yield stream, process
        finally:
            with trio.CancelScope(shield=True):
                with trio.move_on_after(STOP_SECONDS), suppress(trio.BrokenResourceError):
                    await stream.send_all(frame(Stop()))
                    # An interrupted send may have left half a message before it: then this is the sign to end.
                    await stream.send_eof()
                    await process.wait()
                process.kill()
                await process.wait()
                await stream.aclose()

    async def _converse(self, stream: trio.SocketStream, process: WorkerProcess, ready: Callable[[], None]) -> None:
        """Talk to one process until it dies; `ready` is called when it takes requests. MscfsError if it refuses."""
        self._last_heard = trio.current_time()
        with suppress(trio.BrokenResourceError):
            await stream.send_all(frame(pack_settings(self._settings)))
        refusal: MscfsError | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, stream)
            nursery.start_soon(self._watch, process)
            try:
                refusal = await self._receive(stream, ready)
            except trio.BrokenResourceError:
                pass  # reset: it died with our requests unread
            except msgspec.DecodeError:
                logger.exception("%s talks nonsense and is killed", self._settings.name)
            nursery.cancel_scope.cancel()
        if refusal is not None:
            raise refusal

    async def _receive(self, stream: trio.SocketStream, ready: Callable[[], None]) -> MscfsError | None:
        """Take messages until the process ends; returns its reason if it refused to start."""
        frames = FrameBuffer()
        refusal: MscfsError | None = None
        assert self._ours is not None
        while data := await _receive_some(self._ours):
            self._last_heard = trio.current_time()
            for payload in frames.feed(data):
                match message := decode_from_worker(payload):
                    case Arrived() | PageDone() | Slow():
                        self._announce(message)
                    case Trouble():
                        self._report(message)
                    case Ready():
                        self._begin()
                        ready()
                    case Heartbeat():
                        pass
                    case Failed(id=0):
                        refusal = unpack_error(message)
                    case _:
                        self._finish(message)
        return refusal

    def _begin(self) -> None:
        self._up.set()
        self._socket = self._ours
        if self._stores is not None:
            self._send(self._stores)
        for call in self.calls.values():
            self._request(call)

    def _request(self, call: Call) -> None:
        self._send(call.request)
        if call.is_cancelled:
            self._send(Cancel(call.request.id))

    def _announce(self, part: Part) -> None:
        call = self.calls.get(part.id)
        if call is None:
            return  # abandoned meanwhile
        try:
            call.announce(part)
        except Exception:
            logger.exception("a bug in a receiver of bytes or pages")  # and not the end of all other calls

    def _report(self, trouble: Trouble) -> None:
        error = unpack_error(trouble)
        if isinstance(error, StorageError):
            try:
                self._on_trouble(trouble.store, error)
            except Exception:
                logger.exception("a bug in a receiver of answers")

    def _finish(self, message: Result | Failed) -> None:
        call = self.calls.pop(message.id, None)
        if call is None:
            return  # abandoned meanwhile
        if isinstance(message, Failed):
            error = unpack_error(message)
            call.error = error if isinstance(error, StorageError) else StorageError(str(error))
        else:
            call.result = message
        try:
            self._on_finished(call)
        except Exception:
            logger.exception("a bug in a receiver of answers")

    def _send(self, message: ToWorker) -> None:
        data = frame(message)
        if self._socket is not None:
            # At once: waking a task to do it costs more than the system call.
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # it died: the reader finds the end of the stream
            if not data:
                return
            self._socket = None
        self._outbox.append(data)
        self._wake.set()

    async def _write(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # the reader finds the end of the stream
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                batch = b"".join(self._outbox)
                self._outbox.clear()
                await stream.send_all(batch)
                if not self._outbox and self.is_ready:
                    self._socket = self._ours

    async def _watch(self, process: WorkerProcess) -> None:
        """Kill a process that does not start, or has stopped answering."""
        with trio.move_on_after(START_SECONDS):
            await self._up.wait()
        unanswered = 0
        # Not by the clock: this process may be the one that was stopped.
        while self.is_ready and unanswered * PING_SECONDS < SILENCE_SECONDS:
            heard = self._last_heard
            self._send(Ping())
            await trio.sleep(PING_SECONDS)
            unanswered = 0 if self._last_heard > heard else unanswered + 1
        logger.error("%s does not answer and is killed", self._settings.name)
        process.kill()
        await trio.sleep_forever()


async def _receive_some(connection: socket.socket) -> bytes:
    """What has come, at least a byte; nothing at the end. trio's own stream does more than a message is worth."""
    while True:
        await trio.lowlevel.wait_readable(connection)
        try:
            return connection.recv(_RECEIVE)
        except BlockingIOError:
            continue
        except OSError as error:
            raise trio.BrokenResourceError from error
