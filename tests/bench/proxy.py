"""A TCP proxy that makes a server far away: a pipelined delay, so that bandwidth does not fall with distance.

Each piece of data is passed on when it is due, half a round trip after it came, however many pieces are under way. A
new connection costs one round trip more, as TCP's handshake would.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.bench.interruption import ending

_MOST_UNDER_WAY = 64 << 20
"""Bytes in one direction of a connection before its sender has to wait."""


class DelayLine:
    """What was put in comes out again, in order, `delay` seconds later. `clock` and `call_at` are an event loop's."""

    def __init__(
        self,
        delay: float,
        pass_on: Callable[[bytes], None],
        *,
        clock: Callable[[], float],
        call_at: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._delay = delay
        self._pass_on = pass_on
        self._clock = clock
        self._call_at = call_at
        self._queue: deque[tuple[float, bytes]] = deque()
        self.under_way = 0

    def put(self, data: bytes, *, not_before: float = 0.0) -> None:
        """Data that came now, or at `not_before` if that is later. No bytes mean the end."""
        due = max(self._clock(), not_before) + self._delay
        self.under_way += len(data)
        self._queue.append((due, data))
        if len(self._queue) == 1:
            self._call_at(due, self._deliver)

    def _deliver(self) -> None:
        now = self._clock()
        while self._queue and self._queue[0][0] <= now:
            _, data = self._queue.popleft()
            self.under_way -= len(data)
            self._pass_on(data)
        if self._queue:
            self._call_at(self._queue[0][0], self._deliver)


class _Side(asyncio.Protocol):
    """One end of a connection: what comes in here is passed on to the other end, later."""

    def __init__(self, delay: float, begins: float = 0.0) -> None:
        loop = asyncio.get_running_loop()
        self._begins = begins
        self._other: _Side | None = None
        self._early: list[bytes] = []
        self._line = DelayLine(delay, self._pass_on, clock=loop.time, call_at=loop.call_at)
        self.transport: asyncio.Transport | None = None

    def join(self, other: _Side) -> None:
        """Name the other end."""
        self._other = other
        for data in self._early:
            self._line.put(data, not_before=self._begins)
        self._early.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=_MOST_UNDER_WAY)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._early.append(data)
            return
        self._line.put(data, not_before=self._begins)
        if self._line.under_way > _MOST_UNDER_WAY and self.transport is not None:
            self.transport.pause_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._line.put(b"", not_before=self._begins)

    def _pass_on(self, data: bytes) -> None:
        if self._other is None or self._other.transport is None:
            return
        if not data:
            self._other.transport.close()
            return
        self._other.transport.write(data)
        if self.transport is not None and self._line.under_way <= _MOST_UNDER_WAY // 2:
            self.transport.resume_reading()


class _Client(_Side):
    """The side of a client, which makes the connection to the server."""

    def __init__(self, port: int, round_trip: float) -> None:
        # The handshake that the client already has behind it takes its time now.
        super().__init__(round_trip / 2, asyncio.get_running_loop().time() + round_trip)
        self._port = port
        self._half = round_trip / 2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            _, server = await loop.create_connection(lambda: _Side(self._half), "127.0.0.1", self._port)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        server.join(self)
        self.join(server)


async def serve(port: int, round_trip: float, announce: Callable[[int], None]) -> None:
    """Pass connections on to a port of this machine until cancelled; `announce` is given the proxy's own port."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Client(port, round_trip), "127.0.0.1", 0, backlog=1024)
    async with server:
        announce(server.sockets[0].getsockname()[1])
        await server.serve_forever()


@contextmanager
def delayed(port: int, round_trip: float) -> Iterator[str]:
    """The URL of a server that is `round_trip` seconds away, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.proxy", str(port), str(round_trip)]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process,
        ending(process),
    ):
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"


def main() -> None:
    """Serve; the first line of output is the port."""
    port, round_trip = int(sys.argv[1]), float(sys.argv[2])
    asyncio.run(serve(port, round_trip, lambda own: print(own, flush=True)))


if __name__ == "__main__":
    main()
