"""All that a mount and the command line make for themselves is for their owner alone, whatever the umask (L5)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, with_replicas, write_config

pytestmark = pytest.mark.mount


@pytest.fixture
def m(tmp_path: Path) -> Iterator[Mounted]:
    """A mount with everything that leaves files behind, made by somebody who lets everybody read and write."""
    before = os.umask(0)
    try:
        primary = with_replicas(file_store(tmp_path / "primary"), "near") | {"caching_enabled": True}
        write_config(tmp_path, {"data": primary, "near": file_store(tmp_path / "near")}, cache={"size": "1G"})
        mounted = Mounted(tmp_path)
        mounted.mount()
        yield mounted
        unmount_whatever_is_left(mounted)
    finally:
        os.umask(before)


def test_L5_everything_made_is_for_the_owner_alone(m: Mounted, isolated_environment: Path) -> None:
    (m.store("primary") / "elsewhere").write_bytes(b"1" * 3_000_000)
    assert (m.path / "elsewhere").read_bytes() == b"1" * 3_000_000
    (m.path / "here").write_text("here")
    with (m.path / "open").open("w") as unclosed:
        unclosed.write("staged")
        unclosed.flush()
        m.drain()
        for command in ("status", "where"):
            m.mscfs(command, m.path if command == "status" else m.path / "here")
        config = ("--config", m.config)
        m.mscfs("recover", "list", "data", *config)
        m.mscfs("sync-replicas", "data", *config)
        look(isolated_environment)
    m.umount()
    look(isolated_environment)


def look(home: Path) -> None:
    """At each file, directory and socket in the places of state, cache and runtime."""
    found = {}
    for place in ("state", "cache", "run"):
        for path in (home / place / "mscfs").rglob("*"):
            status = path.lstat()
            found[str(path.relative_to(home))] = stat.filemode(status.st_mode)
            if not stat.S_ISSOCK(status.st_mode):
                continue
            assert stat.S_IMODE(status.st_mode) == 0o600
    kinds = {name.rpartition(".")[2] for name in found}
    assert {"log", "db"} <= kinds, found
    assert any(name.startswith("cache/") for name in found), found
    open_to_others = {name: mode for name, mode in found.items() if mode[4:] != "------"}
    assert open_to_others == {}
