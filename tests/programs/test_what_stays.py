"""After all programs of a mount have run (this module is the last of the package)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuse.mounting import Mounted
from tests.programs.places import on_two, tree

pytestmark = [pytest.mark.mount, pytest.mark.emulator]


@on_two
def test_W1_W2_what_programs_left_is_there_after_a_remount_and_on_the_replica(mounted: Mounted):
    before = tree(mounted.path)
    assert before
    assert not [line for line in log(mounted) if " WARNING " in line or " ERROR " in line]
    mounted.drain()
    assert mounted.status()["replicas"][0]["pending"] == 0
    mounted.umount()
    mounted.mount()
    after = tree(mounted.path)
    contents = [{path: told[2] for path, told in files.items() if told[0] == "file"} for files in (before, after)]
    assert contents[0] == contents[1]
    for kind in ("link", "directory"):
        names = [{path for path, told in files.items() if told[0] == kind} for files in (before, after)]
        assert names[0] == names[1]


def log(mounted: Mounted) -> list[str]:
    [path] = (mounted.root / "home").glob("**/*.log")
    return Path(path).read_text().splitlines()
