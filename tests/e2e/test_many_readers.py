"""Many programs wait for a store that does not answer, and the mount answers others: R5, L3."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mscfs.config.load import parse_config
from mscfs.providers.registry import open_provider
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import stall
from tests.emulators.s3 import S3Server
from tests.fuse.mounting import Mounted, unmount_whatever_is_left, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

READERS = 150
BODY = b"content"
KEYS = [f"{number:03}" for number in range(READERS)]
PATIENCE = 60.0


@pytest.fixture
def mounted(s3_server: S3Server, tmp_path: Path) -> Iterator[tuple[Mounted, FaultProxy]]:
    bucket, proxy = s3_server.new_bucket(), FaultProxy(s3_server.url)
    provider = open_provider(parse_config({"profiles": {"data": bucket}}), "data")
    for key in KEYS:
        provider.put(key, BODY)
    provider.close()
    profile = through(bucket, proxy)
    profile["mscfs"] = {"read_deadline": PATIENCE, "store_timeout": PATIENCE}
    write_config(tmp_path, {"data": profile})
    m = Mounted(tmp_path)
    m.mount()
    yield m, proxy
    unmount_whatever_is_left(m)
    proxy.close()


def test_R5_L3_however_many_wait_for_a_store_the_mount_answers_others(mounted: tuple[Mounted, FaultProxy]) -> None:
    """Else the reads that come too late to be taken wait for `read_deadline` more than once."""
    m, proxy = mounted
    read: list[bytes] = []
    all_are_open = threading.Barrier(READERS + 1)

    def reader(key: str) -> None:
        descriptor = os.open(m.path / key, os.O_RDONLY)
        try:
            all_are_open.wait(PATIENCE)
            read.append(os.read(descriptor, 100))
        finally:
            os.close(descriptor)

    threads = [threading.Thread(target=reader, args=(key,)) for key in KEYS]
    with proxy.failing(stall(0), "GET", "[0-9][0-9][0-9]"):
        for thread in threads:
            thread.start()
        all_are_open.wait(PATIENCE)
        time.sleep(0.5)  # until they read: one that comes later makes the test less strict and not wrong
        assert not (m.path / "not-there").exists()
        assert not read
    for thread in threads:
        thread.join(PATIENCE)
    assert read == [BODY] * READERS
