"""The fault proxy does what it says, and says what it did."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.emulators import faults
from tests.emulators.fault_proxy import FaultProxy, through

BODY = bytes(range(256)) * 4000


class _Handler(BaseHTTPRequestHandler):
    """Answers with BODY, or with what was sent; `/chunked` in chunks, `/until-close` until the connection ends."""

    protocol_version = "HTTP/1.1"
    got: list[tuple[str, str, bytes]]
    seen: list[dict[str, str]]

    def _answer(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.got.append((self.command, self.path, sent))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        body = sent or BODY
        self.send_response(200)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(body), 100_000):
                piece = body[at : at + 100_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
            return
        if self.path == "/until-close":
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = _answer  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    handler = type("Handler", (_Handler,), {"got": [], "seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        running.got = handler.got
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def proxy(server, fault_proxy) -> FaultProxy:
    return fault_proxy(f"http://127.0.0.1:{server.server_address[1]}")


@pytest.fixture
def client(proxy) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(proxy.url.removeprefix("http://"), timeout=5)) as connection:
        yield connection


def ask(client, method="GET", path="/b/k", body=None, **headers):
    client.request(method, path, body, headers)
    answer = client.getresponse()
    return answer.status, answer.read()


def test_without_rules_everything_passes_on_one_connection(client, proxy, server):
    for path in ("/b/k", "/chunked", "/b/d%2Fk?x=1"):
        assert ask(client, path=path) == (200, BODY)
        assert ask(client, "PUT", path, b"sent" * 100_000) == (200, b"sent" * 100_000)
        assert ask(client, "HEAD", "/b/k") == (200, b"")
    assert ask(client, "PUT", "/b/k", b"sent", Expect="100-continue") == (200, b"sent")
    assert ask(client, path="/until-close") == (200, BODY)
    assert len(server.got) == 11
    assert proxy.count() == 11
    assert proxy.count("PUT", "d/k") == 1
    assert proxy.asked(key="d/*")[0].query == {"x": "1"}


def test_a_chunked_request_passes(client, server):
    client.request("GET", "/b/k", iter([b"one", b"two"]), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
    assert client.getresponse().status == 200


def test_rules_concern_a_method_a_key_and_so_many_requests(client, proxy, server):
    rule = proxy.on(faults.status(503, b"slow down", Retry_After="1"), "GET", "d/*", times=2)
    assert ask(client) == (200, BODY)
    assert ask(client, "PUT", "/b/d/k", b"x") == (200, b"x")
    assert ask(client, path="/b/d/k") == (503, b"slow down")
    assert ask(client, "HEAD", "/b/d/k") == (200, b"")
    assert ask(client, path="/b/d/l") == (503, b"slow down")
    assert ask(client, path="/b/d/l") == (200, BODY)
    rule.assert_fired(2)
    proxy.off(rule)
    second = proxy.on(faults.status(403), where=lambda request: request.offset >= 10)
    assert ask(client, Range="bytes=9-")[0] == 200
    assert ask(client, Range="bytes=10-20")[0] == 403
    proxy.heal()
    assert ask(client, Range="bytes=10-20")[0] == 200
    second.assert_fired(1)
    assert [path for _, path, _ in server.got] == ["/b/k", "/b/d/k", "/b/d/k", "/b/d/l", "/b/k", "/b/k"]


def test_a_fault_that_did_not_happen_is_noticed(client, proxy):
    with pytest.raises(AssertionError, match="never fired"), proxy.failing(faults.truncate(after=len(BODY))):
        assert ask(client) == (200, BODY)
    with proxy.failing(faults.reset()) as rule, pytest.raises(ConnectionError):
        ask(client)
    with pytest.raises(AssertionError, match="fired 1 times, not 2"):
        rule.assert_fired(2)


@pytest.mark.parametrize("after", [0, 1, 300_000, len(BODY) - 1])
def test_an_answer_breaks_off_after_so_many_bytes(client, proxy, after):
    with proxy.failing(faults.truncate(after)):
        client.request("GET", "/b/k")
        with pytest.raises(http.client.IncompleteRead) as error:
            client.getresponse().read()
        assert error.value.partial == BODY[:after]
    client.close()
    with proxy.failing(faults.reset(after)):
        client.request("GET", "/b/k")
        with pytest.raises(ConnectionResetError):
            client.getresponse().read()
    client.close()
    assert ask(client) == (200, BODY)


def test_a_stall_lasts_as_long_as_its_rule(client, proxy):
    rule = proxy.on(faults.stall(after=1000), times=1)
    client.request("GET", "/b/k")
    answer = client.getresponse()
    assert answer.read(1000) == BODY[:1000]
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    proxy.off(rule)
    client.sock.settimeout(5)
    left = len(BODY) - 1000
    while left:
        left -= len(client.sock.recv(left))


def test_a_stalled_client_may_go(client, proxy):
    proxy.on(faults.stall())
    client.request("GET", "/b/k")
    client.close()
    wait_until(lambda: not proxy._connections)


def test_nothing_moves_while_frozen(client, proxy):
    proxy.freeze()
    client.request("GET", "/b/k")
    client.sock.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)
    proxy.heal()
    client.sock.settimeout(5)
    assert client.getresponse().read() == BODY


def test_connections_are_cut(client, proxy):
    proxy.on(faults.stall(after=10))
    client.request("GET", "/b/k")
    answer = client.getresponse()
    proxy.cut()
    with pytest.raises((ConnectionError, http.client.IncompleteRead)):
        answer.read()


def test_a_trickle_is_slow_until_it_is_healed(client, proxy):
    begun = time.monotonic()
    with proxy.failing(faults.trickle(10_000)):
        client.request("GET", "/b/k")
        answer = client.getresponse()
        assert answer.read(2000) == BODY[:2000]
        assert time.monotonic() - begun >= 0.15
    assert answer.read() == BODY[2000:]


@pytest.mark.parametrize(("told", "seen"), [(-10, str(len(BODY) - 10)), (10, str(len(BODY) + 10)), ("many", "many")])
def test_the_length_is_a_lie(client, proxy, told, seen):
    with proxy.failing(faults.wrong_length(told)):
        client.request("GET", "/b/k")
        assert client.getresponse().headers["Content-Length"] == seen


def test_a_byte_is_another_one(client, proxy):
    with proxy.failing(faults.corrupt(at=300_001)):
        got = ask(client)[1]
    assert [at for at in range(len(BODY)) if got[at] != BODY[at]] == [300_001]


def test_a_position_in_the_object_is_met_by_the_answers_that_hold_it(client, proxy):
    """The server here knows no ranges: its answers count as those that were asked for."""
    rule = proxy.on(faults.in_object(faults.corrupt(at=1000)))
    assert ask(client, Range="bytes=1001-")[1] == BODY
    assert ask(client, Range="bytes=900-")[1][100] == BODY[100] ^ 0xFF
    rule.assert_fired(1)
    proxy.heal()
    with proxy.failing(faults.in_object(faults.truncate(after=1000))):
        client.request("GET", "/b/k", headers={"Range": "bytes=990-"})
        with pytest.raises(http.client.IncompleteRead) as error:
            client.getresponse().read()
        assert error.value.partial == BODY[:10]


def test_the_server_hears_of_a_request_twice_or_late_or_its_answer_is_lost(client, proxy, server):
    with proxy.failing(faults.duplicate()):
        assert ask(client, "PUT", "/b/k", b"x") == (200, b"x")
    assert server.got == [("PUT", "/b/k", b"x")] * 2
    with proxy.failing(faults.lost_answer()), pytest.raises(ConnectionError):
        ask(client, "PUT", "/b/k", b"y")
    assert server.got[2:] == [("PUT", "/b/k", b"y")]
    begun = time.monotonic()
    with proxy.failing(faults.delay(0.1)):
        assert ask(client) == (200, BODY)
    assert time.monotonic() - begun >= 0.1


def test_the_server_does_not_hear_a_header(client, proxy, server):
    rule = proxy.on(faults.deaf_to("if-match"))
    server.RequestHandlerClass.seen = seen = []
    ask(client, "PUT", "/b/k", b"x", **{"If-Match": "1", "X-Other": "2"})
    ask(client, "PUT", "/b/k", b"x", **{"X-Other": "2"})
    assert [headers.keys() & {"if-match", "x-other"} for headers in seen] == [{"x-other"}] * 2
    rule.assert_fired(1)


def test_a_profile_is_led_through_the_proxy(proxy):
    server = f"http://127.0.0.1:{proxy._target.port}"
    profile = {
        "storage_provider": {"type": "azure", "options": {"base_path": "c", "endpoint_url": server}},
        "credentials_provider": {"type": "AzureCredentials", "options": {"connection": f"BlobEndpoint={server};"}},
    }
    led = through(profile, proxy)
    assert led["storage_provider"]["options"] == {"base_path": "c", "endpoint_url": proxy.url}
    assert led["credentials_provider"]["options"] == {"connection": f"BlobEndpoint={proxy.url};"}
    assert profile["storage_provider"]["options"]["endpoint_url"] == server


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
