"""A worker process: forked from the daemon, or `python -P -m mscfs.workers.process <socket> <memory>` (see `launch`).

The main thread receives, the others perform requests. Whoever has something to say sends it, with everything that
others had to say meanwhile. The process ends when its socket does, so that it never outlives the daemon, and ignores
the signals that ask a service or a terminal's programs to end: dirty files are still uploaded then.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn, cast

from mscfs.cache.arena import SharedMemory
from mscfs.cache.chunks import ChunkCache
from mscfs.errors import MscfsError, StorageError
from mscfs.log import configure_logging
from mscfs.providers.base import StorageProvider
from mscfs.workers.protocol import (
    Cancel,
    Fetch,
    FetchDone,
    FrameBuffer,
    FromWorker,
    Heartbeat,
    Ping,
    Prepare,
    Promote,
    Ready,
    Request,
    Start,
    Stop,
    Stores,
    ToWorker,
    WorkerSettings,
    decode_to_worker,
    frame,
    is_second,
    pack_error,
    unpack_settings,
    unpack_text,
)
from mscfs.workers.requests import RequestQueue, TakenRequest
from mscfs.workers.tasks import AbandonedError, Tasks

logger = logging.getLogger("mscfs.workers.process")  # also where this module is the program

_RECEIVE = 256 << 10
_LAST_LOOKS = 50
_MOST_WAITING = 32
"""Messages, of which a page of a listing has up to 100 KB: a listing of millions must not pile up in here."""


class Outbox:
    """Sends messages of many threads. Blocks while the daemon does not receive."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._waiting: deque[bytes] = deque()
        self._sending = threading.Lock()

    def send(self, message: FromWorker) -> None:
        """Send a message, or leave it to the thread that is sending now, unless that has got much to do already."""
        self._waiting.append(frame(message))
        # Asked again after each release: what came between the last look and the release must not stay.
        while self._waiting and self._sending.acquire(blocking=len(self._waiting) > _MOST_WAITING):
            try:
                batch = []
                with suppress(IndexError):
                    while True:
                        batch.append(self._waiting.popleft())
                self._connection.sendall(b"".join(batch))
            except OSError:
                os._exit(0)  # the daemon is gone
            finally:
                self._sending.release()


def open_tasks(settings: WorkerSettings, memory: int) -> Tasks:
    """Open the store, the cache and the shared memory's descriptor. MscfsError when the store cannot be opened."""
    module, _, name = settings.store_factory.partition(":")
    factory = getattr(importlib.import_module(module), name)
    # Back-fill wishes are the daemon's: it learns from each summary what was missing or stale.
    store = cast("StorageProvider", factory(settings.config, settings.profile, record_back_fill=lambda _: None))
    cache: ChunkCache | None = None
    if settings.cache is not None:
        try:
            cache = ChunkCache.attach(settings.cache)
        except OSError as error:
            logger.warning("the cache cannot be used, going on without: %s", error)
    return Tasks(
        store,
        cache,
        SharedMemory(settings.memory_size, memory),
        namespace=settings.namespace,
        chunk_size=settings.chunk_size,
    )


def perform(taken: TakenRequest, tasks: Tasks, outbox: Outbox) -> None:
    """Perform one request and send its answer. Raises nothing."""
    request = taken.request
    began = time.monotonic()
    try:
        if taken.is_abandoned:
            raise AbandonedError  # noqa: TRY301 - answered as one that was given up half-way is
        result = tasks.perform(request, outbox.send, lambda: taken.is_abandoned)
        outbox.send(result)
        _tell(request, began, f"from {result.summary.source}" if isinstance(result, FetchDone) else "done")
    except AbandonedError:
        outbox.send(pack_error(request.id, StorageError("given up: nobody waits for it")))
        _tell(request, began, "given up")
    except MscfsError as error:
        outbox.send(pack_error(request.id, error))
        _tell(request, began, str(error))
    except BaseException as error:
        logger.exception("a bug in %s", type(request).__name__.lower())
        # The class only: what an unknown error says may hold anything.
        outbox.send(pack_error(request.id, StorageError(f"internal error: {type(error).__name__}")))


def _tell(request: Request, began: float, outcome: str) -> None:
    """What `mscfs mount --verbose` adds to the log."""
    if logger.isEnabledFor(logging.DEBUG):
        name, key = type(request).__name__.lower(), unpack_text(request.key)
        logger.debug("%s %s: %s, %.3f s", name, key, outcome, time.monotonic() - began)


def serve(connection: socket.socket, memory: int) -> None:
    """Work until the daemon says stop or goes away."""
    messages = _messages(connection)
    start = next(messages, None)
    if start is None:
        return  # the daemon found something in the way of its mount
    assert isinstance(start, Start)
    outbox = Outbox(connection)
    try:
        settings = unpack_settings(start)
        with suppress(OSError):
            Path("/proc/self/comm").write_text(settings.name)
            # When memory runs out the kernel should take a worker, which is replaced, and not the mount.
            Path("/proc/self/oom_score_adj").write_text("500")
        configure_logging(settings.log_level, process=f"{settings.name}[{os.getpid()}]", file=settings.log_file)
        tasks = open_tasks(settings, memory)
    except MscfsError as error:
        outbox.send(pack_error(0, error))
        return
    queue = RequestQueue(settings.background_threads)

    def start_thread(call: Callable[..., object], *arguments: object) -> None:
        threading.Thread(target=call, args=arguments, name=call.__name__, daemon=True).start()

    for _ in range(settings.threads):
        start_thread(_work, queue, tasks, outbox)
    tasks.report(outbox.send)
    outbox.send(Ready())
    start_thread(tasks.watch.run)
    for message in messages:
        match message:
            case Cancel():
                request = queue.abandon(message.id)
                is_stuck = not isinstance(request, Fetch) or tasks.watch.is_stuck(message.id)
                if is_stuck and queue.give_up(message.id):
                    # Its thread may be held up for as long as a store may be silent: others must not wait for that.
                    start_thread(_work, queue, tasks, outbox)
            case Stores():
                tasks.learn(message)
            case Promote():
                queue.promote(message.id)
            case Prepare():
                start_thread(tasks.prepare)
            case Ping():
                outbox.send(Heartbeat())
            case Stop():
                # With a request under way, what it uses must stay open; the end of the process closes it. One that has
                # just been answered is a moment from done.
                for _ in range(_LAST_LOOKS):
                    if queue.is_idle:
                        tasks.close()
                        return
                    time.sleep(0.01)
                return
            case Start():
                raise AssertionError("started twice")
            case _:
                queue.put(message)
                if is_second(message):
                    # All threads may be held up by the store that the first attempt waits for.
                    start_thread(_perform_one, queue, tasks, outbox)


def _work(queue: RequestQueue, tasks: Tasks, outbox: Outbox) -> None:
    """Perform requests, until another thread has taken the place of this one."""
    while not _perform_one(queue, tasks, outbox).is_given_up:
        pass


def _perform_one(queue: RequestQueue, tasks: Tasks, outbox: Outbox) -> TakenRequest:
    taken = queue.get()
    perform(taken, tasks, outbox)
    queue.done(taken)
    return taken


def _messages(connection: socket.socket) -> Iterator[ToWorker]:
    frames = FrameBuffer()
    while data := connection.recv(_RECEIVE):
        for payload in frames.feed(data):
            yield decode_to_worker(payload)


def work(connection: socket.socket, memory: int) -> NoReturn:
    """Be a worker process until the daemon says stop or goes away."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    status = 1
    try:
        serve(connection, memory)
        status = 0
    except ConnectionError:
        status = 0
    except BaseException:
        logger.exception("the worker ends")
    finally:
        # Threads may wait for a store that never answers: nothing may wait for them.
        logging.shutdown()
        os._exit(status)


if __name__ == "__main__":
    work(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
