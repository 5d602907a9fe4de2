import errno
import logging
import os
import socket
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import memory_stream_pair

from mscfs.errors import MountError, StoreUnavailableError
from mscfs.telemetry import scrape
from mscfs.telemetry.scrape import CONNECTIONS, LEAST, LONGEST_HEAD, PATIENCE, listening, serve

GET = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"


class Listener:
    """Clients in memory, as many as connect."""

    def __init__(self):
        self._send, self._receive = trio.open_memory_channel(1000)
        self.accepted = 0

    def connect(self):
        ours, theirs = memory_stream_pair()
        self._send.send_nowait(theirs)
        return ours

    async def accept(self):
        stream = await self._receive.receive()
        self.accepted += 1
        if isinstance(stream, OSError):
            raise stream
        return stream

    def refuse(self, error):
        self._send.send_nowait(error)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass


@asynccontextmanager
async def served(expose):
    async with trio.open_nursery() as nursery:
        listener = Listener()
        nursery.start_soon(scrape._accept, listener, scrape._Answers(expose, nursery), nursery)
        yield listener
        nursery.cancel_scope.cancel()


async def numbers():
    return b"a 1\n"


async def ask(client, request=GET):
    """What is answered until the other side closes."""
    await client.send_all(request)
    return b"".join([part async for part in client])


async def test_metrics(autojump_clock):
    async with served(numbers) as listener:
        head, _, body = (await ask(listener.connect())).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: 4\r\n" in head
        assert body == b"a 1\n"
        assert (await ask(listener.connect(), GET.replace(b"metrics", b"metrics?name=x"))).endswith(b"a 1\n")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/.. HTTP/1.1\r\n\r\n", b"404"),
        (b"GET http://a/metrics HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", b"405"),
        (b"HEAD /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"GET /metrics\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * LONGEST_HEAD, b"431"),
        (b"x" * LONGEST_HEAD, b"400"),
    ],
)
async def test_nothing_else_is_answered(request_, status, autojump_clock):
    async def never():
        raise AssertionError("nobody asked for metrics")

    async with served(never) as listener:
        answer = await ask(listener.connect(), request_)
        assert answer.split(b" ")[1] == status
        assert (b"Allow: GET" in answer) == (status == b"405")


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda some: b"GET /metrics" + some + b"\r\n\r\n"))
def test_L3_any_bytes_have_an_answer(head):
    assert scrape._response(scrape._judge(head)).startswith(b"HTTP/1.1 ")


async def test_clients_that_go_away_at_any_moment_harm_nobody(autojump_clock):
    async with served(numbers) as listener:
        await listener.connect().aclose()
        half = listener.connect()
        await half.send_all(GET[:9])
        await half.aclose()
        whole = listener.connect()
        await whole.send_all(GET)
        await whole.aclose()
        assert (await ask(listener.connect())).endswith(b"a 1\n")


async def test_a_client_that_sends_slowly_is_left_in_the_end(autojump_clock):
    async with served(numbers) as listener:
        client = listener.connect()
        began = trio.current_time()
        with suppress(trio.BrokenResourceError):
            while trio.current_time() < began + PATIENCE * 2:
                await client.send_all(b"x")
                await trio.sleep(1)
        assert trio.current_time() - began <= PATIENCE + 1


async def test_clients_beyond_a_few_wait_and_do_so_no_longer_than_one_may_last(autojump_clock):
    async with served(numbers) as listener:
        silent = [listener.connect() for _ in range(CONNECTIONS * 3)]
        began = trio.current_time()
        await trio.sleep(PATIENCE / 2)
        assert listener.accepted == CONNECTIONS
        assert (await ask(listener.connect())).endswith(b"a 1\n")
        assert trio.current_time() - began == pytest.approx(PATIENCE * 3, abs=1)
        assert silent


async def test_quick_clients_are_answered_a_few_in_a_second(autojump_clock):
    async with served(numbers) as listener:
        began = trio.current_time()
        for _ in range(CONNECTIONS * 10):
            await ask(listener.connect())
        assert trio.current_time() - began == pytest.approx(LEAST * 9)


async def test_metrics_are_made_once_for_all_who_wait_also_when_one_gives_up(autojump_clock):
    made = 0

    async def slow():
        nonlocal made
        made += 1
        await trio.sleep(PATIENCE - 1)
        return b"a %d\n" % made

    async with served(slow) as listener, trio.open_nursery() as nursery:
        with trio.move_on_after(1):
            await ask(listener.connect())
        for _ in range(2):

            async def one():
                assert (await ask(listener.connect())).endswith(b"a 1\n")

            nursery.start_soon(one)
    assert made == 1


async def test_metrics_that_never_come_are_asked_for_once(autojump_clock):
    made = 0

    async def stuck():
        nonlocal made
        made += 1
        await trio.sleep_forever()

    async with served(stuck) as listener:
        for _ in range(10):
            assert await ask(listener.connect()) == b""
    assert made == 1


@pytest.mark.parametrize(
    ("error", "status", "logged"),
    [
        (StoreUnavailableError("the disk is gone"), b"503", "metrics cannot be told now: the disk is gone"),
        (ZeroDivisionError(), b"500", "a bug in the metrics: the mount goes on"),
    ],
)
async def test_L3_a_failure_is_an_answer_and_a_line_and_the_next_one_is_tried(
    error, status, logged, autojump_clock, caplog
):
    failures = [error]

    async def expose():
        if failures:
            raise failures.pop()
        return b"a 1\n"

    async with served(expose) as listener:
        assert (await ask(listener.connect())).split(b" ")[1] == status
        assert [record.getMessage() for record in caplog.records] == [logged]
        assert (await ask(listener.connect())).endswith(b"a 1\n")


async def test_L3_when_no_descriptor_is_free_it_is_tried_again_later(autojump_clock, caplog):
    caplog.set_level(logging.WARNING)
    async with served(numbers) as listener:
        listener.refuse(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        began = trio.current_time()
        assert (await ask(listener.connect())).endswith(b"a 1\n")
        assert trio.current_time() - began == pytest.approx(PATIENCE, abs=1)
    assert [record.getMessage() for record in caplog.records] == [
        "a scrape of the metrics was not accepted: Too many open files"
    ]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.mark.parametrize("host", ["", "127.0.0.1", "[::1]", "localhost"])
async def test_what_listens_is_gone_when_serving_ends(host):
    address = f"{host}:{free_port()}"
    with listening(address) as listeners:
        [place, *_] = [listener.getsockname() for listener in listeners]
        assert place[0] == (host.strip("[]") if host not in {"", "localhost"} else place[0])
        assert place[0] in {"127.0.0.1", "::1"}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve, listeners, numbers))
            async with await trio.open_tcp_stream(*place[:2]) as client:
                assert (await ask(client)).endswith(b"a 1\n")
            nursery.cancel_scope.cancel()
    with pytest.raises(OSError):
        await trio.open_tcp_stream(*place[:2])
    with listening(address):  # at once again
        pass


def test_without_an_address_nothing_is_opened():
    with listening("") as listeners:
        assert listeners == []


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("192.0.2.1:9464", "Cannot assign requested address: choose an address of this machine"),
        ("no-such-host.invalid:9464", "choose an address of this machine"),
        ("a..b:9464", "choose an address of this machine"),
        (f"{'a' * 70}:9464", "choose an address of this machine"),
    ],
)
def test_L1_an_address_of_others_is_refused(address, said):
    with pytest.raises(MountError, match=rf"^metrics_address {address}: .*{said}"), listening(address):
        pass


def test_L1_an_address_in_use_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f":{taken.getsockname()[1]}"
        with pytest.raises(MountError, match="in use: another mount or program listens there"), listening(address):
            pass


def test_L1_a_port_that_is_not_permitted_is_refused(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refuse)
    with pytest.raises(MountError, match="Permission denied: choose a port from 1024 on"), listening(":80"):
        pass


def test_of_a_host_with_two_protocols_one_is_enough(monkeypatch):
    create = socket.create_server

    def without_ipv6(place, *, family, **more):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "not here")
        return create(place, family=family, **more)

    port = free_port()
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
    ]
    monkeypatch.setattr(socket, "create_server", without_ipv6)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with listening(f"localhost:{port}") as listeners:
        assert [listener.family for listener in listeners] == [socket.AF_INET]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found[:1])
    with pytest.raises(MountError, match="not supported"), listening(f"localhost:{port}"):
        pass
