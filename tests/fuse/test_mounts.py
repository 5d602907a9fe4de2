import os
from pathlib import Path

import pytest

from mscfs.fuse import mounts


@pytest.fixture
def table(monkeypatch):
    def pretend(*lines):
        monkeypatch.setattr(mounts, "_table", lambda: [mounts._parse(line) for line in lines])

    return pretend


DATA = b"36 35 0:50 / /mnt/data rw,nosuid,nodev shared:7 master:1 - fuse.mscfs training rw,user_id=0"
ODD = rb"37 35 0:51 / /mnt/with\040space\134caf" + b"\xe9" + rb" rw - ext4 /dev/sda1 rw"


def test_the_table_of_this_machine():
    assert mounts.mounted_at(Path("/proc")).type == "proc"


def test_a_line_with_optional_fields(table):
    table(DATA)
    entry = mounts.mounted_at(Path("/mnt/data"))
    assert (entry.type, entry.source, entry.device) == ("fuse.mscfs", "training", "0:50")
    assert mounts.mounted_at(Path("/mnt")) is None


def test_N3_names_with_spaces_backslashes_and_other_encodings(table):
    table(ODD)
    assert mounts.mounted_at(Path(os.fsdecode(b"/mnt/with space\\caf\xe9"))).type == "ext4"


def test_the_topmost_mount_counts(table):
    table(DATA, DATA.replace(b"fuse.mscfs", b"tmpfs"))
    assert mounts.mounted_at(Path("/mnt/data")).type == "tmpfs"
