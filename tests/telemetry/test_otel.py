import logging
import sys
import threading

import pytest
import trio
import trio.lowlevel

from mscfs.config.load import parse_config
from mscfs.errors import StoreUnavailableError
from mscfs.telemetry.otel import LATER, run
from tests.telemetry.test_metrics import DOCUMENT


def config(**metrics):
    provider = {"type": "file", "options": {"base_path": "/srv"}}
    return parse_config({"profiles": {"data": {"storage_provider": provider}}, "opentelemetry": {"metrics": metrics}})


OTLP = {"type": "otlp", "options": {}}
QUICK = {"options": {"export_interval_millis": 5000, "export_timeout_millis": 2000}}


class Sending:
    """A sender that does as it is told, without a thread."""

    destination = "collector:4318"

    def __init__(self, *outcomes):
        self._outcomes = list(outcomes)
        self.sent = []
        self.timeout = None

    def make(self, settings, timeout, describe):
        self.timeout = timeout
        return self

    def send(self, document):
        self.sent.append((trio.current_time(), document))
        outcome = self._outcomes.pop(0) if self._outcomes else True
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


@pytest.fixture
def inline(monkeypatch, autojump_clock):
    async def run_sync(call, *arguments, **_):
        await trio.lowlevel.checkpoint()
        return call(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    return autojump_clock


async def document():
    return DOCUMENT


def lines(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]


async def sent(sending, seconds, *, stops_after=float("inf"), reader=QUICK, document=document):
    """What was sent within some time, by the time."""
    began = trio.current_time()

    async def wait_stop():
        await trio.sleep_until(began + stops_after)

    with trio.move_on_after(seconds):
        await run(config(exporter=OTLP, reader=reader), "data", document, wait_stop, sending.make)
    return [at - began for at, _ in sending.sent]


async def test_at_intervals(inline):
    sending = Sending()
    assert await sent(sending, LATER + 16) == pytest.approx([LATER + 5, LATER + 10, LATER + 15])
    assert sending.sent[0][1] is DOCUMENT
    assert sending.timeout == 2.0


async def test_the_intervals_of_msc_unless_told_and_no_less_than_one_second(inline):
    sending = Sending()
    assert await sent(sending, LATER + 61, reader={}) == pytest.approx([LATER + 60])
    assert sending.timeout == 30.0
    assert len(await sent(Sending(), LATER + 3.5, reader={"options": {"export_interval_millis": 1}})) == 3


async def test_once_more_when_the_mount_begins_to_end_and_then_no_more(inline):
    assert await sent(Sending(), 1000, stops_after=LATER + 7) == pytest.approx([LATER + 5, LATER + 7])


async def test_an_outage_is_one_line_and_its_end_another(inline, caplog):
    caplog.set_level(logging.INFO)
    failures = [False, ConnectionError("http://joe:hidden@x"), False, True, ValueError("hidden"), False, True]
    assert len(await sent(Sending(*failures), LATER + 41)) == 8
    again = "that is tried again every 5 s, without another line"
    assert lines(caplog) == [
        f"metrics do not reach collector:4318 (no answer, or a refusal): {again}",
        "metrics reach collector:4318 again",
        f"metrics do not reach collector:4318 (ValueError): {again}",
        "metrics reach collector:4318 again",
    ]


async def test_L3_a_document_that_cannot_be_made_ends_nothing(inline, caplog):
    async def broken():
        raise StoreUnavailableError("the disk is gone")

    assert await sent(Sending(), LATER + 21, document=broken) == []
    assert len(lines(caplog)) == 1


async def test_without_the_sdk_the_mount_goes_on_with_one_line(inline, caplog, monkeypatch):
    monkeypatch.delitem(sys.modules, "mscfs.telemetry.otel_sender", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.metrics.export", None)

    await run(config(exporter=OTLP), "data", document, trio.sleep_forever)
    [line] = lines(caplog)
    assert line.startswith("no metrics are sent to opentelemetry, its SDK is not installed (")
    assert line.endswith("): pip install mscfs[otel]")


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"exporter": {"type": "otpl"}}, "no type 'otpl' is known"),
        ({"exporter": {"type": "otlp", "options": {"endpiont": "hidden"}}}, "endpiont"),
        (
            {"exporter": OTLP, "reader": {"options": {"export_interval_millis": "soon"}}},
            "export_interval_millis: must be a number of milliseconds",
        ),
        ({"exporter": OTLP, "reader": {"options": {"export_timeout_millis": 0}}}, "must be a number of milliseconds"),
    ],
)
async def test_what_cannot_be_used_is_one_line(inline, metrics, said, caplog):
    await run(config(**metrics), "data", document, trio.sleep_forever)
    [line] = lines(caplog)
    assert line.startswith("no metrics are sent to opentelemetry as it is configured: ")
    assert said in line
    assert "hidden" not in line


async def test_an_exporter_that_never_returns_keeps_nobody_waiting():
    started = trio.Event()
    token = trio.lowlevel.current_trio_token()
    released = threading.Event()

    class Stuck(Sending):
        def send(self, document):
            token.run_sync_soon(started.set)
            released.wait(60)

    async with trio.open_nursery() as nursery:

        async def wait_stop():
            await trio.lowlevel.checkpoint()

        nursery.start_soon(run, config(exporter=OTLP), "data", document, wait_stop, Stuck().make)
        await started.wait()
        nursery.cancel_scope.cancel()
    released.set()
