"""Replicas that are directories: what other programs do to their files, modes and times, disks that are not there."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from mscfs.errors import StoreMissingError
from mscfs.providers import file_reader
from mscfs.providers.file import FileProvider
from mscfs.providers.file_reader import FileReader
from mscfs.types import ByteRange, Version
from tests.replicas.stores import Stores, content

BODY = b"0123456789"
SECOND = 1_000_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    disk = tmp_path / "disk"
    disk.mkdir()
    return disk


@pytest.fixture
def stores(tmp_path: Path, disk: Path) -> Stores:
    """The primary is in memory, the replica `one` a directory."""
    return Stores(
        tmp_path, names=("one",), inner={"one": FileProvider(profile="one", options={"base_path": str(disk)})}
    )


@pytest.fixture
def files(tmp_path: Path, disk: Path) -> Stores:
    """Primary and replica are directories."""
    (tmp_path / "primary").mkdir()
    return Stores(
        tmp_path,
        names=("one",),
        inner={
            "primary": FileProvider(profile="primary", options={"base_path": str(tmp_path / "primary")}),
            "one": FileProvider(profile="one", options={"base_path": str(disk)}),
        },
    )


def test_R4_a_copy_made_here_is_fresh(stores: Stores) -> None:
    stores.everywhere("d/k")
    assert stores.served_by("d/k") == "one"
    stores.primary.inner.put("d/k", b"ABCDEFGHIJ")
    assert stores.read("d/k") == b"ABCDEFGHIJ"


def test_R4_a_copy_changed_in_place_by_another_program_is_stale(stores: Stores, disk: Path) -> None:
    version = stores.everywhere().version
    with (disk / "k").open("r+b") as file:
        file.write(b"XX")
    for expected in (version, None):
        with stores.manager.get("k", expected=expected) as reader:
            assert reader.read_all() == BODY
            assert reader.stale == ("one",)
    stores.carry_out()
    assert (disk / "k").read_bytes() == BODY
    assert stores.served_by() == "one"


def test_R4_also_while_the_primary_is_down(stores: Stores, disk: Path) -> None:
    version = stores.everywhere().version
    with (disk / "k").open("r+b") as file:
        file.write(b"XX")
    stores.primary.go_down()
    assert stores.manager.head("k").version != version, "it is not the primary's content"


def test_R1_a_copy_changed_in_place_while_it_is_read_is_no_mixture(stores: Stores, disk: Path) -> None:
    body = bytes(range(256)) * (4 << 12)
    stores.everywhere(content=body)
    with stores.manager.get("k") as reader:
        pieces = iter(reader)
        received = [bytes(next(pieces))]
        assert reader.source == "one"
        with (disk / "k").open("r+b") as file:
            file.seek(len(body) - 1000)
            file.write(b"X" * 1000)
        received += [bytes(piece) for piece in pieces]
        assert b"".join(received) == body
        assert reader.source == "primary"


def test_R4_another_tools_copy_serves_unless_it_is_older(stores: Stores, disk: Path) -> None:
    version = stores.primary.inner.put("k", BODY).version
    (disk / "k").write_bytes(BODY)
    os.utime(disk / "k", ns=(0, version.modified_ns))
    assert stores.served_by(expected=version) == "one"
    os.utime(disk / "k", ns=(0, version.modified_ns - 1))
    assert stores.served_by(expected=version) == "primary"


def test_R4_without_extended_attributes_copies_are_judged_by_time(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise OSError(95, "not supported")

    for call in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.setattr(os, call, refuse)
    stores.everywhere()
    assert stores.served_by() == "one"
    stores.primary.inner.put("k", b"ABCDEFGHIJ")
    assert stores.read() == b"ABCDEFGHIJ"
    stores.carry_out()
    assert stores.served_by() == "one"
    assert stores.step().outcome == "fresh"


def test_modes_and_times_are_kept(files: Stores, disk: Path) -> None:
    files.primary.inner.put("k", BODY)
    files.primary.inner.set_posix_attributes("k", mode=0o751, modified_ns=1_500_000_000 * SECOND + 7)
    files.step()
    status = (disk / "k").stat()
    assert stat.S_IMODE(status.st_mode) == 0o751
    assert status.st_mtime_ns == 1_500_000_000 * SECOND + 7
    assert files.served_by() == "one"


def test_a_new_mode_reaches_the_replica_without_the_bytes(files: Stores, disk: Path) -> None:
    files.everywhere()
    files.manager.set_posix_attributes("k", mode=0o600)
    files.carry_out()
    assert stat.S_IMODE((disk / "k").stat().st_mode) == 0o600
    assert files.one.called("put") == 0


def test_a_new_time_reaches_the_replica(files: Stores, disk: Path) -> None:
    files.everywhere()
    files.manager.set_posix_attributes("k", modified_ns=1_500_000_000 * SECOND)
    assert files.read() == BODY
    files.carry_out()
    assert (disk / "k").stat().st_mtime_ns == 1_500_000_000 * SECOND
    assert files.served_by() == "one"


def test_symlinks_and_directories_are_copied_as_such(files: Stores, disk: Path) -> None:
    files.manager.make_directory("d/e/")
    files.manager.make_symlink("d/link", "../elsewhere")
    files.carry_out()
    assert (disk / "d/e").is_dir()
    assert os.readlink(disk / "d/link") == "../elsewhere"
    assert files.step(key="d/link").outcome == "fresh"


def test_N3_names_that_are_not_utf8(files: Stores, disk: Path) -> None:
    key = os.fsdecode(b"a\xff\xfe")
    files.manager.put(key, BODY)
    files.carry_out()
    assert os.listdir(os.fsencode(disk)) == [b"a\xff\xfe"]
    assert files.served_by(key) == "one"


def test_two_copies_with_hard_links_are_replaced_and_not_written_through(stores: Stores, disk: Path) -> None:
    """A link made by somebody (a backup) must keep the old content."""
    stores.everywhere()
    os.link(disk / "k", disk.parent / "backup")
    stores.primary.inner.put("k", b"ABCDEFGHIJ")
    stores.step()
    assert (disk.parent / "backup").read_bytes() == BODY
    assert (disk / "k").read_bytes() == b"ABCDEFGHIJ"


class TestAbsentDisk:
    def test_L6_it_is_down_and_not_created_and_comes_back_by_itself(self, stores: Stores, disk: Path) -> None:
        stores.everywhere()
        disk.rename(disk.parent / "unmounted")
        assert stores.served_by() == "primary"
        assert not stores.manager.replicas[0].health.healthy
        stores.manager.put("new", b"1")
        with pytest.raises(StoreMissingError):
            stores.step(key="new")
        assert not disk.exists()
        assert stores.wishes() == {("one", "new", "replicate")}
        (disk.parent / "unmounted").rename(disk)
        stores.clock.now += 60
        assert stores.served_by() == "one"
        stores.carry_out()
        assert (disk / "new").read_bytes() == b"1"

    def test_L6_an_absent_primary_is_down_too(self, files: Stores, tmp_path: Path) -> None:
        files.everywhere()
        (tmp_path / "primary").rename(tmp_path / "unmounted")
        assert files.read() == BODY
        assert [entry.key for entry in files.manager.list()] == ["k"]
        with pytest.raises(StoreMissingError):
            files.manager.put("k", b"1")
        assert not (tmp_path / "primary").exists()
        (tmp_path / "unmounted").rename(tmp_path / "primary")
        files.clock.now += 60
        files.manager.put("k", b"1")
        assert files.read() == b"1"

    def test_L6_an_empty_directory_in_its_place_is_a_replica_that_lacks_everything(
        self, stores: Stores, disk: Path
    ) -> None:
        stores.everywhere()
        shutil.rmtree(disk)
        disk.mkdir()
        assert stores.served_by() == "primary"
        assert stores.wishes() == {("one", "k", "back-fill")}


def test_R7_ranges_of_a_large_sparse_file(files: Stores, tmp_path: Path) -> None:
    with (tmp_path / "primary" / "k").open("wb") as file:
        file.seek(100 << 30)
        file.write(b"end")
    version = files.manager.head("k").version
    assert files.read(byte_range=ByteRange((100 << 30) - 1, 4), expected=version) == b"\0end"
    assert files.primary.served == 4
    assert content(files.one) is None


def test_R5_a_file_whose_server_lost_it_while_it_is_read_is_read_elsewhere(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes may come from this machine's memory: then the question whether they are still right is what fails."""
    stores.everywhere()

    def lost(_: os.stat_result) -> Version:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr(file_reader, "version_of", lost)
    with stores.manager.get("k") as reader:
        assert reader.source == "one"
        assert reader.read_all() == BODY
        assert reader.source == "primary"


def test_R5_what_was_read_counts_when_the_file_cannot_be_closed(files: Stores) -> None:
    files.everywhere()
    with files.one.inner.get("k") as reader:
        assert isinstance(reader, FileReader)
        assert reader.read_all() == BODY
        os.close(reader.descriptor)
