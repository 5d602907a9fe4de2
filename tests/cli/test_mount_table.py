import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mscfs.cli import mount_table
from mscfs.fuse.mounts import Mounted


def test_a_path_to_a_mount_is_not_looked_at(tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = tmp_path / "real" / "mount"
    real.mkdir(parents=True)
    there = Mounted(real, "fuse.mscfs", "training", "0:50")
    monkeypatch.setattr(mount_table, "mounted_at", lambda path: there if path == real else None)
    looked_at = []
    original = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **more: looked_at.append(str(path)) or original(path, **more))
    assert mount_table.real_path(tmp_path / "link" / "mount") == real
    assert str(real) not in looked_at


def test_a_relative_path_and_a_link_to_a_directory(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert mount_table.real_path(Path("link")) == tmp_path / "real"


@pytest.mark.parametrize(
    ("number", "state"), [(None, "answers"), (errno.ENOTCONN, "dead"), (errno.ECONNABORTED, "dead")]
)
def test_probe(monkeypatch, number, state):
    def statvfs(path):
        if number:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert mount_table.probe(Path("/mnt/data"), timeout=10) == state


def test_probe_does_not_wait_for_ever(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(os, "statvfs", lambda path: release.wait())
    assert mount_table.probe(Path("/mnt/data"), timeout=0.01) == "hangs"
    release.set()


def test_holders_names_programs_with_open_files_or_a_working_directory(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path.parent / f"{tmp_path.name}-sibling").touch()
    script = "import sys; print('ready', flush=True); sys.stdin.read()"

    def start(**more):
        process = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **more
        )
        assert process.stdout.readline() == b"ready\n"
        return process

    with (tmp_path / "file").open() as inside, (tmp_path.parent / f"{tmp_path.name}-sibling").open() as outside:
        processes = [start(cwd=tmp_path), start(stderr=inside), start(stderr=outside)]
    try:
        found = mount_table.holders(tmp_path)
    finally:
        for process in processes:
            process.communicate()
    assert [f"({process.pid})" in " ".join(found) for process in processes] == [True, True, False]
    assert all(name.startswith("python") for name in found)
