"""However a mount ends under programs that use it: bounded, nothing acknowledged lost, nothing half-written (L2)."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from mscfs.fuse import session
from tests.fuse.mounting import (
    Mounted,
    file_store,
    is_running,
    prepare,
    tree,
    unmount_whatever_is_left,
    wait_until,
    write_config,
)  # fmt: skip
from tests.fuse.writer import content, is_state_of

pytestmark = pytest.mark.mount

ROOT = Path(__file__).parents[2]
LONGEST = 60.0
"""Seconds for what takes one on an idle machine."""
REFUSED = {errno.ESHUTDOWN, errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT}
"""What a call is told by a mount that ends, has ended, or is detached."""
SIZES = {"small": 10_000, "more": 300_000, "large": 20 << 20}
"""The large ones are sent while they are written."""


@dataclass
class Told:
    """What one writer recorded: the number last acknowledged for each key, and the key that failed with its errno."""

    acknowledged: dict[str, int]
    failed: str = ""
    number: int = 0


class Writers:
    """Three programs that write; `told` is what they say now."""

    def __init__(self, m: Mounted) -> None:
        self._records = {name: m.root / f"{name}.record" for name in SIZES}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.fuse.writer", m.path, self._records[name], name, str(size)], cwd=ROOT
            )
            for name, size in SIZES.items()
        ]
        wait_until(lambda: all(len(told.acknowledged) > 1 for told in self.told().values()), LONGEST)

    def told(self) -> dict[str, Told]:
        result = {}
        for name, record in self._records.items():
            told = result[name] = Told({})
            for line in record.read_text().splitlines() if record.exists() else ():
                how, key, number = line.split()
                if how == "ok":
                    told.acknowledged[key] = int(number)
                else:
                    told.failed, told.number = key, int(number)
        return result

    def go_on(self) -> None:
        """Return when each has had more acknowledged, or was refused."""
        before = self.told()
        wait_until(
            lambda: all(
                told.failed or told.acknowledged != before[name].acknowledged for name, told in self.told().items()
            ),
            LONGEST,
        )

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()

    def join(self) -> dict[str, Told]:
        for process in self._processes:
            assert process.wait(LONGEST) == 0
        return self.told()

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


@contextmanager
def writing(m: Mounted) -> Iterator[Writers]:
    writers = Writers(m)
    try:
        yield writers
    finally:
        writers.kill()


def check(held: dict[str, bytes], writers: dict[str, Told]) -> None:
    """Everything acknowledged is there and whole; a file whose writer was refused may be as far as it had got."""
    assert all(told.acknowledged for told in writers.values())
    for name, told in writers.items():
        for key, number in told.acknowledged.items():
            assert key in held
            if key != told.failed:
                assert held[key] == content(name, number, SIZES[name]), key
    refused = {told.failed for told in writers.values()}
    for key, data in held.items():
        assert is_state_of(data, whole=key not in refused), key


def processes(pid: int) -> list[int]:
    """A daemon and its worker processes."""
    children = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [pid, *map(int, children.split())]


def gone(m: Mounted, family: list[int]) -> None:
    wait_until(lambda: not any(map(is_running, family)), LONGEST)
    assert not m.is_mounted()


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=LONGEST, check=False)


def signalled(number: signal.Signals, m: Mounted, family: list[int], writers: Writers) -> None:
    os.kill(family[0], number)
    gone(m, family)
    assert all(told.number in REFUSED for told in writers.join().values())


def lazily(command: tuple[str, ...], m: Mounted, family: list[int], writers: Writers) -> None:
    """Detached at once; who has something open there goes on with it, and the mount ends with the last of them."""
    done = run(*command, m.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not m.is_mounted()
    writers.go_on()
    assert is_running(family[0])
    writers.stop()
    assert all(told.number == 0 for told in writers.join().values())
    gone(m, family)


def refused(command: tuple[str, ...], m: Mounted, family: list[int], writers: Writers) -> None:
    """Somebody writes there: the mount is busy, stays, and goes on."""
    done = run(*command, m.path)
    assert done.returncode != 0
    assert "busy" in done.stderr
    writers.go_on()
    writers.stop()
    assert all(told.number == 0 for told in writers.join().values())
    assert m.is_mounted()
    assert run(*command, m.path).returncode == 0
    gone(m, family)


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (signalled, signal.SIGTERM),
        (signalled, signal.SIGINT),
        (lazily, ("fusermount3", "-u", "-z")),
        (refused, ("fusermount3", "-u")),
        *([(lazily, ("umount", "-l")), (refused, ("umount",))] if os.geteuid() == 0 else []),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else getattr(value, "name", "ends"),
)
def test_L2_W1_W3_heavy_writing_ends_without_a_loss(
    make_mount: Callable[..., Mounted], end: Callable[..., None], how: object
) -> None:
    m = make_mount(metadata_ttl=0)
    family = processes(m.pid)
    assert len(family) > 1
    with writing(m) as writers:
        end(how, m, family, writers)
        told = writers.told()
    assert not m.is_mounted()
    check(tree(m.store("primary")), told)
    if how == signal.SIGTERM:
        m.mount()
        check(tree(m.path), told)


def hanging(root: Path, **options: object) -> Mounted:
    """A mount of a store that hangs while the file `hang` is there."""
    profile = file_store(root / "primary")
    profile["storage_provider"]["type"] = "tests.fuse.hanging.HangingProvider"
    write_config(root, {"data": {**profile, "mscfs": options}})
    return Mounted(root)


@pytest.fixture
def hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounted]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    m = hanging(tmp_path, shutdown_timeout=2, metadata_ttl=0)
    m.mount()
    yield m
    (tmp_path / "hang").unlink(missing_ok=True)
    unmount_whatever_is_left(m)


def test_L2_W4_a_store_that_hangs_does_not_hold_up_the_end(hung: Mounted) -> None:
    m, pid = hung, hung.pid
    (m.path / "acknowledged").write_bytes(b"a" * 1000)
    (m.root / "hang").touch()
    outcome: list[int | None] = []

    def write() -> None:
        try:
            (m.path / "closing").write_bytes(b"c" * 1000)
            outcome.append(None)
        except OSError as error:
            outcome.append(error.errno)

    writer = threading.Thread(target=write)
    writer.start()
    wait_until((m.root / "hangs").exists, LONGEST)  # its close() is on the way
    began = time.monotonic()
    family = processes(pid)
    os.kill(pid, signal.SIGTERM)
    gone(m, family)
    took = time.monotonic() - began
    writer.join(LONGEST)
    assert outcome
    assert outcome[0] is not None
    (log,) = Path(os.environ["XDG_STATE_HOME"], "mscfs/log").iterdir()
    assert "shutdown took longer than 2 s" in log.read_text()
    assert took < 30, "it did not hang for as long as the store does"
    assert tree(m.store("primary")) == {"acknowledged": b"a" * 1000}
    (m.root / "hang").unlink()
    m.mount()
    assert tree(m.path) == tree(m.store("primary")) == {"acknowledged": b"a" * 1000, "closing": b"c" * 1000}


def test_L1_R5_a_daemon_that_is_killed_leaves_no_reader_waiting_and_no_dead_mountpoint(hung: Mounted) -> None:
    m, pid = hung, hung.pid
    data = os.urandom(5 << 20)
    (m.store("primary") / "large").write_bytes(data)
    outcome: list[int] = []
    file = os.open(m.path / "large", os.O_RDONLY)
    assert os.pread(file, 100, 0) == data[:100]
    (m.root / "hang").touch()

    def read() -> None:
        try:
            os.pread(file, 100, 4 << 20)
        except OSError as error:
            outcome.append(error.errno or 0)

    reader = threading.Thread(target=read)
    reader.start()
    wait_until((m.root / "hangs").exists, LONGEST)
    os.kill(pid, signal.SIGKILL)
    reader.join(LONGEST)
    assert outcome in ([errno.ENOTCONN], [errno.ECONNABORTED])
    with suppress(OSError):  # its mount is dead
        os.close(file)
    with pytest.raises(OSError, match="not connected"):
        (m.path / "large").stat()
    (m.root / "hang").unlink()
    m.mount()
    assert (m.path / "large").read_bytes() == data
    assert str(m.path) in Path("/proc/self/mounts").read_text()
    assert Path("/proc/self/mounts").read_text().count(f" {m.path} ") == 1


def test_L1_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    m = prepare(tmp_path)
    m.path.mkdir()
    state = tmp_path / "state"
    state.mkdir()
    mounted = os.geteuid() == 0 and not run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", state).returncode
    if not mounted:
        state.chmod(0o500)  # root would not notice
    try:
        done = subprocess.run(
            [sys.executable, "-m", "mscfs.cli.main", "mount", "--config", m.config, "data", m.path],
            env={**os.environ, "XDG_STATE_HOME": str(state)},
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=False,
        )
    finally:
        if mounted:
            subprocess.run(["umount", state], check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"mscfs: {state}/mscfs")
    assert "XDG_STATE_HOME" in line
    assert done.returncode == 1
    assert not m.is_mounted()


def test_L2_a_mount_that_was_started_with_nohup_outlives_its_terminal() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert signal.SIGHUP not in session._ending_signals()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        assert signal.SIGHUP in session._ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
