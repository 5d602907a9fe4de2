"""The black box: a real mount with `file` stores, real system calls, a look behind it."""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.fuse.mounting import is_running, tree, wait_until

pytestmark = pytest.mark.mount


def fill(directory: Path) -> dict[str, bytes]:
    content = {
        "small.txt": b"hello\n",
        "empty": b"",
        "deep/er/file.bin": os.urandom(300_000),
        "big.bin": os.urandom(5 << 20),
        "odd name +%20#'\".txt": b"odd",
        "日本語": b"utf-8",
    }
    for name, data in content.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return content


def test_R6_reads_equal_the_primary_and_drain_fills_both_replicas(make_mount):
    m = make_mount(metadata_ttl=0)
    content = fill(m.store("primary"))
    assert tree(m.path) == content
    m.drain()
    assert tree(m.store("near")) == content
    assert tree(m.store("far")) == content


def test_R3_a_second_reader_is_served_by_the_first_replica(make_mount):
    m = make_mount(metadata_ttl=0, page_cache=False)
    fill(m.store("primary"))
    tree(m.path)
    m.drain()
    before = m.status()
    tree(m.path)
    after = m.status()
    assert after["replicas"][0]["hits"] >= before["replicas"][0]["hits"] + 5
    assert after["primary"]["hits"] == before["primary"]["hits"]


def test_W1_W2_a_file_is_on_the_primary_when_close_returns(make_mount):
    m = make_mount(metadata_ttl=0)
    data = os.urandom(3 << 20)
    (m.path / "new").write_bytes(data)
    assert (m.store("primary") / "new").read_bytes() == data
    m.drain()
    assert (m.store("near") / "new").read_bytes() == data
    assert (m.store("far") / "new").read_bytes() == data


def test_R2_R4_an_overwrite_behind_the_mount_is_read_with_its_new_bytes(make_mount):
    m = make_mount(metadata_ttl=0)
    for version in range(5):
        data = bytes([version]) * 100_000  # the same size each time
        (m.store("primary") / "a").write_bytes(data)
        assert (m.path / "a").read_bytes() == data
        m.drain()
    (m.store("primary") / "a").unlink()
    with pytest.raises(FileNotFoundError):
        (m.path / "a").read_bytes()
    assert (m.store("near") / "a").exists()  # deletes are not propagated, and never served


def test_umount_leaves_nothing(make_mount):
    m = make_mount()
    (m.path / "a").write_bytes(b"x")
    pid = m.pid
    m.umount()
    assert not m.is_mounted()
    assert not is_running(pid)
    assert list(m.path.iterdir()) == []
    state = Path(os.environ["XDG_STATE_HOME"]) / "mscfs"
    assert list(state.rglob("staging/*")) == []
    assert list(Path(os.environ["XDG_RUNTIME_DIR"], "mscfs").iterdir()) == []


def test_R1_an_open_file_keeps_its_version_and_the_page_cache_is_not_mixed(make_mount):
    m = make_mount(metadata_ttl=0)
    old, new = b"o" * (4 << 20), b"n" * (4 << 20)
    (m.store("primary") / "a").write_bytes(old)
    with (m.path / "a").open("rb", buffering=0) as before:
        assert before.read(100_000) == old[:100_000]
        (m.store("primary") / "a").write_bytes(new)
        assert (m.path / "a").read_bytes() == new
        before.seek(3 << 20)
        with pytest.raises(OSError) as error:
            before.read(100_000)
        assert error.value.errno == errno.ESTALE
        before.seek(0)
        assert before.read(100_000) == old[:100_000]
    assert (m.path / "a").read_bytes() == new


def test_R2_a_longer_version_is_read_whole(make_mount):
    m = make_mount(metadata_ttl=0)
    (m.store("primary") / "a").write_bytes(b"short")
    assert (m.path / "a").read_bytes() == b"short"
    (m.store("primary") / "a").write_bytes(b"much longer than before" * 1000)
    assert (m.path / "a").stat().st_size == 23000
    assert (m.path / "a").read_bytes() == b"much longer than before" * 1000


def test_W6_every_pattern_of_writes(make_mount):
    m = make_mount(metadata_ttl=0)
    path, behind = m.path / "a", m.store("primary") / "a"
    expected = bytearray(os.urandom(1_000_000))
    path.write_bytes(expected)
    with path.open("r+b") as file:
        file.seek(500_000)
        file.write(b"in the middle")
        expected[500_000:500_013] = b"in the middle"
        file.seek(2_000_000)
        file.write(b"far behind")
        expected.extend(bytes(2_000_000 - len(expected)) + b"far behind")
    assert behind.read_bytes() == expected
    with path.open("ab") as file:
        file.write(b"appended")
    expected.extend(b"appended")
    assert behind.read_bytes() == expected
    with path.open("r+b") as file:
        file.truncate(100)
    os.truncate(path, 200)
    assert behind.read_bytes() == bytes(expected[:100]) + bytes(100)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 200) as shared:
        shared[50:60] = b"mmap bytes"
        shared.flush()
    assert behind.read_bytes() == bytes(expected[:50]) + b"mmap bytes" + bytes(expected[60:100]) + bytes(100)


def test_W6_overwriting_with_less_leaves_nothing_of_the_old_content(make_mount):
    m = make_mount(metadata_ttl=0)
    path, behind = m.path / "a", m.store("primary") / "a"
    path.write_bytes(b"x" * 10_000)
    path.write_bytes(b"short")
    assert path.read_bytes() == behind.read_bytes() == b"short"
    os.close(os.open(path, os.O_WRONLY | os.O_TRUNC))
    assert path.stat().st_size == behind.stat().st_size == 0


def test_W7_temp_write_fsync_chmod_rename(make_mount):
    m = make_mount(metadata_ttl=0)
    for round_ in range(3):
        temporary = m.path / f".tmp{round_}"
        with temporary.open("wb") as file:
            file.write(b"state %d" % round_)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o600)
        os.replace(temporary, m.path / "checkpoint")
        assert (m.store("primary") / "checkpoint").read_bytes() == b"state %d" % round_
    assert os.listdir(m.path) == ["checkpoint"] == os.listdir(m.store("primary"))


def test_W8_an_unlinked_file_is_read_to_its_end(make_mount):
    m = make_mount()
    data = os.urandom(8 << 20)
    (m.store("primary") / "a").write_bytes(data)
    with (m.path / "a").open("rb") as file:
        assert file.read(1000) == data[:1000]
        (m.path / "a").unlink()
        assert os.listdir(m.path) == []
        assert file.read() == data[1000:]
    wait_until(lambda: not (m.store("primary") / "a").exists())


def test_directories_links_and_attributes(make_mount):
    m = make_mount(metadata_ttl=0)
    (m.path / "d/e").mkdir(parents=True)
    (m.path / "d/e/f").write_bytes(b"x")
    with pytest.raises(OSError) as error:
        (m.path / "d").rmdir()
    assert error.value.errno == errno.ENOTEMPTY
    (m.path / "link").symlink_to("d/e/f")
    assert (m.path / "link").read_bytes() == b"x"
    os.utime(m.path / "d/e/f", ns=(1, 1_500_000_000_000_000_001))
    os.chmod(m.path / "d/e/f", 0o640)
    status = (m.path / "d/e/f").stat()
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (1_500_000_000_000_000_001, 0o640)
    with pytest.raises(PermissionError):
        os.link(m.path / "d/e/f", m.path / "hard")
    shutil.move(m.path / "d", m.path / "moved")
    assert (m.path / "moved/e/f").read_bytes() == b"x"
    shutil.rmtree(m.path / "moved")
    assert os.listdir(m.path) == ["link"]


def test_N4_df_shows_the_room_of_the_disk(make_mount):
    m = make_mount()
    here, there = os.statvfs(m.path), os.statvfs(m.store("primary"))
    assert here.f_blocks * here.f_frsize == pytest.approx(there.f_blocks * there.f_frsize, rel=0.01)
    assert here.f_bavail > 0
    assert here.f_namemax == 255


def test_xattrs_tell_where_a_file_is(make_mount):
    m = make_mount(metadata_ttl=0)
    (m.path / "a").write_bytes(b"x")
    m.drain()
    names = os.listxattr(m.path / "a")
    assert "user.mscfs.source" in names
    assert os.getxattr(m.path / "a", "user.mscfs.source") == b"near"
    assert os.getxattr(m.path / "a", "user.mscfs.replicas") == b'{"near": "fresh", "far": "fresh"}'
    assert os.getxattr(m.path / "a", "user.mscfs.key") == b"a"
    with pytest.raises(OSError):
        os.getxattr(m.path / "a", "user.nothing")


def test_L6_an_absent_replica_directory_is_down_and_is_not_made(make_mount):
    m = make_mount(metadata_ttl=0)
    shutil.rmtree(m.store("near"))
    (m.path / "a").write_bytes(b"x")
    (m.store("primary") / "b").write_bytes(b"y")
    assert (m.path / "b").read_bytes() == b"y"
    wait_until(lambda: tree(m.store("far")) == {"a": b"x", "b": b"y"})
    assert not m.store("near").exists()
    near = m.status()["replicas"][0]
    assert near["state"] == "down"
    assert near["pending"] == 1  # of the write; a read back-fills replicas that are healthy (R6)
    m.store("near").mkdir()
    m.drain()
    assert tree(m.store("near")) == {"a": b"x"}


def test_W4_a_killed_mount_loses_no_acknowledged_file_and_no_wish(make_mount):
    m = make_mount(metadata_ttl=0)
    shutil.rmtree(m.store("near"))
    for number in range(20):
        (m.path / f"f{number}").write_bytes(b"%d" % number)
    os.kill(m.pid, signal.SIGKILL)
    m.store("near").mkdir()
    m.mount()  # detaches the dead mountpoint first
    m.drain()
    expected = {f"f{number}": b"%d" % number for number in range(20)}
    assert tree(m.path) == tree(m.store("primary")) == tree(m.store("near")) == tree(m.store("far")) == expected


def test_L2_sigterm_uploads_what_is_dirty(make_mount):
    m = make_mount(metadata_ttl=0)
    pid = m.pid
    with (m.path / "open").open("wb") as file:
        file.write(b"not closed yet")
        file.flush()
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid))
        assert (m.store("primary") / "open").read_bytes() == b"not closed yet"
        os.dup2(os.open("/dev/null", os.O_WRONLY), file.fileno())  # so that closing has nothing to flush
    assert not m.is_mounted()
