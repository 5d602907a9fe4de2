import json
import os
import signal
import socket
import time
import urllib.request
from urllib.error import HTTPError, URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from mscfs.fuse.mounts import mounted_at
from tests.fuse.mounting import wait_until
from tests.telemetry.collector import Collector, attributes

pytestmark = pytest.mark.mount


def states(exposition):
    """The state of each mount, by its mountpoint; each family stands there once."""
    families = list(text_string_to_metric_families(exposition))
    assert len({family.name for family in families}) == len(families)
    [family] = [family for family in families if family.name == "mscfs_mount_state"]
    return {sample.labels["mountpoint"]: sample.labels["state"] for sample in family.samples if sample.value == 1}


def states_here(machine):
    """The states of the mounts of the test; others may run on this machine."""
    told = states(machine.run("metrics").stdout)
    return {mountpoint: state for mountpoint, state in told.items() if mountpoint.startswith(str(machine.root))}


def value(exposition, name, **labels):
    [found] = [
        sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    return found


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def get(port, path="/metrics"):
    # Without the proxies of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return answer.read().decode()


@pytest.fixture
def beside(machine):
    """A second mountpoint."""
    path = machine.root / "beside"
    path.mkdir()
    yield path
    if mounted_at(path) is not None:
        machine.run("umount", "--lazy", path)


def test_all_mounts_and_those_that_are_named(machine, beside):
    machine.mount()
    assert machine.run("mount", "near", beside).returncode == 0
    here, there = str(machine.mountpoint), str(beside)
    assert states(machine.run("metrics", "near", f"{there}/../beside").stdout) == {there: "healthy"}
    done = machine.run("metrics", "data", machine.root)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mscfs: no mount of mscfs runs at or of {machine.root}; `mscfs status` lists the mounts\n"
    [pid] = [record["pid"] for record in machine.daemons() if record["profile"] == "data"]
    os.kill(pid, signal.SIGSTOP)
    try:
        assert states_here(machine) == {here: "unresponsive", there: "healthy"}
    finally:
        os.kill(pid, signal.SIGCONT)


def test_R8_the_metrics_say_degraded_while_the_primary_is_away(machine):
    port = free_port()
    (machine.store("primary") / "a").write_text("content")
    machine.mount("-o", f"metrics_address=127.0.0.1:{port},metadata_ttl=0")
    here = str(machine.mountpoint)
    assert (machine.mountpoint / "a").read_text() == "content"
    assert machine.run("drain", machine.mountpoint).returncode == 0
    assert states(get(port)) == {here: "healthy"}
    machine.store("primary").rename(machine.root / "away")

    def says(state):
        os.listdir(machine.mountpoint)
        return states(get(port)) == states_here(machine) == {here: state}

    wait_until(lambda: says("degraded"))
    told = get(port)
    assert value(told, "mscfs_store_state", store="data", role="primary", state="down") == 1
    assert value(told, "mscfs_store_state", store="near", role="replica", state="healthy") == 1
    (machine.root / "away").rename(machine.store("primary"))
    wait_until(lambda: says("healthy"))


def test_what_programs_did_is_counted(machine):
    port = free_port()
    machine.mount("-o", f"metrics_address=:{port}")
    (machine.mountpoint / "a").write_text("content")
    with pytest.raises(PermissionError):
        os.link(machine.mountpoint / "a", machine.mountpoint / "b")
    told = get(port)
    assert value(told, "mscfs_requests_total", operation="create") == 1
    assert value(told, "mscfs_request_duration_seconds_count", operation="create") == 1
    assert value(told, "mscfs_request_errors_total", operation="link", errno="EPERM") == 1
    with pytest.raises(HTTPError, match="404"):
        get(port, "/")
    # A client that says nothing keeps neither others nor the end of the mount waiting.
    with socket.create_connection(("127.0.0.1", port)):
        assert get(port)
        assert machine.run("umount", machine.mountpoint, timeout=30).returncode == 0
    with pytest.raises(URLError):
        get(port)


def test_L3_a_collector_is_sent_the_metrics_and_may_go_away(machine):
    collector = Collector()
    path = machine.root / "config.json"
    config = json.loads(path.read_text())
    options = {"endpoint": f"{collector.endpoint}?key=hidden", "headers": {"x-token": "hidden"}}
    config["opentelemetry"] = {
        "metrics": {
            "exporter": {"type": "otlp", "options": options},
            "reader": {"options": {"export_interval_millis": 1000, "export_timeout_millis": 1000}},
            "attributes": [{"type": "static", "options": {"attributes": {"cluster": "a"}}}],
        }
    }
    path.write_text(json.dumps(config))
    with collector.serving():
        machine.mount()
        wait_until(lambda: collector.received)
        healthy = collector.metrics()["mscfs_mount_state"].gauge.data_points[0]
        assert healthy.as_int == 1
        assert attributes(healthy) == {
            "cluster": "a",
            "profile": "data",
            "mountpoint": str(machine.mountpoint),
            "state": "healthy",
        }
        assert collector.headers[0]["x-token"] == "hidden"
        assert "hidden" not in str(collector.received)
    [log] = (machine.root / "state" / "mscfs" / "log").iterdir()
    wait_until(lambda: "metrics do not reach 127.0.0.1" in log.read_text())
    (machine.mountpoint / "a").write_text("content")
    time.sleep(2.5)  # of no line for each attempt
    assert machine.run("umount", machine.mountpoint, timeout=30).returncode == 0
    assert log.read_text().count("reach") == 1
    assert "hidden" not in log.read_text()


def test_L1_an_address_that_is_in_use_refuses_the_mount_and_one_that_is_not_told_is_free(machine):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = machine.run("mount", "data", machine.mountpoint, "-o", f"metrics_address=:{port}")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"mscfs: metrics_address :{port}: Address already in use: ")
        assert len(done.stderr.splitlines()) == 1
        assert not machine.is_mounted()
        assert machine.daemons() == []
        machine.mount("-o", f"metrics_address=:{port},metrics_address=")


def test_L5_no_secret_and_no_place_of_a_store_is_told(machine):
    """A replica whose credentials stand in the configuration, and in its URL, and that does not answer."""
    path = machine.root / "config.json"
    config = json.loads(path.read_text())
    options = {"base_path": "hidden-bucket", "endpoint_url": "http://joe:hidden-password@127.0.0.1:9", "retries": {}}
    config["profiles"]["near"] = {
        "storage_provider": {"type": "s3", "options": options},
        "credentials_provider": {
            "type": "S3Credentials",
            "options": {"access_key": "hidden-id", "secret_key": "hidden-key", "session_token": "hidden-token"},
        },
        "retry": {"attempts": 1},
    }
    path.write_text(json.dumps(config))
    port = free_port()
    machine.mount("-o", f"metrics_address=:{port}")
    (machine.mountpoint / "hidden-file").write_text("content")
    assert (machine.mountpoint / "hidden-file").read_text() == "content"

    def is_down():
        machine.run("status", machine.mountpoint)  # asks the stores
        return value(get(port), "mscfs_store_state", store="near", state="down") == 1

    wait_until(is_down)
    for told in (get(port), machine.run("metrics").stdout):
        assert value(told, "mscfs_replica_lag_entries", store="near") == 1
        assert "hidden" not in told
        assert "127.0.0.1" not in told
        assert "joe" not in told
