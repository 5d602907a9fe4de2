"""A program reads on while stores fail in every way, on a real mount (R5): S3 with two S3 replicas."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from mscfs.cli.status import find_mount
from mscfs.config.load import parse_config
from mscfs.journal import Journal
from mscfs.providers.registry import open_provider
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
from mscfs.replicas.step import bring_up_to_date
from mscfs.telemetry import control
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import Rule, in_object, reset, stall, status, truncate, wrong_length
from tests.emulators.s3 import S3Server
from tests.fuse.mounting import Mounted, unmount_whatever_is_left, wait_until, with_replicas, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

BODY = random.Random(7).randbytes(1_500_000)
ORDER = ("near", "far", "data")
STORE_TIMEOUT, READ_DEADLINE = 1.0, 6.0

FAULTS = {
    "403": status(403),
    "503": status(503, b"<Error><Code>SlowDown</Code></Error>"),
    "reset": in_object(reset(1_234_567)),
    "truncated": in_object(truncate(1_400_000)),
    "stalled": in_object(stall(700_001)),
    "too short": wrong_length(-1),
}
"""Each by the name of the file that is read meanwhile. Many more, and other stores: `tests/replicas`."""


@dataclass
class World:
    """A mount, and its stores behind fault proxies by profile."""

    m: Mounted
    proxies: dict[str, FaultProxy]

    def wait_until_recovered(self) -> None:
        """Until all stores are believed healthy."""

        def recovered() -> bool:
            found = control.request(Path(find_mount(self.m.path).socket), "status", timeout=30)
            return all(store["state"] == "healthy" for store in (found["primary"], *found["replicas"]))

        wait_until(recovered, 60)


@pytest.fixture
def world(s3_server: S3Server, tmp_path: Path) -> Iterator[World]:
    proxies = {name: FaultProxy(s3_server.url) for name in ORDER}
    stores = {name: s3_server.new_bucket() for name in ORDER}
    config = parse_config({"profiles": stores})
    providers = {name: open_provider(config, name) for name in ORDER}
    replicas = [Replica(name, providers[name], index=index) for index, name in enumerate(ORDER[:2])]
    manager = ReplicaManager(Source("data", providers["data"]), replicas, Journal(tmp_path / "journal.db"))
    for key in FAULTS:
        manager.primary.put(key, BODY)
        for replica in replicas:
            bring_up_to_date(manager, replica.profile, key)
    manager.close()
    profiles = {name: through(bucket, proxies[name]) for name, bucket in stores.items()}
    options = {"store_timeout": STORE_TIMEOUT, "read_deadline": READ_DEADLINE, "page_cache": False}
    for name in ORDER:
        profiles[name]["mscfs"] = {"store_timeout": STORE_TIMEOUT}
    profiles["data"] = with_replicas(profiles["data"], "near", "far", **options)
    write_config(tmp_path, profiles)
    m = Mounted(tmp_path)
    m.mount()
    yield World(m, proxies)
    unmount_whatever_is_left(m)
    for proxy in proxies.values():
        proxy.close()


def test_R5_a_program_reads_on_when_both_replicas_fail_and_gets_EIO_in_time_when_all_do(world: World) -> None:
    for name, fault in FAULTS.items():
        read_until_fired(world, name, [world.proxies[store].on(fault, "GET", name, times=1) for store in ORDER[:2]])
    for name in ("503", "stalled"):
        fail_everywhere(world, name)


def read_until_fired(world: World, name: str, rules: list[Rule]) -> None:
    """A store that was in trouble a moment ago is left alone for a while, so that the fault may come later."""
    end = time.monotonic() + 30
    while not all(rule.fired for rule in rules) and time.monotonic() < end:
        world.wait_until_recovered()
        begun = time.monotonic()
        assert (world.m.path / name).read_bytes() == BODY, rules
        assert time.monotonic() - begun < READ_DEADLINE, rules
    for rule in rules:
        rule.assert_fired()
    for proxy in world.proxies.values():
        proxy.heal()


def fail_everywhere(world: World, name: str) -> None:
    world.wait_until_recovered()
    with ExitStack() as stack:
        for proxy in world.proxies.values():
            stack.enter_context(proxy.failing(FAULTS[name], "GET", name))
        begun = time.monotonic()
        with pytest.raises(OSError) as error:
            (world.m.path / name).read_bytes()
        assert error.value.errno == errno.EIO, name
        # The kernel asks again for what its read-ahead did not get; that may not take the same time again.
        assert time.monotonic() - begun < 1.8 * READ_DEADLINE, name
    world.wait_until_recovered()
    assert (world.m.path / name).read_bytes() == BODY, name
