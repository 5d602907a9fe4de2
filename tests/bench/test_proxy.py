"""The delaying proxy delays, keeps the order, and does not make bandwidth fall with distance."""

from __future__ import annotations

import asyncio
import heapq
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from tests.bench.proxy import DelayLine, delayed


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._due, (when, len(self._due), call))

    def advance(self, until: float) -> None:
        while self._due and self._due[0][0] <= until:
            self.now, _, call = heapq.heappop(self._due)
            call()
        self.now = until


def line(delay: float) -> tuple[Clock, DelayLine, list[tuple[float, bytes]]]:
    clock, out = Clock(), []
    return (
        clock,
        DelayLine(delay, lambda data: out.append((clock.now, data)), clock=lambda: clock.now, call_at=clock.call_at),
        out,
    )


def test_each_piece_comes_out_a_delay_after_it_went_in():
    clock, delays, out = line(0.5)
    for moment, data in ((0.0, b"a"), (0.1, b"b"), (0.4, b"c"), (2.0, b"d")):
        clock.advance(moment)
        delays.put(data)
    clock.advance(9.0)
    assert [(round(when, 6), data) for when, data in out] == [(0.5, b"a"), (0.6, b"b"), (0.9, b"c"), (2.5, b"d")]


def test_many_pieces_are_under_way_at_once():
    """A thousand pieces that come together are through after one delay, not after a thousand."""
    clock, delays, out = line(0.5)
    for number in range(1000):
        delays.put(number.to_bytes(2, "big"))
    assert delays.under_way == 2000
    clock.advance(0.5)
    assert [data for _, data in out] == [number.to_bytes(2, "big") for number in range(1000)]
    assert delays.under_way == 0


def test_the_handshake_holds_the_first_piece_back():
    clock, delays, out = line(0.5)
    delays.put(b"a", not_before=1.0)
    clock.advance(1.2)
    delays.put(b"b", not_before=1.0)
    clock.advance(9.0)
    assert [(round(when, 6), data) for when, data in out] == [(1.5, b"a"), (1.7, b"b")]


def test_a_connection_through_the_proxy_takes_two_round_trips_and_ends_when_the_server_ends_it():
    round_trip = 0.2
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    connection.sendall(data)
                    if data.endswith(b"end"):
                        return

        thread = threading.Thread(target=answer)
        thread.start()
        with delayed(server.getsockname()[1], round_trip) as url:
            port = int(url.rpartition(":")[2])
            began = time.monotonic()
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"one")
                assert client.recv(100) == b"one"
                first = time.monotonic() - began
                client.sendall(b"end")
                assert client.recv(100) == b"end"
                second = time.monotonic() - began - first
                assert client.recv(100) == b""
        thread.join()
    # Never too early; how much too late depends on the machine.
    assert first >= 2 * round_trip
    assert second >= round_trip


def test_a_server_that_is_not_there_ends_the_connection():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with delayed(port, 0.0) as url, socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client:
        client.settimeout(30)
        with suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_bytes_pass_unchanged_and_in_order():
    content = bytes(range(256)) * 40_000

    async def exchange(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"go")
        received = await reader.read(-1)
        writer.close()
        return received

    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(2)
                connection.sendall(content)

        thread = threading.Thread(target=send)
        thread.start()
        with delayed(server.getsockname()[1], 0.01) as url:
            assert asyncio.run(exchange(int(url.rpartition(":")[2]))) == content
        thread.join()
