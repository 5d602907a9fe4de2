"""An object is replaced elsewhere under open handles of a real mount, on each store, with a replica: R1, R2."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mscfs.config.load import load_config
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, wait_until, with_replicas, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

MIB = 1 << 20
SIZE = 12 * MIB
"""More than is read ahead of a program that reads here and there."""
OLD, NEW = b"o" * SIZE, b"n" * (SIZE + 5)
PIECE = 64 << 10
PLACES = range(0, SIZE, 2 * MIB)


@pytest.fixture(params=["file", "s3", "gcs", "azure"])
def m(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted]:
    kind = request.param
    profile = (
        file_store(tmp_path / "primary") if kind == "file" else request.getfixturevalue(f"{kind}_server").new_bucket()
    )
    data = with_replicas({**profile, "caching_enabled": False}, "near", metadata_ttl=0)
    write_config(tmp_path, {"data": data, "near": file_store(tmp_path / "near")})
    mounted = Mounted(tmp_path)
    mounted.mount()
    yield mounted
    unmount_whatever_is_left(mounted)


def test_R1_R2_what_is_replaced_elsewhere_stays_one_version_for_each_handle(m: Mounted) -> None:
    primary = open_provider(load_config(m.config), "data")
    for name in ("replaced", "gone", "alone"):
        (m.path / name).write_bytes(OLD)
    m.drain()
    m.umount()
    m.mount()  # the kernel has nothing of what was written
    nobody_but_the_replica_has_it(m, primary)
    nobody_has_it(m, primary)


def nobody_but_the_replica_has_it(m: Mounted, primary: StorageProvider) -> None:
    replaced, gone = m.path / "replaced", m.path / "gone"
    with replaced.open("rb", buffering=0) as one, gone.open("rb", buffering=0) as other:
        view = mmap.mmap(one.fileno(), 0, prot=mmap.PROT_READ)
        assert one.read(PIECE) == other.read(PIECE) == OLD[:PIECE]
        primary.put("replaced", NEW)
        primary.delete("gone")
        assert stale_reads(one.fileno()) == stale_reads(other.fileno()) == 0
        assert view[:] == OLD
        assert os.fstat(one.fileno()).st_size == os.fstat(other.fileno()).st_size == SIZE
        assert replaced.stat().st_size == len(NEW)
        assert replaced.read_bytes() == NEW
        assert not gone.exists()
        # The replica follows, and the handle still sees nothing of the new version.
        wait_until(lambda: (m.store("near") / "replaced").read_bytes() == NEW)
        stale_reads(one.fileno())
        assert view[:] == OLD
        view.close()
    assert replaced.read_bytes() == NEW


def nobody_has_it(m: Mounted, primary: StorageProvider) -> None:
    path = m.path / "alone"
    with path.open("rb", buffering=0) as file:
        assert file.read(PIECE) == OLD[:PIECE]
        primary.put("alone", NEW)
        (m.store("near") / "alone").unlink()
        assert stale_reads(file.fileno()) > 0
        assert path.read_bytes() == NEW
        assert stale_reads(file.fileno()) > 0
        assert os.fstat(file.fileno()).st_size == SIZE


def stale_reads(descriptor: int) -> int:
    """How many reads all over a file are ESTALE; the others must give the old version."""
    answers = [answer(descriptor, place) for place in PLACES]
    assert set(answers) <= {OLD[:PIECE], errno.ESTALE}
    return answers.count(errno.ESTALE)


def answer(descriptor: int, place: int) -> bytes | int | None:
    try:
        return os.pread(descriptor, PIECE, place)
    except OSError as error:
        return error.errno
