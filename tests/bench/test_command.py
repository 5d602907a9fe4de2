"""The command line: what it refuses, and that nothing is left behind when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench import server
from tests.bench.systems import SYSTEMS
from tests.bench.works import WORKS

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.bench"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_help_names_works_examples_and_what_to_install():
    text = run("--help").stdout
    assert "python -m tests.bench --only 1,4" in text
    assert f"{server.INSTALL} rclone s3fs" in text
    for number in WORKS:
        assert f"\n  {number:>2}  " in text


@pytest.mark.parametrize(
    ("arguments", "expected"), [(("--only", "1,99"), "99"), (("--systems", "mscfs,nfs"), "nfs"), (("--runs", "x"), "x")]
)
def test_what_is_not_there_is_refused_by_name(arguments: tuple[str, str], expected: str):
    done = run(*arguments)
    assert done.returncode == 2
    assert expected in done.stderr.splitlines()[-1]


def test_every_system_says_how_to_get_it():
    assert {"mscfs", "rclone", "s3fs", "mount-s3", "gcsfuse", "geesefs", "juicefs", "msfs"} == set(SYSTEMS)
    assert all(system.install and system.settings for system in SYSTEMS.values())


@pytest.mark.mount
@pytest.mark.skipif(server.missing() is not None, reason=f"nginx with Lua: {server.INSTALL}")
@pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="no /dev/fuse")
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path):
    on_tmpfs = set(Path("/dev/shm").glob("mscfs-bench-*"))
    command = [*COMMAND, "--quick", "--only", "12", "--systems", "mscfs", "--directory", str(tmp_path)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while str(tmp_path) not in Path("/proc/self/mountinfo").read_text():
            assert process.poll() is None, "it ended before anything was mounted"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not list(tmp_path.glob("mscfs-bench-*"))
    assert set(Path("/dev/shm").glob("mscfs-bench-*")) <= on_tmpfs
    left = [_command(path) for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [command for command in left if str(tmp_path) in command]


def _command(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
