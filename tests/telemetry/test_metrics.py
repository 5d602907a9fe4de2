import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mscfs.telemetry.metrics import expose
from mscfs.telemetry.status import (
    CacheStatus,
    HedgeStatus,
    JournalStatus,
    LoopStatus,
    MemoryStatus,
    MountState,
    MountStatus,
    PrimaryStatus,
    ReplicaStatus,
    RequestStatus,
    StagingStatus,
    StoreState,
)

READ = RequestStatus(
    operation="read", begun=40, answered=39, seconds=41.5, within={"0.001": 30, "1.0": 38}, errors={"EIO": 2}
)
DOCUMENT = MountStatus(
    profile="data",
    mountpoint="/mnt/data",
    pid=4711,
    state=MountState.HEALTHY,
    primary=PrimaryStatus(profile="data", hits=1, bytes_read=2, errors=3, p95_seconds=4.5, last_error="no route"),
    replicas=[
        ReplicaStatus(
            profile="near",
            read_priority=1,
            state=StoreState.DOWN,
            hits=5,
            bytes_read=6,
            errors=7,
            pending=8,
            pending_bytes=9,
            oldest_pending_seconds=10.5,
            p95_seconds=11.5,
            last_error="refused by /srv/near",
        )
    ],
    cache=CacheStatus(bytes=12, limit=13, hits=14, misses=15, evictions=16),
    memory=MemoryStatus(used=17, limit=18, waiting=19),
    hedges=HedgeStatus(started=20, won=21),
    loop=LoopStatus(mean_delay=22.5, worst_delay=23.5),
    staging=StagingStatus(files=24, bytes=25),
    journal=JournalStatus(pending=26, recovering=27, kept=28),
    requests=[READ],
    version="0.1.0",
    read_only=True,
    started=29.5,
    skipped_keys=31,
    conflicts=32,
)


def parse(*documents):
    """The families by name, each of which may stand there once; its samples by their labels."""
    families = list(text_string_to_metric_families(expose(documents).decode()))
    assert len({family.name for family in families}) == len(families)
    return {family.name: family for family in families}


def values(families, name, *wanted, **labels):
    """The value of each sample that has these labels, by the labels that are wanted."""
    family = next(family for family in families.values() if name in {sample.name for sample in family.samples})
    found = [sample for sample in family.samples if sample.name == name and labels.items() <= sample.labels.items()]
    return {tuple(sample.labels[label] for label in wanted): sample.value for sample in found}


def test_every_number_of_the_status_is_told():
    told = {sample.value for family in parse(DOCUMENT).values() for sample in family.samples}
    assert {*range(1, 4), *range(5, 10), *range(12, 22), *range(24, 29), 31, 32} <= told
    assert {4.5, 10.5, 11.5, 22.5, 23.5, 29.5, 41.5} <= told


def test_the_requests_of_the_kernel():
    families = parse(DOCUMENT)
    mine = {"profile": "data", "mountpoint": "/mnt/data", "operation": "read"}
    assert values(families, "mscfs_requests_total", **mine) == {(): 40}
    assert values(families, "mscfs_request_duration_seconds_bucket", "le", **mine) == {
        ("0.001",): 30,
        ("1.0",): 38,
        ("+Inf",): 39,
    }
    assert values(families, "mscfs_request_duration_seconds_count", **mine) == {(): 39}
    assert values(families, "mscfs_request_duration_seconds_sum", **mine) == {(): 41.5}
    assert values(families, "mscfs_request_errors_total", "errno", **mine) == {("EIO",): 2}


@pytest.mark.parametrize("state", MountState)
def test_R8_exactly_one_state_is_1(state):
    families = parse(msgspec.structs.replace(DOCUMENT, state=state))
    states = values(families, "mscfs_mount_state", "state", profile="data", mountpoint="/mnt/data")
    assert states == {(other.value,): other is state for other in MountState}


def test_stores_have_a_role_and_a_state():
    families = parse(DOCUMENT)
    assert values(families, "mscfs_store_state", "store", "role", "state") == {
        ("data", "primary", "healthy"): 1,
        ("data", "primary", "down"): 0,
        ("near", "replica", "healthy"): 0,
        ("near", "replica", "down"): 1,
    }
    assert values(families, "mscfs_store_reads_total", "store", "role") == {
        ("data", "primary"): 1,
        ("near", "replica"): 5,
    }
    assert values(families, "mscfs_replica_lag_seconds", "store", "role") == {("near", "replica"): 10.5}


def test_what_is_not_known_is_not_told():
    families = parse(msgspec.structs.replace(DOCUMENT, primary=PrimaryStatus(profile="data"), replicas=[]))
    assert not [name for name in families if name.startswith("mscfs_replica") or "p95" in name]


def test_several_mounts_are_one_exposition():
    other = msgspec.structs.replace(DOCUMENT, profile="other", mountpoint="/mnt/other", started=1.0)
    assert values(parse(DOCUMENT, other), "mscfs_mount_start_time_seconds", "profile", "mountpoint") == {
        ("data", "/mnt/data"): 29.5,
        ("other", "/mnt/other"): 1.0,
    }


def test_of_a_mount_that_does_not_answer_only_that_is_told():
    silent = MountStatus(
        profile="data",
        mountpoint="/mnt/data",
        pid=1,
        state=MountState.UNRESPONSIVE,
        primary=PrimaryStatus(profile="data"),
    )
    families = parse(silent)
    assert list(families) == ["mscfs_mount_state"]
    assert values(families, "mscfs_mount_state", state="unresponsive") == {(): 1}


def test_without_a_mount_there_is_nothing_to_tell():
    assert expose([]) == b""


@pytest.mark.parametrize(
    ("mountpoint", "label"),
    [
        ('/mnt/a "b"\\c', '/mnt/a "b"\\c'),
        ("/mnt/a\nb 1\n", "/mnt/a\nb 1\n"),
        ("/mnt/文", "/mnt/文"),
        (os.fsdecode(b"/mnt/caf\xe9"), "/mnt/caf\\xe9"),
    ],
)
def test_a_mountpoint_of_any_name_is_one_label(mountpoint, label):
    families = parse(msgspec.structs.replace(DOCUMENT, mountpoint=mountpoint))
    assert values(families, "mscfs_conflicts", "mountpoint") == {(label,): 32}


def test_L5_no_text_of_a_store_is_told():
    exposition = expose([DOCUMENT])
    assert b"no route" not in exposition
    assert b"refused" not in exposition


def test_every_metric_is_documented_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    section = page.split("\n## Metrics\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`mscfs_[^|]*) \|", section, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"mscfs_\w+", row)}
    families = parse(DOCUMENT)
    counters = {name: f"{name}_total" for name, family in families.items() if family.type == "counter"}
    assert told == {counters.get(name, name) for name in families}
    rules = set(re.findall(r"\bmscfs_\w+", section.split("\n### Alerts\n")[1]))
    assert len(rules) > 4
    assert rules <= {sample.name for family in families.values() for sample in family.samples}


def test_a_mount_loads_no_metrics_library_before_the_first_scrape():
    code = "import sys, mscfs.cli.serving as serving; serving.load(); print('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
