import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount

COMMAND = [sys.executable, "-m", "mscfs.cli.main", "demo"]


@pytest.fixture
def environment(tmp_path):
    (tmp_path / "tmp").mkdir()
    return {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "COLUMNS": "60"}


def left_behind(tmp_path):
    mounts = Path("/proc/self/mountinfo").read_text()
    return [*(tmp_path / "tmp").iterdir(), *[line for line in mounts.splitlines() if str(tmp_path) in line]]


def test_the_demo_proves_what_it_says_and_leaves_nothing(tmp_path, environment):
    done = subprocess.run([*COMMAND, "--once"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("✓") == 7
    assert left_behind(tmp_path) == []


def test_the_demo_on_a_mountpoint_of_the_users_choice(tmp_path, environment):
    (tmp_path / "mine").mkdir()
    done = subprocess.run([*COMMAND, tmp_path / "mine", "--once"], env=environment, capture_output=True, check=False)
    assert done.returncode == 0
    assert list((tmp_path / "mine").iterdir()) == []
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_mount_is_the_users_until_ctrl_c(tmp_path, environment, number):
    with subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = []
            while "Ctrl-C" not in (lines[-1] if lines else ""):
                lines.append(process.stdout.readline())
                assert lines[-1], "".join(lines)
            [directory] = (tmp_path / "tmp").iterdir()
            assert len(list((directory / "mount" / "photos").iterdir())) == 24
            assert f"  cd {directory}\n" in lines
            process.send_signal(number)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0
    assert left_behind(tmp_path) == []


GOES_WRONG = """
from mscfs.cli.demo import demo
from mscfs.cli.demo_story import DemoError, Story
from mscfs.cli.program import run

def fail(self):
    raise DemoError("near does not come back")

Story._near_returns = fail
run(lambda: demo(None, once=True))
"""


def test_a_demo_that_goes_wrong_says_so_and_leaves_nothing(tmp_path, environment):
    command = [sys.executable, "-c", GOES_WRONG]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("mscfs: near does not come back\n")
    assert "INFO mscfs.fuse.session: mounted demo at" in done.stderr
    assert left_behind(tmp_path) == []
