import os
import threading
from pathlib import Path

import pytest

from mscfs.cli import preflight
from mscfs.config.load import parse_config
from mscfs.errors import MountError
from mscfs.fuse.mounts import Mounted


@pytest.fixture
def mounted(monkeypatch):
    """Pretend that something is mounted, and in which state."""
    gone = []

    def pretend(path, kind, state="answers"):
        monkeypatch.setattr(preflight, "real_path", lambda asked: asked)
        monkeypatch.setattr(
            preflight,
            "mounted_at",
            lambda asked: Mounted(path, kind, "x", "0:50") if asked == path and path not in gone else None,
        )
        monkeypatch.setattr(preflight, "probe", lambda asked, timeout: state)
        monkeypatch.setattr(preflight, "unmount", lambda asked, lazy: gone.append(asked))
        return gone

    return pretend


def test_L1_no_fuse_device(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "FUSE_DEVICE", tmp_path / "fuse")
    with pytest.raises(MountError, match=r"fuse is not there: load the module with `modprobe fuse`; in a container"):
        preflight.check_fuse(allow_other=False)


def test_L1_fuse_device_not_permitted(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "FUSE_DEVICE", tmp_path / "directory")
    (tmp_path / "directory").mkdir()
    with pytest.raises(MountError, match=r"cannot be opened \(Is a directory\): mount as root"):
        preflight.check_fuse(allow_other=False)


def test_L1_no_fusermount3_for_somebody_who_needs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(preflight, "FUSE_DEVICE", Path("/dev/null"))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MountError, match="install the package fuse3"):
        preflight.check_fuse(allow_other=False)


@pytest.mark.parametrize("content", [None, "", "# user_allow_other\n"])
def test_L1_allow_other_not_allowed(tmp_path, monkeypatch, content):
    monkeypatch.setattr(preflight, "FUSE_DEVICE", Path("/dev/null"))
    monkeypatch.setattr(preflight, "FUSE_CONFIG", tmp_path / "fuse.conf")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(preflight.shutil, "which", lambda name: f"/usr/bin/{name}")
    if content is not None:
        (tmp_path / "fuse.conf").write_text(content)
    with pytest.raises(MountError, match="`user_allow_other` in"):
        preflight.check_fuse(allow_other=True)
    preflight.check_fuse(allow_other=False)
    (tmp_path / "fuse.conf").write_text("mount_max = 10\nuser_allow_other\n")
    preflight.check_fuse(allow_other=True)


def test_L1_root_without_the_right_to_mount(monkeypatch):
    monkeypatch.setattr(preflight, "FUSE_DEVICE", Path("/dev/null"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(preflight, "_may_mount", lambda: False)
    with pytest.raises(MountError, match="--cap-add SYS_ADMIN"):
        preflight.check_fuse(allow_other=False)


def test_L1_no_such_directory(tmp_path):
    with pytest.raises(MountError, match=r"none does not exist: make it with `mkdir -p .*none`"):
        preflight.check_mountpoint(tmp_path / "none")


def test_L1_a_file_is_no_mountpoint(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(MountError, match="file is not a directory"):
        preflight.check_mountpoint(tmp_path / "file")
    with pytest.raises(MountError, match="cannot be used: Not a directory"):
        preflight.check_mountpoint(tmp_path / "file" / "below")


def test_L1_a_directory_of_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(MountError, match="is not writable for you"):
        preflight.check_mountpoint(tmp_path)


@pytest.mark.parametrize("state", ["answers", "hangs"])
def test_L1_a_mount_that_lives_is_left_alone(tmp_path, mounted, state):
    gone = mounted(tmp_path, "fuse.mscfs", state)
    with pytest.raises(MountError, match=r"is already mounted \(by another user\): run `mscfs umount "):
        preflight.check_mountpoint(tmp_path)
    assert gone == []


def test_L1_a_mount_of_another_kind_is_left_alone_even_dead(tmp_path, mounted):
    gone = mounted(tmp_path, "fuse.sshfs", "dead")
    with pytest.raises(MountError, match=r"is already a mount point \(fuse.sshfs\)"):
        preflight.check_mountpoint(tmp_path)
    assert gone == []


def test_L1_an_automount_point_is_refused_with_what_to_do(tmp_path, mounted):
    gone = mounted(tmp_path, "autofs", "answers")
    with pytest.raises(MountError, match=r"is an automount point, .* leave `x-systemd.automount` out"):
        preflight.check_mountpoint(tmp_path)
    assert gone == []


def test_L1_what_a_killed_mount_left_is_detached(tmp_path, mounted):
    gone = mounted(tmp_path, "fuse.mscfs", "dead")
    assert preflight.check_mountpoint(tmp_path) == tmp_path
    assert gone == [tmp_path]


def test_a_mount_does_not_hide_what_it_works_with(tmp_path):
    base = tmp_path / "mount" / "replica"
    config = parse_config(
        {
            "profiles": {
                "data": {
                    "storage_provider": {"type": "file", "options": {"base_path": str(tmp_path / "primary")}},
                    "replicas": [{"replica_profile": "copy", "read_priority": 1}],
                },
                "copy": {"storage_provider": {"type": "file", "options": {"base_path": str(base)}}},
            }
        }
    )
    with pytest.raises(MountError, match="would hide the files of profile 'copy'"):
        preflight.check_own_directories(config, "data", tmp_path / "mount")
    with pytest.raises(MountError, match="would hide the files of profile 'data'"):
        preflight.check_own_directories(config, "data", tmp_path / "primary")
    with pytest.raises(MountError, match=r"would hide .*state, where mscfs works"):
        preflight.check_own_directories(config, "data", tmp_path / "other", tmp_path / "other" / "state")
    preflight.check_own_directories(config, "data", tmp_path / "other", tmp_path / "state")


def test_L1_R8_the_directory_of_a_store_that_is_silent_holds_up_no_mount(tmp_path, monkeypatch):
    config = parse_config(
        {"profiles": {"data": {"storage_provider": {"type": "file", "options": {"base_path": str(tmp_path / "nfs")}}}}}
    )
    released = threading.Event()
    monkeypatch.setattr(preflight.os.path, "realpath", lambda path: released.wait() and path)
    monkeypatch.setattr(preflight, "_PROBE_TIMEOUT", 0.01)
    try:
        preflight.check_own_directories(config, "data", tmp_path / "mount")
        with pytest.raises(MountError, match="would hide the files of profile 'data'"):
            preflight.check_own_directories(config, "data", tmp_path)
    finally:
        released.set()
