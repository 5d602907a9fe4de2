"""A replica stops in the middle of what it sends, under programs that read from a real mount: R5, R9."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mscfs.cli.status import find_mount
from mscfs.config.load import parse_config
from mscfs.providers.registry import open_provider
from mscfs.telemetry import control
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import stall
from tests.emulators.s3 import S3Server
from tests.fuse.mounting import Mounted, unmount_whatever_is_left, wait_until, with_replicas, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

STORE_TIMEOUT = 20.0
"""Far longer than a second request takes, however busy the machine."""
BODIES = {f"{number:02}": random.Random(number).randbytes(150_000 + number) for number in range(36)}
STALLED_AT = 1_000
"""Also before the end of what a probe reads."""


@pytest.fixture
def stores(s3_server: S3Server, tmp_path: Path) -> Iterator[tuple[Mounted, dict[str, FaultProxy]]]:
    buckets = {name: s3_server.new_bucket() for name in ("data", "near")}
    proxies = {name: FaultProxy(s3_server.url) for name in buckets}
    for name in buckets:  # the replica's copies are younger, so that they count as fresh
        provider = open_provider(parse_config({"profiles": buckets}), name)
        for key, body in BODIES.items():
            provider.put(key, body)
        provider.close()
    profiles = {name: through(bucket, proxies[name]) for name, bucket in buckets.items()}
    profiles["data"] = with_replicas(profiles["data"], "near", store_timeout=STORE_TIMEOUT, sibling_read_ahead=False)
    profiles["near"]["mscfs"] = {"store_timeout": STORE_TIMEOUT}
    write_config(tmp_path, profiles)
    m = Mounted(tmp_path)
    m.mount()
    yield m, proxies
    unmount_whatever_is_left(m)
    for proxy in proxies.values():
        proxy.close()


def status(m: Mounted) -> dict[str, Any]:
    found: dict[str, Any] = control.request(Path(find_mount(m.path).socket), "status", timeout=30)
    return found


def read(m: Mounted, keys: list[str]) -> float:
    """Read files, which must be right; the seconds that the slowest took."""
    slowest = 0.0
    for key in keys:
        begun = time.monotonic()
        assert (m.path / key).read_bytes() == BODIES[key], key
        slowest = max(slowest, time.monotonic() - begun)
    return slowest


def test_R5_R9_nobody_waits_for_the_time_out_of_a_replica_that_stalls(
    stores: tuple[Mounted, dict[str, FaultProxy]],
) -> None:
    m, proxies = stores
    keys = list(BODIES)
    read(m, keys[:12])
    assert proxies["near"].count("GET", "[0-9][0-9]") >= 12, "the replica is read from while it is well"
    with proxies["near"].failing(stall(STALLED_AT), "GET", "[0-9][0-9]"):
        before = proxies["data"].count("GET", "[0-9][0-9]")
        assert read(m, keys[12:24]) < STORE_TIMEOUT
        assert proxies["data"].count("GET", "[0-9][0-9]") > before
        found = status(m)
        assert found["hedges"]["won"] >= 1, found
        # By now everybody knows, and the store is asked by probes only.
        wait_until(lambda: status(m)["replicas"][0]["state"] == "down")
    wait_until(lambda: status(m)["replicas"][0]["state"] == "healthy", 60)
    before = proxies["near"].count("GET", "[0-9][0-9]")
    read(m, keys[24:])
    assert proxies["near"].count("GET", "[0-9][0-9]") > before, "it is used again"
