"""What a worker process has to say to a daemon that is slow to receive: L4."""

from __future__ import annotations

import socket
import threading

from mscfs.providers.page import FILE, Entry, Page, PageBuilder
from mscfs.workers.process import Outbox
from mscfs.workers.protocol import FrameBuffer, ListDone, PageDone, decode_from_worker
from tests.fuse.mounting import wait_until

PAGES = 100


class Watched:
    """A lock that tells when somebody waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.is_waited_for = threading.Event()

    def acquire(self, *, blocking: bool) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        if blocking:
            self.is_waited_for.set()
            return self._lock.acquire()
        return False

    def release(self) -> None:
        self._lock.release()


def page() -> Page:
    builder = PageBuilder()
    for number in range(1000):
        builder.add(Entry(b"name-%05d" % number, FILE, 1, 1, b"tag", None))
    return builder.build()


def test_L4_a_listing_waits_for_a_daemon_that_does_not_receive() -> None:
    daemon, worker = socket.socketpair()
    outbox = Outbox(worker)
    lock = outbox._sending = Watched()
    most, listed = 0, page()

    def answer(request: int) -> None:
        nonlocal most
        for _ in range(PAGES):
            outbox.send(PageDone(request, listed))
            most = max(most, len(outbox._waiting))
        outbox.send(ListDone(request, []))

    # One of them is held up in the socket, and the other one must not run on.
    threads = [threading.Thread(target=answer, args=(request,), daemon=True) for request in (1, 2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: lock.is_waited_for.is_set() or not all(thread.is_alive() for thread in threads))
    received: dict[int, list[type]] = {1: [], 2: []}
    frames = FrameBuffer()
    while sum(map(len, received.values())) < 2 * (PAGES + 1):
        for payload in frames.feed(daemon.recv(1 << 20)):
            message = decode_from_worker(payload)
            assert isinstance(message, PageDone | ListDone)
            received[message.id].append(type(message))
    for thread in threads:
        thread.join()
    assert received[1] == received[2] == [PageDone] * PAGES + [ListDone]
    assert most < 50
    daemon.close()
    worker.close()
