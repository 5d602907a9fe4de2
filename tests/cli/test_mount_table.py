import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mscfs.cli import mount_table


@pytest.fixture
def table(monkeypatch):
    def pretend(*lines):
        monkeypatch.setattr(mount_table, "_table", lambda: [mount_table._parse(line) for line in lines])

    return pretend


DATA = b"36 35 0:50 / /mnt/data rw,nosuid,nodev shared:7 master:1 - fuse.mscfs training rw,user_id=0"
ODD = rb"37 35 0:51 / /mnt/with\040space\134caf" + b"\xe9" + rb" rw - ext4 /dev/sda1 rw"


def test_the_table_of_this_machine():
    assert mount_table.mounted_at(Path("/proc")).type == "proc"


def test_a_line_with_optional_fields(table):
    table(DATA)
    entry = mount_table.mounted_at(Path("/mnt/data"))
    assert (entry.type, entry.source) == ("fuse.mscfs", "training")
    assert mount_table.mounted_at(Path("/mnt")) is None


def test_N3_names_with_spaces_backslashes_and_other_encodings(table):
    table(ODD)
    assert mount_table.mounted_at(Path(os.fsdecode(b"/mnt/with space\\caf\xe9"))).type == "ext4"


def test_the_topmost_mount_counts(table):
    table(DATA, DATA.replace(b"fuse.mscfs", b"tmpfs"))
    assert mount_table.mounted_at(Path("/mnt/data")).type == "tmpfs"


def test_a_path_to_a_mount_is_not_looked_at(table, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(tmp_path / "real")
    real = tmp_path / "real" / "mount"
    real.mkdir(parents=True)
    table(b"36 35 0:50 / " + os.fsencode(real) + b" rw - fuse.mscfs training rw")
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
