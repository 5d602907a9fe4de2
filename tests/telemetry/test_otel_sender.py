import json
from importlib.metadata import version
from io import StringIO

import msgspec
import pytest

from mscfs.errors import ConfigError
from mscfs.telemetry.otel_sender import OtelSender
from mscfs.telemetry.status import MountStatus, PrimaryStatus, ReplicaStatus
from tests.telemetry.collector import Collector, attributes
from tests.telemetry.test_metrics import DOCUMENT


@pytest.fixture
def collector():
    collector = Collector()
    with collector.serving():
        yield collector


def sender(kind, *more, timeout=5.0, **options):
    settings = {"exporter": {"type": kind, "options": options}, "attributes": more}
    return OtelSender(settings, timeout, dict)


def test_what_a_collector_gets(collector):
    static = {"type": "static", "options": {"attributes": {"cluster": "a", "nodes": 4, "profile": "mine"}}}
    otlp = sender("otlp", static, endpoint=collector.endpoint, headers={"x-team": "b"})
    assert otlp.send(DOCUMENT)
    assert collector.headers[0]["x-team"] == "b"
    [resource] = collector.received[0].resource_metrics
    assert (
        attributes(resource.resource).items() >= {"service.name": "mscfs", "service.version": version("mscfs")}.items()
    )
    metrics = collector.metrics()
    mine = {"cluster": "a", "nodes": 4, "profile": "data", "mountpoint": "/mnt/data"}

    counter = metrics["mscfs_hedges_started"]
    assert (counter.sum.is_monotonic, counter.sum.aggregation_temporality) == (True, 2)  # cumulative
    [point] = counter.sum.data_points
    assert (point.as_int, point.start_time_unix_nano, attributes(point)) == (20, 29_500_000_000, mine)
    assert point.time_unix_nano > point.start_time_unix_nano

    lag = metrics["mscfs_replica_lag_seconds"]
    assert lag.unit == "s"
    [point] = lag.gauge.data_points
    assert (point.as_double, attributes(point)) == (10.5, {**mine, "store": "near", "role": "replica"})
    assert metrics["mscfs_replica_lag_bytes"].unit == "By"

    durations = metrics["mscfs_request_duration_seconds"]
    [point] = durations.histogram.data_points
    assert attributes(point) == {**mine, "operation": "read"}
    assert (point.count, point.sum) == (39, 41.5)
    assert (list(point.explicit_bounds), list(point.bucket_counts)) == ([0.001, 1.0], [30, 8, 1])
    assert not point.HasField("min")

    states = {attributes(point)["state"]: point.as_int for point in metrics["mscfs_mount_state"].gauge.data_points}
    assert states == {"healthy": 1, "degraded": 0, "stopping": 0, "unresponsive": 0, "dead": 0}


def test_several_operations_and_replicas_stay_apart(collector):
    [read] = DOCUMENT.requests
    open_ = msgspec.structs.replace(read, operation="open", answered=38)
    document = msgspec.structs.replace(
        DOCUMENT,
        requests=[read, open_],
        replicas=[ReplicaStatus(profile=name, read_priority=1, pending=len(name)) for name in ("near", "far")],
    )
    assert sender("otlp", endpoint=collector.endpoint).send(document)
    metrics = collector.metrics()
    points = metrics["mscfs_request_duration_seconds"].histogram.data_points
    assert {attributes(point)["operation"]: point.count for point in points} == {"read": 39, "open": 38}
    points = metrics["mscfs_replica_lag_entries"].gauge.data_points
    assert {attributes(point)["store"]: point.as_int for point in points} == {"near": 4, "far": 3}


def test_a_mount_that_has_done_nothing_yet(collector):
    new = MountStatus(
        profile="data", mountpoint="/mnt", pid=1, state=DOCUMENT.state, primary=PrimaryStatus(profile="data")
    )
    assert sender("otlp", endpoint=collector.endpoint).send(new)
    assert "mscfs_request_duration_seconds" not in collector.metrics()


def test_console():
    terminal = StringIO()
    assert sender("console", out=terminal).send(DOCUMENT)
    [resource] = json.loads(terminal.getvalue())["resource_metrics"]
    names = {metric["name"] for metric in resource["scope_metrics"][0]["metrics"]}
    assert {"mscfs_mount_state", "mscfs_store_reads", "mscfs_request_duration_seconds"} <= names


def test_L5_a_failure_logs_nothing_of_the_endpoint(collector, caplog):
    collector.refuse = True
    place = collector.endpoint.removeprefix("http://")
    otlp = sender("otlp", endpoint=f"http://joe:hidden@{place}?token=hidden", timeout=1.0)
    assert otlp.destination == place.partition("/")[0]
    assert not otlp.send(DOCUMENT)
    assert not sender("otlp", endpoint="http://joe:hidden@127.0.0.1:9?token=hidden", timeout=0.5).send(DOCUMENT)
    assert "hidden" not in caplog.text


def test_what_cannot_be_used():
    with pytest.raises(ConfigError, match="no type 'otpl' is known"):
        sender("otpl")
    with pytest.raises(ConfigError, match=r"attributes\[0\]: no type"):
        sender("console", {"type": "statik"})
    with pytest.raises(TypeError, match="endpiont"):
        sender("otlp", endpiont="http://127.0.0.1:9")
    with pytest.raises(ImportError):
        sender("no_such_module.Exporter")


@pytest.mark.parametrize(
    ("endpoint", "destination"),
    [
        ("http://[::1]:4318/v1/metrics", "::1:4318"),
        ("https://a.example/v1", "a.example"),
        ("http://a:b:c", "the exporter otlp"),
    ],
)
def test_the_destination_is_host_and_port(endpoint, destination):
    assert sender("otlp", endpoint=endpoint).destination == destination
