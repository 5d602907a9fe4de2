import os
import tempfile
from pathlib import Path

import pytest

from mscfs import directories
from mscfs.errors import MscfsError


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    for name in ("STATE_DIRECTORY", "CACHE_DIRECTORY", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_L1_relative_places_are_not_used_for_a_daemon_works_elsewhere(tmp_path, monkeypatch):
    for name in ("XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, "relative")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setattr(directories, "private", lambda path: path)
    assert directories.state_directory() == tmp_path / "home/.local/state/mscfs"
    assert directories.cache_directory() == tmp_path / "home/.cache/mscfs"
    assert directories.runtime_directory() == tmp_path / "mscfs-4711"


def test_L1_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    def unknown(self):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)
    with pytest.raises(MscfsError, match="set HOME or XDG_STATE_HOME"):
        directories.state_directory()


def test_L5_a_link_that_somebody_left_in_the_temporary_directory_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    ours = tmp_path / "ours"
    ours.mkdir(mode=0o755)
    (tmp_path / "mscfs-4711").symlink_to(ours)
    with pytest.raises(PermissionError, match="symbolic link"):
        directories.runtime_directory()
    assert ours.stat().st_mode & 0o777 == 0o755


def test_a_file_that_cannot_be_written_leaves_no_draft(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        directories.write_private(tmp_path / "file", "text")
    assert list(tmp_path.iterdir()) == []
