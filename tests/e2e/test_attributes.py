"""What a program sets on files and directories is there after a remount, and for tools that look at the store (W9)."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, with_replicas, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

SERVERS = {"s3": "s3_server", "gcs": "gcs_server", "azure": "azure_server"}


@pytest.fixture(params=["file", "s3", "gcs", "azure"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted]:
    server = request.getfixturevalue(SERVERS[request.param]) if request.param in SERVERS else None
    primary = server.new_bucket() if server is not None else file_store(tmp_path / "primary")
    kept = {"mscfs": {"preserve_attributes": True}}
    write_config(tmp_path, {"data": with_replicas(primary, "near") | kept, "near": file_store(tmp_path / "near")})
    m = Mounted(tmp_path)
    m.mount()
    yield m
    unmount_whatever_is_left(m)


def described(root: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory: mode, owner, time of files, and extended attributes."""
    found = {}
    for path in sorted(root.rglob("*")):
        told = path.lstat()
        xattrs = {name: os.getxattr(path, name) for name in os.listxattr(path) if not name.startswith("user.mscfs.")}
        is_file = stat.S_ISREG(told.st_mode)
        time = told.st_mtime_ns if is_file or path.name == "dir" else None
        found[str(path.relative_to(root))] = oct(told.st_mode), told.st_uid, told.st_gid, time, xattrs
    return found


def test_W9_attributes_and_xattrs_outlive_a_mount(mounted: Mounted, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "dir" / "deep").mkdir(parents=True)
    for number, path in enumerate(["a", "b", "dir/c", "dir/deep/d", "empty"]):
        file = source / path
        file.write_bytes(b"x" * number if path != "empty" else b"")
        file.chmod(0o600 + number)
        os.chown(file, 1000 + number, 2000 + number)
        os.setxattr(file, "user.number", str(number).encode())
        os.utime(file, ns=(0, 1_000_000_000_123_456_789 + number))
    (source / "dir").chmod(0o710)
    os.setxattr(source / "dir", "user.dir", b"\0\xff")
    os.utime(source / "dir", ns=(0, 1_200_000_000_000_000_000))
    subprocess.run(["cp", "-a", f"{source}/.", mounted.path], check=True, timeout=60)
    assert described(mounted.path) == described(source)
    # What is set after the close, and what is renamed meanwhile.
    for root in (source, mounted.path):
        (root / "a").chmod(0o640)
        os.utime(root / "a", ns=(0, 1_300_000_000_000_000_001))
        os.removexattr(root / "a", "user.number")
        (root / "b").chmod(0o444)
        (root / "b").rename(root / "dir" / "renamed")
        os.utime(root / "dir", ns=(0, 1_200_000_000_000_000_000))
    mounted.umount()
    mounted.mount()
    assert described(mounted.path) == described(source)
    mounted.drain()
    assert [os.getxattr(mounted.path / name, "user.mscfs.replicas") for name in ("a", "dir/c")] == [
        b'{"near": "fresh"}'
    ] * 2
