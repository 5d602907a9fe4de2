"""A real mount whose primary goes away and comes back, and one that starts meanwhile: R8, W4."""

from __future__ import annotations

import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuse.mounting import Mounted, mscfs, prepare, tree, unmount_whatever_is_left, wait_until

pytestmark = pytest.mark.mount


@pytest.fixture
def m(tmp_path: Path) -> Iterator[Mounted]:
    mounted = prepare(tmp_path, metadata_ttl=1)
    yield mounted
    unmount_whatever_is_left(mounted)


def take_away(m: Mounted) -> None:
    m.store("primary").rename(m.root / "away")


def bring_back(m: Mounted) -> None:
    (m.root / "away").rename(m.store("primary"))


def refused_at_close(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.write(descriptor, content)
    with pytest.raises(OSError) as error:
        os.close(descriptor)
    assert error.value.errno == errno.EIO


def test_R8_W4_an_outage_from_its_beginning_over_a_remount_to_its_end(m: Mounted) -> None:
    m.mount()
    for name in ("a", "b", "d/c"):
        (m.path / name).parent.mkdir(exist_ok=True)
        (m.path / name).write_text(name)
    m.drain()
    (m.path / "b").write_text("newer than the replicas' copies")
    assert sorted(os.listdir(m.path)) == ["a", "b", "d"]
    assert os.listdir(m.path / "d") == ["c"]
    take_away(m)
    wait_until(lambda: os.listdir(m.path) and m.status()["state"] == "degraded")
    time.sleep(1.1)  # what the kernel was told is over
    read_all(m)
    refused_at_close(m.path / "written", b"in the outage")
    m.umount()

    m.mount()
    wait_until(lambda: m.status()["state"] == "degraded")
    read_all(m)
    refused_at_close(m.path / "also", b"after the remount")
    with pytest.raises(OSError) as error:
        os.open(m.path / "exclusive", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    assert error.value.errno == errno.EIO
    (m.root / "away" / "elsewhere").write_text("made elsewhere")
    bring_back(m)
    began = time.monotonic()
    wait_until(lambda: m.status()["state"] == "healthy", 10)
    wait_until((m.path / "elsewhere").exists, 10 - (time.monotonic() - began))
    assert (m.path / "elsewhere").read_text() == "made elsewhere"
    (m.path / "normal").write_text("as ever")
    assert (m.path / "b").read_text() == "newer than the replicas' copies"
    log = "".join(path.read_text() for path in Path(os.environ["XDG_STATE_HOME"], "mscfs/log").iterdir())
    assert log.count("degraded, the primary data is down") == 2
    assert "the primary data is back" in log
    m.umount()

    m.mount()
    wait_until(lambda: {"also", "written"} <= set(tree(m.store("primary"))))
    assert tree(m.store("primary"))["written"] == b"in the outage"
    assert (m.path / "also").read_bytes() == b"after the remount"
    m.drain()
    assert tree(m.store("near")) == tree(m.store("primary"))


def test_R2_R8_the_kernel_forgets_what_it_was_told_of_a_file_that_failed(tmp_path: Path) -> None:
    """Told before the outage was noticed: it would believe that for a minute."""
    m = prepare(tmp_path, metadata_ttl=60)
    try:
        m.mount()
        (m.path / "d").mkdir()
        for name in ("replaced", "d/replaced"):
            (m.path / name).write_text("old")
        m.drain()
        take_away(m)
        for name in ("new", "d/new", "replaced", "d/replaced"):
            refused_at_close(m.path / name, b"in the outage")
            shows(m.path / name, None if name.endswith("new") else b"old")
        bring_back(m)
        for name in ("new", "d/new", "replaced", "d/replaced"):
            wait_until(lambda name=name: tree(m.store("primary")).get(name) == b"in the outage", 40)
            shows(m.path / name, b"in the outage")
            assert (m.path / name).stat().st_nlink == 1
        m.umount()
    finally:
        unmount_whatever_is_left(m)


def shows(path: Path, content: bytes | None) -> None:
    """A name soon stands for this content, or for nothing."""

    def is_shown() -> bool:
        try:
            return path.read_bytes() == content
        except FileNotFoundError:
            return content is None
        except OSError:
            return False  # ESTALE: opened by what the kernel was told before

    wait_until(is_shown, 20)


def test_L6_R8_the_disk_of_the_primary_is_unmounted_and_its_mountpoint_is_empty(m: Mounted) -> None:
    """It is an outage: nobody deleted anything, and nothing is written to the mountpoint."""
    base = m.store("primary")
    base.rmdir()
    (m.root / "mountpoint").mkdir()

    def lead_to(place: str | Path) -> None:
        base.unlink(missing_ok=True)
        base.symlink_to(place)

    with tempfile.TemporaryDirectory(dir="/dev/shm") as disk:
        lead_to(disk)
        m.mount()
        for name in ("a", "b"):
            (m.path / name).write_text(name)
        m.drain()
        lead_to(m.root / "mountpoint")
        time.sleep(1.1)  # what the kernel was told is over
        wait_until(lambda: m.status()["state"] == "degraded")
        assert sorted(os.listdir(m.path)) == ["a", "b"]
        assert (m.path / "a").read_text() == "a"
        refused_at_close(m.path / "written", b"in the outage")
        done = mscfs("sync-replicas", "data", "--delete-unmatched-files", "--config", m.config, check=False)
        assert done.returncode != 0
        assert "is the disk mounted?" in done.stderr
        m.umount()
        m.mount()
        assert sorted(os.listdir(m.path)) == ["a", "b"]
        assert (m.path / "b").read_text() == "b"
        assert tree(m.store("near")) == {"a": b"a", "b": b"b"}
        lead_to(disk)
        wait_until(lambda: "written" in os.listdir(disk))
        assert sorted(os.listdir(m.path)) == ["a", "b", "written"]
        assert not os.listdir(m.root / "mountpoint")
        m.umount()


def read_all(m: Mounted) -> None:
    assert sorted(os.listdir(m.path)) == ["a", "b", "d"]
    assert (m.path / "a").read_text() == "a"
    assert (m.path / "d" / "c").read_text() == "d/c"
    assert (m.path / "b").stat().st_size == len("newer than the replicas' copies")
    with pytest.raises(FileNotFoundError):
        (m.path / "absent").stat()


def test_R8_a_primary_that_never_was_there_is_a_mistake_and_no_outage(m: Mounted) -> None:
    m.store("primary").rmdir()
    m.path.mkdir()
    done = mscfs("mount", "--config", m.config, "data", m.path, check=False)
    assert done.returncode != 0
    assert "create it, or correct base_path" in done.stderr
    assert not m.is_mounted()
