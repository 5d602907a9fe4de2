"""A state directory is used together only by mounts that see whether the others live (W4)."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mscfs.errors import MountError
from mscfs.fuse import ownership
from mscfs.fuse.ownership import OWNER, here, shared
from tests.fuse.mounting import mscfs, prepare, unmount_whatever_is_left


@contextmanager
def held_elsewhere(state: Path, place: str = "another-boot/pid:[4026531836]") -> Iterator[None]:
    """As a mount holds it that this machine's processes are not seen by."""
    with (state / OWNER).open("w") as file:
        file.write(f"{place} 4711\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def test_W4_mounts_of_one_place_share_a_state_directory(tmp_path):
    with shared(tmp_path), shared(tmp_path):
        assert (tmp_path / OWNER).read_text().split() == [here(), str(os.getpid())]
    assert (tmp_path / OWNER).stat().st_mode & 0o777 == 0o600


def test_W4_a_state_directory_of_a_live_mount_elsewhere_is_refused_with_its_pid(tmp_path):
    with held_elsewhere(tmp_path):
        for _ in range(2):
            with (
                pytest.raises(MountError, match=rf"^{re.escape(str(tmp_path))} is in use .* \(pid 4711 there\)"),
                shared(tmp_path),
            ):
                pass
        assert (tmp_path / OWNER).read_text().split()[1] == "4711"
    with shared(tmp_path):  # it has ended
        assert (tmp_path / OWNER).read_text().split()[0] == here()


def test_L1_a_full_disk_is_said(tmp_path, monkeypatch):
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ownership.os, "pwrite", no_room)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(MountError, match=f"^{re.escape(str(tmp_path))}: No space left on device; "), shared(tmp_path):
        pass
    assert os.listdir("/proc/self/fd") == before


def test_W4_who_comes_between_two_locks_is_found(tmp_path, monkeypatch):
    lock = fcntl.flock

    def interrupted(descriptor: int, how: int) -> None:
        lock(descriptor, how)
        if how == fcntl.LOCK_SH:
            os.pwrite(descriptor, b"elsewhere 4711\n", 0)

    monkeypatch.setattr(ownership.fcntl, "flock", interrupted)
    with pytest.raises(MountError, match="pid 4711"), shared(tmp_path):
        pass


@pytest.mark.mount
def test_L1_W4_a_mount_on_the_state_directory_of_one_elsewhere_says_so(tmp_path):
    m = prepare(tmp_path)
    state = Path(os.environ["XDG_STATE_HOME"], "mscfs")
    state.mkdir(parents=True, exist_ok=True)
    m.path.mkdir()
    try:
        with held_elsewhere(state):
            done = mscfs("mount", "--config", m.config, "data", m.path, check=False)
            assert done.returncode == 1
            (line,) = done.stderr.splitlines()
            assert "(pid 4711 there): go there, or use another state directory here" in line
            assert not m.is_mounted()
        m.mount()
        assert str(m.pid) in (state / OWNER).read_text().split()
    finally:
        unmount_whatever_is_left(m)
