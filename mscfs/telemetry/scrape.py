"""Answers `GET /metrics` over HTTP, for a scraper (option `metrics_address`).

Whoever reaches the port may be slow, hostile or many: each conversation is bounded in time and bytes, a few go on at
once and a few begin in a second, and what they ask for is made once for all who wait for it. It runs on the mount's
own loop, which costs no thread, and ends with the mount.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus

import trio

from mscfs.config.units import parse_address
from mscfs.errors import MountError, MscfsError

log = logging.getLogger(__name__)

CONNECTIONS = 4
"""Conversations at once, for each address; others wait in the kernel's queue."""
PATIENCE = 10.0
"""Seconds that a conversation may last."""
LEAST = 0.4
"""Seconds until another conversation takes the place of one that was shorter: metrics cost 5 ms of a core."""
LONGEST_HEAD = 8 << 10
"""Bytes of a request, of which only the first line matters."""
LOOPBACK = "127.0.0.1"

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NO_PROTOCOL = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_ADVICE = {
    errno.EADDRINUSE: "another mount or program listens there; choose another port for each mount",
    errno.EACCES: "choose a port from 1024 on, or mount as root",
    errno.EADDRNOTAVAIL: "choose an address of this machine, as 127.0.0.1:9464",
}

Expose = Callable[[], Awaitable[bytes]]
"""Makes the metrics."""


@contextmanager
def listening(address: str) -> Iterator[Sequence[socket.socket]]:
    """Sockets that listen at `HOST:PORT`, one for each address of the host; none for an empty text.

    Raises MountError with a line that says what to do.
    """
    with ExitStack() as opened:
        yield [opened.enter_context(listener) for listener in _listen(address)] if address else []


def _listen(address: str) -> list[socket.socket]:
    host, port = parse_address(address)
    listeners: list[socket.socket] = []
    refusal: OSError | None = None
    try:
        found = socket.getaddrinfo(host or LOOPBACK, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, place in dict.fromkeys(found):
            try:
                # Of an IPv6 address it takes IPv6 alone, so that both protocols can have the same port.
                listeners.append(socket.create_server(place, family=family, backlog=CONNECTIONS))
            except OSError as error:
                refusal = error
                if error.errno not in _NO_PROTOCOL:  # of `localhost`, this machine may have one only
                    break
    except OSError as error:
        refusal = error
    except UnicodeError:
        refusal = socket.gaierror(socket.EAI_NONAME, "no host has such a name")
    if refusal is not None and (not listeners or refusal.errno not in _NO_PROTOCOL):
        for listener in listeners:
            listener.close()
        advice = _ADVICE.get(refusal.errno or 0, _ADVICE[errno.EADDRNOTAVAIL])
        raise MountError(f"metrics_address {address}: {_reason(refusal)}: {advice}")
    return listeners


def _reason(refusal: OSError) -> str:
    # What create_server raises repeats the address; a number below 0 is one of getaddrinfo(3).
    return os.strerror(refusal.errno) if refusal.errno and refusal.errno > 0 else str(refusal.strerror)


async def serve(listeners: Sequence[socket.socket], expose: Expose) -> None:
    """Answer until cancelled; the sockets are closed on the way out."""
    async with trio.open_nursery() as nursery:
        answers = _Answers(expose, nursery)
        for listener in listeners:
            nursery.start_soon(_accept, trio.SocketListener(trio.socket.from_stdlib_socket(listener)), answers, nursery)


async def _accept(listener: trio.SocketListener, answers: _Answers, nursery: trio.Nursery) -> None:
    slots = trio.Semaphore(CONNECTIONS)
    async with listener:
        while True:
            await slots.acquire()
            try:
                stream = await listener.accept()
            except OSError as error:  # mostly: no descriptor is free
                log.warning("a scrape of the metrics was not accepted: %s", error.strerror)
                await trio.sleep(PATIENCE)
                slots.release()
            else:
                nursery.start_soon(_converse, stream, answers, slots)


async def _converse(stream: trio.SocketStream, answers: _Answers, slots: trio.Semaphore) -> None:
    until = trio.current_time() + LEAST
    # A client that goes away harms only itself.
    with trio.move_on_after(PATIENCE), suppress(trio.BrokenResourceError):
        async with stream:
            status = _judge(await _head(stream))
            await stream.send_all(await answers.metrics() if status is HTTPStatus.OK else _response(status))
    await trio.sleep_until(until)
    slots.release()


async def _head(stream: trio.SocketStream) -> bytes:
    """A request up to its empty line; without one, it was too long or the client has said all it wanted."""
    received = b""
    while b"\r\n\r\n" not in received and len(received) < LONGEST_HEAD:
        data = await stream.receive_some(LONGEST_HEAD)
        if not data:
            break
        received += data
    return received


def _judge(head: bytes) -> HTTPStatus:
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    target, _, protocol = rest.rpartition(b" ")
    if not protocol.startswith(b"HTTP/1."):
        return HTTPStatus.BAD_REQUEST
    if b"\r\n\r\n" not in head:
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if target.partition(b"?")[0] != b"/metrics":
        return HTTPStatus.NOT_FOUND
    return HTTPStatus.OK if method == b"GET" else HTTPStatus.METHOD_NOT_ALLOWED


class _Answers:
    """What GET /metrics is answered with: made once for all who wait for it, however many and impatient they are."""

    def __init__(self, expose: Expose, nursery: trio.Nursery) -> None:
        self._expose = expose
        self._nursery = nursery
        self._made: trio.Event | None = None
        self._answer = b""

    async def metrics(self) -> bytes:
        """The whole answer. Who is cancelled here does not stop it for others."""
        if self._made is None:
            self._made = trio.Event()
            self._nursery.start_soon(self._make, self._made)
        await self._made.wait()
        return self._answer

    async def _make(self, made: trio.Event) -> None:
        try:
            self._answer = _response(HTTPStatus.OK, await self._expose())
        except MscfsError as error:
            log.warning("metrics cannot be told now: %s", error)
            self._answer = _response(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:
            log.exception("a bug in the metrics: the mount goes on")
            self._answer = _response(HTTPStatus.INTERNAL_SERVER_ERROR)
        self._made = None
        made.set()


def _response(status: HTTPStatus, body: bytes | None = None) -> bytes:
    content = f"{status.phrase}\n".encode() if body is None else body
    lines = [
        f"HTTP/1.1 {status} {status.phrase}",
        f"Content-Type: {_CONTENT_TYPE}",
        f"Content-Length: {len(content)}",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        lines.append("Allow: GET")
    return "\r\n".join([*lines, "", ""]).encode() + content
