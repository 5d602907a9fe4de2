"""The primary is an object store and goes away in every way, under a real mount: R8, W4, L2."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mscfs.cli.status import find_mount
from mscfs.config.load import parse_config
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from mscfs.telemetry import control
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import status
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, wait_until, with_replicas, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

STORE_TIMEOUT, READ_DEADLINE = 4.0, 20.0
"""Long enough for servers of a busy machine that are well."""
OUTAGES: dict[str, Callable[[FaultProxy], object]] = {
    "503": lambda proxy: proxy.on(status(503)),
    "refused": FaultProxy.refuse,
    "silent": FaultProxy.freeze,
}
REMOUNTED_IN = {"s3": "silent", "gcs": "refused", "azure": "503"}
"""For each store, the outage in which its mount is ended and begun anew: each takes its time."""
COPIED = {name: name.encode() * 1000 for name in ("a", "d/b")}
UNCOPIED = b"only the primary has it"
WRITTEN = b"written in the outage"


@dataclass
class World:
    """A mount of an object store behind a fault proxy, with a `file` replica."""

    kind: str
    m: Mounted
    proxy: FaultProxy
    primary: StorageProvider
    """Not through the proxy."""

    def state(self) -> str:
        return str(self._status()["state"])

    def kept(self) -> int:
        return int(self._status()["journal"]["kept"])

    def _status(self) -> Any:
        return control.request(Path(find_mount(self.m.path).socket), "status", timeout=30)

    def on_primary(self, key: str) -> bytes:
        with self.primary.get(key) as content:
            return content.read_all()


@pytest.fixture(params=["s3", "gcs", "azure"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    server = request.getfixturevalue(f"{request.param}_server")
    bucket, proxy = server.new_bucket(), FaultProxy(server.url)
    data = with_replicas(
        through(bucket, proxy), "near", store_timeout=STORE_TIMEOUT, read_deadline=READ_DEADLINE, metadata_ttl=1
    )
    data["retry"] = {"attempts": 2, "delay": 0.1}
    write_config(tmp_path, {"data": data, "near": file_store(tmp_path / "near")})
    m = Mounted(tmp_path)
    m.mount()
    primary = open_provider(parse_config({"profiles": {"data": bucket}}), "data")
    yield World(request.param, m, proxy, primary)
    unmount_whatever_is_left(m)
    primary.close()
    proxy.close()


def test_R8_W4_an_object_store_goes_away_in_every_way_and_comes_back(world: World) -> None:
    m = world.m
    (m.path / "d").mkdir()
    for name, content in COPIED.items():
        (m.path / name).write_bytes(content)
    m.drain()
    for way in OUTAGES:
        world.primary.put(f"uncopied {way}", UNCOPIED)
    wait_until(lambda: len(os.listdir(m.path)) == 2 + len(OUTAGES))
    for way, begin in OUTAGES.items():
        time.sleep(1.1)  # what the kernel was told is over
        begin(world.proxy)
        outage(world, way)
        world.proxy.heal()
        wait_until(lambda: world.state() == "healthy", 30)
        (m.path / f"after {way}").write_bytes(b"as ever")
        assert (m.path / f"uncopied {way}").read_bytes() == UNCOPIED
        expected = {f"written {way}": WRITTEN, f"after {way}": b"as ever"}
        wait_until(lambda: expected.keys() <= {entry.key for entry in world.primary.list()})  # noqa: B023 - now
        assert expected == {key: world.on_primary(key) for key in expected}
    wait_until(lambda: world.kept() == 0)


def outage(world: World, way: str) -> None:
    """All that is promised while it lasts."""
    m = world.m
    see_everything(m)
    with refused_within(READ_DEADLINE):
        (m.path / f"uncopied {way}").read_bytes()
    descriptor = os.open(m.path / f"written {way}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(descriptor, WRITTEN)
    with refused_within(READ_DEADLINE):
        os.close(descriptor)
    wait_until(lambda: world.state() == "degraded")
    wait_until(lambda: world.kept() == 1)
    see_everything(m)
    if way == REMOUNTED_IN[world.kind]:
        m.umount()
        m.mount()
        assert world.state() == "degraded"
        see_everything(m)
        assert world.kept() == 1
        (left,) = json.loads(m.mscfs("recover", "list", "data", "--json", "--config", m.config).stdout)
        assert left["key"] == f"written {way}"
        tried = m.mscfs("recover", "upload", "data", "--all", "--config", m.config, check=False)
        assert tried.returncode != 0, "the primary is still away"
        assert world.kept() == 1


def see_everything(m: Mounted) -> None:
    """List, stat, open and read, as if nothing were the matter."""
    assert {"a", "d", *(f"uncopied {way}" for way in OUTAGES)} <= set(os.listdir(m.path))
    assert os.listdir(m.path / "d") == ["b"]
    for way in OUTAGES:
        assert (m.path / f"uncopied {way}").stat().st_size == len(UNCOPIED)
    for name, content in COPIED.items():
        assert (m.path / name).read_bytes() == content
    with pytest.raises(FileNotFoundError):
        (m.path / "absent").stat()


@contextmanager
def refused_within(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    with pytest.raises(OSError) as error:
        yield
    assert error.value.errno == errno.EIO
    assert time.monotonic() - begun < seconds
