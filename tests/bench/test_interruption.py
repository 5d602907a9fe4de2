"""A directory that is removed is never emptied through what is mounted in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.bench.interruption import mountpoints, scratch
from tests.bench.systems.base import is_mounted


def test_a_scratch_directory_is_removed(tmp_path: Path):
    with scratch(tmp_path) as directory:
        (directory / "below").mkdir()
        (directory / "below" / "file").touch()
    assert not directory.exists()


@pytest.mark.mount
@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_what_is_still_mounted_below_is_not_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "object").touch()
    with scratch(tmp_path, "with, a space-") as directory:
        point = directory / "mnt"
        point.mkdir()
        subprocess.run(["mount", "--bind", precious, point], check=True)
    try:
        assert is_mounted(point)
        assert str(point) in mountpoints()
        assert (precious / "object").exists()
        assert str(directory) in capsys.readouterr().err
    finally:
        subprocess.run(["umount", point], check=True)
    assert not is_mounted(point)
