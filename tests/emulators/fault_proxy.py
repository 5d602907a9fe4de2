"""A proxy in front of any HTTP server of a test, in which whatever a network and a store can do wrong happens on order.

    proxy = fault_proxy(server.url)
    rule = proxy.on(stall(after=1000), "GET", "d/*.bin", times=3)
    …
    rule.assert_fired()

Rules may be added and removed while requests are under way; the first that takes a request decides about it.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.emulators.faults import Fault, Request, Rule

_PIECE = 256 << 10
_REMEMBERED = 100_000
_BACKLOG = 256
_PACE = 0.02
"""Seconds between the pieces of a trickle, and between two looks at a client that is kept waiting."""
_NOTHING = Rule(Fault(), is_active=False)


class FaultProxy:
    """Threads of this process pass requests on, one for each connection. `requests` are those that came, in order."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
        self._address = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self._address[1]}{self._target.path}"
        self.requests: deque[Request] = deque(maxlen=_REMEMBERED)
        self._rules: tuple[Rule, ...] = ()
        self._connections: set[_Connection] = set()
        self._lock = threading.Lock()
        self._is_refusing = False
        self._flows = threading.Event()
        self._flows.set()
        self._start_accepting()

    # -- what a test says ---------------------------------------------------------------------------------------

    def on(
        self,
        fault: Fault,
        method: str = "*",
        key: str = "*",
        *,
        times: int | None = None,
        where: Callable[[Request], bool] | None = None,
    ) -> Rule:
        """Let a fault happen to requests of this method and key (patterns), all or the first `times` of them."""
        rule = Rule(fault, method, key, times, where)
        with self._lock:
            self._rules += (rule,)
        return rule

    def off(self, rule: Rule) -> None:
        """Withdraw a rule: what it stalls goes on."""
        with self._lock:
            self._rules = tuple(other for other in self._rules if other is not rule)
        rule.is_active = False

    def heal(self) -> None:
        """Withdraw all rules, take connections, and let everything flow."""
        for rule in self._rules:
            self.off(rule)
        self._flows.set()
        if self._is_refusing:
            self._is_refusing = False
            self._listener.listen(_BACKLOG)
            self._start_accepting()

    @contextmanager
    def failing(self, fault: Fault, method: str = "*", key: str = "*", **more: Any) -> Iterator[Rule]:
        """`on` for the time of a block, which fails when the fault did not happen in it."""
        rule = self.on(fault, method, key, **more)
        try:
            yield rule
        finally:
            self.off(rule)
        rule.assert_fired()

    def freeze(self) -> None:
        """Nothing moves any more, on connections that exist and on new ones, until `heal`."""
        self._flows.clear()

    def refuse(self) -> None:
        """Nobody listens any more, and all connections are reset, until `heal`."""
        self._stop_accepting()
        # Bound, so that nobody else gets the port.
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(self._address)
        self._is_refusing = True
        self.cut()

    def cut(self) -> None:
        """Reset all connections there are."""
        for connection in self._open_connections():
            connection.cut()

    def count(self, method: str = "*", key: str = "*") -> int:
        """How many requests came."""
        return len(self.asked(method, key))

    def asked(self, method: str = "*", key: str = "*") -> list[Request]:
        """The requests that came, in order."""
        return [request for request in list(self.requests) if request.is_about(method, key)]

    def forget(self) -> None:
        """Begin to count anew."""
        self.requests.clear()

    def close(self) -> None:
        self.heal()
        self._stop_accepting()
        for connection in self._open_connections():
            connection.cut()
            connection.thread.join(10)

    # -- inside -------------------------------------------------------------------------------------------------

    def _start_accepting(self) -> None:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _stop_accepting(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(10)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(self, client)
            with self._lock:
                self._connections.add(connection)
            connection.thread.start()

    def _open_connections(self) -> list[_Connection]:
        with self._lock:
            return list(self._connections)

    def left(self, connection: _Connection) -> None:
        with self._lock:
            self._connections.discard(connection)

    def connect(self) -> socket.socket:
        server = socket.create_connection((self._target.hostname or "", self._target.port or 80), timeout=60)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def rule_for(self, request: Request) -> Rule:
        self.requests.append(request)
        return next((rule for rule in self._rules if rule.takes(request)), _NOTHING)

    def wait_for_flow(self) -> None:
        self._flows.wait()


class _EndedError(Exception):
    """This connection is at its end."""


class _Connection:
    """A client's connection and the one to the server that serves it."""

    def __init__(self, proxy: FaultProxy, client: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._from_client = client.makefile("rb")
        self._server: socket.socket | None = None
        self._from_server: Any = None
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def cut(self) -> None:
        """End it from another thread, whatever its own waits for."""
        with suppress(OSError):
            self._reset_when_closed()
            self._client.shutdown(socket.SHUT_RDWR)

    def _reset_when_closed(self) -> None:
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _serve(self) -> None:
        try:
            while (request := self._next_request()) is not None:
                self._proxy.wait_for_flow()
                self._answer(request, self._request_body(request))
        except (OSError, ValueError, _EndedError):
            pass
        finally:
            self._leave_server()
            self._from_client.close()
            self._client.close()
            self._proxy.left(self)

    def _next_request(self) -> Request | None:
        self._head = _read_head(self._from_client)
        if not self._head:
            return None
        line, *_ = self._head.split(b"\r\n", 1)
        method, target, _ = line.decode("latin-1").split(" ", 2)
        return Request(method, target, _headers(self._head))

    def _request_body(self, request: Request) -> bytes:
        headers = request.headers
        if headers.get("expect", "").lower() == "100-continue":
            self._client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._head = _without(self._head, frozenset({"expect"}))
        if "chunked" in headers.get("transfer-encoding", ""):
            pieces = list(_chunks(self._from_client))
            return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in [*pieces, b""])
        return b"".join(_exactly(self._from_client, int(headers.get("content-length", "0"))))

    def _answer(self, request: Request, body: bytes) -> None:
        rule = self._proxy.rule_for(request)
        fault = rule.fault
        if fault.delay:
            rule.fire()
            time.sleep(fault.delay)
        if fault.ends and fault.after is None:
            rule.fire()
            self._end(rule)
        if fault.status is not None:
            rule.fire()
            self._client.sendall(_refusal(fault, request))
            return
        if fault.unheard:
            rule.fire()
            self._head = _without(self._head, fault.unheard)
        if fault.twice:
            rule.fire()
            for _ in self._ask(request, body)[1]:
                pass
        head, pieces, framing = self._ask(request, body)
        if fault.loses_answer:
            for _ in pieces:
                pass
            rule.fire()
            self._reset_when_closed()
            raise _EndedError
        self._pass_on(rule, head, self._faulty(rule, pieces, request.offset), framing)

    def _ask(self, request: Request, body: bytes) -> tuple[bytes, Iterator[bytes], str]:
        """The server's answer: its head, its body, and how the body's end is told."""
        head = b""
        if self._server is not None:
            # One that was idle may have been closed meanwhile.
            with suppress(OSError):
                self._server.sendall(self._head + body)
                head = _read_head(self._from_server)
        if not head:
            self._leave_server()
            self._server = self._proxy.connect()
            self._from_server = self._server.makefile("rb")
            self._server.sendall(self._head + body)
            head = _read_head(self._from_server)
        while b" 1" in head[:12]:
            head = _read_head(self._from_server)
        if not head:
            raise _EndedError
        headers = _headers(head)
        code = int(head.split(b" ", 2)[1])
        if request.method == "HEAD" or code in {204, 304}:
            return head, iter(()), "none"
        if "chunked" in headers.get("transfer-encoding", ""):
            return head, _chunks(self._from_server), "chunked"
        if "content-length" in headers:
            return head, _exactly(self._from_server, int(headers["content-length"])), "length"
        return head, iter(lambda: self._from_server.read1(_PIECE), b""), "close"

    def _pass_on(self, rule: Rule, head: bytes, pieces: Iterator[bytes], framing: str) -> None:
        if rule.fault.length is not None and framing == "length":
            head = _with_length(head, rule.fault.length)
            rule.fire()
        # Head and body apart: what was told of an answer that breaks off early is told all the same.
        self._client.sendall(head)
        for piece in pieces:
            self._proxy.wait_for_flow()
            self._client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
        if framing == "chunked":
            self._client.sendall(b"0\r\n\r\n")
        if framing == "close" or rule.fault.length is not None or _headers(head).get("connection", "") == "close":
            raise _EndedError

    def _faulty(self, rule: Rule, pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
        fault = rule.fault
        sent = offset if fault.in_object else 0
        for whole in pieces:
            piece = whole
            if fault.corrupts is not None and sent <= fault.corrupts < sent + len(piece):
                rule.fire()
                at = fault.corrupts - sent
                piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
            if fault.after is not None and sent <= fault.after < sent + len(piece):
                rule.fire()
                yield piece[: fault.after - sent]
                self._end(rule)
                piece = piece[fault.after - sent :]  # a stall that was over
            if fault.rate is not None:
                rule.fire()
                yield from self._slowly(rule, piece, fault.rate)
            else:
                yield piece
            sent += len(whole)

    def _slowly(self, rule: Rule, piece: bytes, rate: float) -> Iterator[bytes]:
        size = max(1, int(rate * _PACE))
        for at in range(0, len(piece), size):
            if rule.is_active:
                self._wait(size / rate)
            yield piece[at : at + size]

    def _end(self, rule: Rule) -> None:
        """End the connection as the rule says; returns only from a stall that was over."""
        if rule.fault.ends == "stall":
            while rule.is_active:
                self._wait(_PACE)
            return
        if rule.fault.ends == "reset":
            self._reset_when_closed()
        raise _EndedError

    def _wait(self, seconds: float) -> None:
        """Let time pass, unless the client has gone."""
        poll = select.poll()
        poll.register(self._client, select.POLLRDHUP | select.POLLHUP)
        if poll.poll(seconds * 1000):
            raise _EndedError

    def _leave_server(self) -> None:
        if self._server is not None:
            self._from_server.close()
            self._server.close()
            self._server = None


def _read_head(file: Any) -> bytes:
    """A request's or an answer's head with the empty line behind it; empty at the end of the connection."""
    lines = []
    while line := file.readline(1 << 16):
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


def _headers(head: bytes) -> Mapping[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def _exactly(file: Any, size: int) -> Iterator[bytes]:
    while size:
        piece = file.read1(min(size, _PIECE))
        if not piece:
            raise _EndedError
        size -= len(piece)
        yield piece


def _chunks(file: Any) -> Iterator[bytes]:
    """The pieces of a chunked body."""
    while size := int(file.readline().partition(b";")[0], 16):
        yield b"".join(_exactly(file, size))
        file.readline()
    while file.readline() not in {b"\r\n", b""}:
        pass  # trailers


def _without(head: bytes, names: frozenset[str]) -> bytes:
    """A head without some headers."""
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].decode("latin-1").lower() not in names)


def _with_length(head: bytes, told: int | str) -> bytes:
    lines = head.split(b"\r\n")
    for number, line in enumerate(lines):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            new = told if isinstance(told, str) else str(int(value) + told)
            lines[number] = name + b": " + new.encode()
    return b"\r\n".join(lines)


def _refusal(fault: Fault, request: Request) -> bytes:
    assert fault.status is not None
    lines = [f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}", f"Content-Length: {len(fault.body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fault.headers.items()]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return head if request.method == "HEAD" else head + fault.body


def through(profile: dict[str, Any], proxy: FaultProxy) -> dict[str, Any]:
    """A test bucket's profile as its clients reach it through the proxy. Tokens are still had at the server."""
    storage = profile["storage_provider"]
    target = storage["options"]["endpoint_url"]
    changed = {**profile, "storage_provider": {**storage, "options": {**storage["options"], "endpoint_url": proxy.url}}}
    credentials = profile.get("credentials_provider")
    if credentials is not None and "connection" in credentials["options"]:
        connection = credentials["options"]["connection"].replace(target, proxy.url)
        changed["credentials_provider"] = {
            **credentials,
            "options": {**credentials["options"], "connection": connection},
        }
    return changed


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[str], FaultProxy]]:
    """Makes proxies in front of servers' URLs."""
    proxies: list[FaultProxy] = []

    def make(target: str) -> FaultProxy:
        proxies.append(FaultProxy(target))
        return proxies[-1]

    yield make
    for proxy in proxies:
        proxy.close()
