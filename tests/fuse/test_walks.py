"""Walks through trees on a real mount: what the kernel is told with listings, and keeps."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mscfs.fuse.answers import DIRECTORY_BLOCK

pytestmark = pytest.mark.mount


def fill(directory: Path, count: int) -> dict[str, int]:
    directory.mkdir(parents=True)
    sizes = {f"object-{number:05}": number % 50 for number in range(count)}
    for name, size in sizes.items():
        (directory / name).write_bytes(b"x" * size)
    return sizes


def test_a_walk_tells_names_sizes_and_times_of_several_pages(make_mount):
    m = make_mount(metadata_ttl=60)
    sizes = fill(m.store("primary") / "d", 2500)
    os.utime(m.store("primary") / "d/object-00008", (0, 0))
    for _ in range(2):
        with os.scandir(m.path / "d") as entries:
            assert {entry.name: entry.stat().st_size for entry in entries} == sizes
    ours, theirs = (m.path / "d/object-00007").stat(), (m.store("primary") / "d/object-00007").stat()
    assert (ours.st_mtime_ns, ours.st_mode, ours.st_blocks) == (theirs.st_mtime_ns, theirs.st_mode, 1)
    assert (m.path / "d/object-00008").stat().st_mtime_ns == 0
    assert (m.path / "d").stat().st_blksize == DIRECTORY_BLOCK
    assert (m.path / "d/object-00007").stat().st_blksize == 4096


def test_N4_a_number_is_the_same_in_readdir_and_stat_and_after_an_open(make_mount):
    m = make_mount(metadata_ttl=60)
    fill(m.store("primary") / "d", 20)
    with os.scandir(m.path / "d") as entries:
        numbers = {entry.name: entry.inode() for entry in entries}
    for name, number in numbers.items():
        assert (m.path / "d" / name).stat().st_ino == number
        (m.path / "d" / name).read_bytes()
        assert (m.path / "d" / name).stat().st_ino == number


def test_R2_a_name_that_was_missing_is_there_once_it_is_made_here(make_mount):
    m = make_mount(metadata_ttl=60)
    fill(m.store("primary") / "d", 5)
    assert len(os.listdir(m.path / "d")) == 5
    for make in (Path.touch, Path.mkdir, lambda path: path.symlink_to("target")):
        path = m.path / "d" / "new"
        assert not path.exists()
        assert not path.exists()  # the kernel's own answer
        make(path)
        assert path.lstat()
        path.rmdir() if stat.S_ISDIR(path.lstat().st_mode) else path.unlink()
        assert not path.exists()
    (m.path / "d/other").write_bytes(b"1")
    (m.path / "d/other").rename(m.path / "d/new")
    assert (m.path / "d/new").read_bytes() == b"1"
    assert "new" in os.listdir(m.path / "d")


def test_N3_links_in_a_listing_have_the_length_of_their_target(make_mount):
    m = make_mount(metadata_ttl=60)
    (m.store("primary") / "link").symlink_to("some/target")
    assert os.listdir(m.path) == ["link"]
    assert (m.path / "link").lstat().st_size == len("some/target")
    assert (m.path / "link").readlink() == Path("some/target")
