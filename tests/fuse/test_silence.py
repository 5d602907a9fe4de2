"""A real mount whose primary is a directory that stops answering, as one of NFS does: R8, L2."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mscfs.fuse.session import THREADS
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, wait_until, with_replicas, write_config

pytestmark = pytest.mark.mount


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mounted]:
    """The file system that the primary lies on: a mount too."""
    (tmp_path / "server").mkdir()
    mounted = Mounted(tmp_path / "server")
    write_config(mounted.root, {"data": file_store(tmp_path / "server" / "disk")})
    for name in ("a", "b", "c"):
        (tmp_path / "server" / "disk" / name).write_text(name)
    mounted.mount()
    yield mounted
    unmount_whatever_is_left(mounted)


@pytest.fixture
def m(tmp_path: Path, server: Mounted) -> Iterator[Mounted]:
    mounted = Mounted(tmp_path)
    near = file_store(tmp_path / "near")
    primary = {"storage_provider": {"type": "file", "options": {"base_path": str(server.path)}}}
    write_config(tmp_path, {"data": with_replicas(primary, "near", metadata_ttl=0), "near": near})
    for name in ("a", "b", "c"):
        (tmp_path / "near" / name).write_text(name)
    yield mounted
    unmount_whatever_is_left(mounted)


def tell(pid: int, number: signal.Signals) -> None:
    for process in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        os.kill(process, number)


def test_R8_a_primary_on_a_directory_that_stops_answering_holds_nobody_up_for_long(m: Mounted, server: Mounted):
    m.mount()
    assert (m.path / "a").read_text() == "a"
    pid, began = server.pid, time.monotonic()
    tell(pid, signal.SIGSTOP)
    try:
        assert [(m.path / name).read_text() for name in ("b", "c")] == ["b", "c"]
        assert m.status()["primary"]["state"] == "down"
        descriptor = os.open(m.path / "new", os.O_WRONLY | os.O_CREAT, 0o644)
        os.write(descriptor, b"new")
        with pytest.raises(OSError) as error:
            os.close(descriptor)
        assert error.value.errno == errno.EIO
        assert time.monotonic() - began < 60
    finally:
        tell(pid, signal.SIGCONT)
    wait_until(lambda: m.status()["primary"]["state"] == "healthy", 30)
    assert sorted(os.listdir(m.path)) >= ["a", "b", "c"]


def test_R8_L3_whoever_asks_where_files_are_does_not_take_all_threads_while_the_primary_is_silent(
    m: Mounted, server: Mounted
):
    for number in range(THREADS + 4):
        (m.root / "near" / f"{number}").write_text("near")
        (m.root / "server" / "mnt" / f"{number}").write_text("near")
    m.mount()
    names = [m.path / str(number) for number in range(THREADS + 4)]
    assert all(name.stat().st_size == 4 for name in names)
    pid = server.pid
    tell(pid, signal.SIGSTOP)
    askers = [
        subprocess.Popen([sys.executable, "-c", f"import os; os.getxattr({str(name)!r}, 'user.mscfs.source')"])
        for name in names
    ]
    try:
        assert (m.path / "a").read_text() == "a"
        assert [asker.wait(60) for asker in askers] == [0] * len(askers)
    finally:
        tell(pid, signal.SIGCONT)
        for asker in askers:
            asker.kill()
            asker.wait()


def test_L2_a_mount_whose_primary_is_a_directory_that_stops_answering_can_be_ended(m: Mounted, server: Mounted):
    m.mount()
    room = os.statvfs(m.path)
    pid, began = server.pid, time.monotonic()
    tell(pid, signal.SIGSTOP)
    try:
        assert os.statvfs(m.path).f_blocks == room.f_blocks
        m.umount()
        assert time.monotonic() - began < 30
    finally:
        tell(pid, signal.SIGCONT)
