import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mscfs.telemetry import registry

CHILD = """
import sys
from pathlib import Path
from mscfs.telemetry import registry
registry.register(sys.argv[1], Path(sys.argv[2]), started=float(sys.argv[3]), config_file=None, shutdown_timeout=90)
registry.socket_path().touch()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setattr(registry, "SYSTEM_DIRECTORY", tmp_path / "none")
    return tmp_path / "mscfs"


@pytest.fixture
def mount():
    """Start a process that records a mount, and end it by its pid."""
    processes = []

    def start(profile, mountpoint, started=1.0):
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, profile, str(mountpoint), str(started)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        processes.append(process)
        assert process.stdout.readline() == b"ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_mount_is_found_by_place_and_by_profile():
    record = registry.register(
        "data", Path("/mnt/data"), started=5.0, config_file=Path("/etc/c.yaml"), shutdown_timeout=90.0
    )
    assert registry.find(Path("/mnt/data")) == record
    assert registry.find_profile("data") == [record]
    assert registry.find(Path("/mnt/other")) is None
    assert (record.pid, record.config_file, record.started) == (os.getpid(), "/etc/c.yaml", 5.0)
    registry.unregister()
    assert registry.mounts() == []


def test_N3_a_mountpoint_that_is_not_utf8():
    place = Path(os.fsdecode(b"/mnt/caf\xe9"))
    registry.register("data", place, started=1.0, config_file=None, shutdown_timeout=90.0)
    assert registry.find(place) is not None


def test_mounts_come_oldest_first_and_find_gives_the_youngest(mount):
    mount("data", "/mnt/data", 3.0)
    younger = mount("data", "/mnt/data", 4.0)
    mount("other", "/mnt/other", 2.0)
    assert [record.started for record in registry.mounts()] == [2.0, 3.0, 4.0]
    assert registry.find(Path("/mnt/data")).pid == younger.pid


@pytest.mark.parametrize("collected", [True, False], ids=["collected", "zombie"])
def test_a_killed_mount_does_not_run_and_leaves_its_record(mount, runtime, collected):
    process = mount("data", "/mnt/data")
    [record] = registry.mounts()
    assert registry.left() == []
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if collected else os.WNOWAIT))
    assert registry.mounts() == []
    assert registry.find(Path("/mnt/data")) is None
    assert registry.left() == [record]
    registry.forget(record)
    assert registry.left() == []
    assert list(runtime.iterdir()) == []


def test_a_later_mount_with_the_same_pid_is_not_forgotten_with_the_killed_one(runtime):
    registry.register("data", Path("/mnt/data"), started=1.0, config_file=None, shutdown_timeout=90.0)
    [record] = registry.mounts()
    registry.forget(msgspec.structs.replace(record, started=0.5))
    assert registry.mounts() == [record]


def test_a_later_process_with_the_same_pid_is_not_the_mount(runtime):
    registry.register("data", Path("/mnt/data"), started=1.0, config_file=None, shutdown_timeout=90.0)
    path = runtime / f"{os.getpid()}.mount"
    path.write_text(path.read_text().replace(f'"{os.getpid()}-', f'"{os.getpid()}-1'))
    assert registry.mounts() == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"profile": 3}'])
def test_a_file_that_is_no_record_is_passed_over(runtime, content):
    registry.register("data", Path("/mnt/data"), started=1.0, config_file=None, shutdown_timeout=90.0)
    (runtime / "1.mount").write_text(content)
    assert len(registry.mounts()) == 1


def test_L5_the_directory_is_0700(runtime):
    registry.register("data", Path("/mnt/data"), started=1.0, config_file=None, shutdown_timeout=90.0)
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700


def test_root_sees_mounts_of_services_from_a_login_session(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    registry.register("data", Path("/mnt/data"), started=1.0, config_file=None, shutdown_timeout=90.0)
    monkeypatch.delenv("RUNTIME_DIRECTORY")
    monkeypatch.setattr(registry, "SYSTEM_DIRECTORY", tmp_path / "run")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert [record.profile for record in registry.mounts()] == ["data"]


def test_L2_the_end_of_a_mount_does_not_need_its_record(runtime):
    registry.register("data", Path("/mnt"), started=1.0, config_file=None, shutdown_timeout=90.0)
    (runtime / f"{os.getpid()}.mount").unlink()
    runtime.rmdir()
    runtime.touch()  # nothing can be made there, as below /run/user at the end of a login
    registry.unregister()
