"""A real mount whose local disk is full, or taken away: W1, W2, W4, W6, R5."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mscfs.vfs.staging import LEFT_FREE
from tests.fuse.mounting import (
    Mounted,
    file_store,
    tree,
    unmount_whatever_is_left,
    wait_until,
    with_replicas,
    write_config,
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="capability: only root can mount a small disk")

KIB = 1 << 10
MIB = 1 << 20
DISK = 16 * MIB


@pytest.fixture
def disk(isolated_environment: Path) -> Iterator[Path]:
    """The state directory of the mount: a disk of its own, of `DISK` bytes."""
    state = isolated_environment / "state"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=0700", "tmpfs", state], check=True)
    yield state
    subprocess.run(["umount", "--lazy", state], check=True)


@pytest.fixture
def mounted(tmp_path: Path, disk: Path) -> Iterator[Mounted]:
    """A mount with its cache turned on, a `file` primary and a replica; `disk` is full when a test says so."""
    write_config(
        tmp_path,
        {
            "data": {**with_replicas(file_store(tmp_path / "primary"), "near"), "caching_enabled": True},
            "near": file_store(tmp_path / "near"),
        },
        cache={"size": "100M", "location": str(tmp_path / "cache")},
    )
    mounted = Mounted(tmp_path)
    with ExitStack() as stack:
        stack.callback(unmount_whatever_is_left, mounted)
        mounted.mount()
        yield mounted


def fill(disk: Path, leave: int) -> Path:
    """Take all room of a disk but so many bytes, while the mount goes on to write there."""
    filler = disk / "filler"
    filler.unlink(missing_ok=True)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while (room := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - leave) > 0:
            file.write(bytes(room))
    return filler


def write(path: Path, content: bytes) -> int:
    """Write a file as programs do; returns the errno of the first call that failed, or 0."""
    try:
        with path.open("wb", buffering=0) as file:
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
    except OSError as error:
        return error.errno or -1
    return 0


def test_W6_no_room_for_staging_is_enospc_at_write_and_nothing_is_corrupt(mounted, disk):
    (mounted.path / "old").write_bytes(b"old content")
    piece, written = b"x" * 128 * KIB, 0
    with (mounted.path / "large").open("wb", buffering=0) as file:
        while written < 2 * DISK:
            try:
                written += file.write(piece)
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017
                break
        assert 0 < written < DISK
    assert (mounted.store("primary") / "large").read_bytes() == b"x" * written
    assert (mounted.path / "old").read_bytes() == b"old content"
    assert write(mounted.path / "next", b"n" * MIB) == 0
    assert (mounted.store("primary") / "next").read_bytes() == b"n" * MIB


def test_W1_W2_W4_whatever_has_no_room_close_tells_the_truth_and_the_mount_lives_on(mounted, disk):
    """The disk has room for less and less: for the staging file, its log, the journal or none of them."""
    (mounted.path / "old").write_bytes(b"old")
    held = {"old": b"old"}
    outcomes = set()
    for leave in (LEFT_FREE + 64 * KIB, LEFT_FREE + 4 * KIB, LEFT_FREE, 16 * KIB, 0):
        filler = fill(disk, leave)
        for name in (f"new-{leave}", "old"):
            content = name.encode() * 1000 + str(leave).encode()
            outcome = write(mounted.path / name, content)
            outcomes.add(outcome)
            present = tree(mounted.store("primary")).get(name)
            if outcome == 0:
                assert present == content  # W1
            else:
                # W3: as before; truncated, as open() was told; or whole, when only its wishes had no room (W2).
                assert present in {held.get(name), b"", content}
            if present is not None:
                held[name] = present
                # Once it is released, whoever opens it gets what the primary holds.
                wait_until(lambda path=mounted.path / name, present=present: path.read_bytes() == present)
        filler.unlink()
    assert outcomes == {0, errno.ENOSPC}
    assert write(mounted.path / "after", b"after") == 0
    held["after"] = b"after"
    mounted.umount()
    mounted.mount()
    for name, content in held.items():
        assert (mounted.path / name).read_bytes() == content
    mounted.drain()
    assert tree(mounted.store("near")) == tree(mounted.store("primary"))


def is_removed(directory: Path) -> bool:
    """A chunk may just be written there, which gets into the way."""
    shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def test_R5_a_cache_directory_that_is_deleted_while_mounted_costs_nothing_but_speed(mounted):
    content = os.urandom(3 * MIB)
    for name in ("before", "after"):
        (mounted.store("primary") / name).write_bytes(content)
    assert (mounted.path / "before").read_bytes() == content
    wait_until(lambda: is_removed(mounted.root / "cache"))
    assert (mounted.path / "after").read_bytes() == content
    Path("/proc/sys/vm/drop_caches").write_text("1")
    assert (mounted.path / "before").read_bytes() == content
    assert write(mounted.path / "new", content) == 0
    assert (mounted.store("primary") / "new").read_bytes() == content
