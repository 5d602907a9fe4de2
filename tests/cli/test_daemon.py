import os
import signal
import socket
import stat
import subprocess
import sys

import pytest

from mscfs.cli import daemon
from mscfs.cli.daemon import Child, Daemon, Report, StartError
from tests.fuse.mounting import is_running, wait_until


def wait(script, tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        begin = f"import os, socket\nconnection = socket.socket(fileno={theirs.fileno()})\n"
        child = Child(subprocess.Popen([sys.executable, "-c", begin + script], pass_fds=[theirs.fileno()]).pid)
        theirs.close()
        try:
            return daemon._wait(child, ours.fileno(), tmp_path / "log")
        finally:
            child.kill()
            child.close()


def test_ready(tmp_path):
    script = "import time; connection.send(b'rea'); time.sleep(0.05); connection.send(b'dy \"\"\\n'); time.sleep(60)"
    assert wait(script, tmp_path) == ""


def test_R8_ready_although_the_primary_is_down(tmp_path):
    script = "from mscfs.cli.daemon import Report; Report(connection).ready('no \"answer\"\\n')"
    assert wait(script, tmp_path) == 'no "answer"\n'


def test_an_error_travels_with_its_code_and_its_line_breaks(tmp_path):
    script = "from mscfs.cli.daemon import Report; Report(connection).error('first\\nsecond', 78)"
    with pytest.raises(StartError, match=r"^first\nsecond$") as raised:
        wait(script, tmp_path)
    assert raised.value.exit_code == 78


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "was killed by signal 9 before the mount was ready",
        ),
        ("raise SystemExit(3)", "ended with code 3 before the mount was ready"),
    ],
)
def test_a_daemon_that_ends_without_a_word(tmp_path, script, said):
    with pytest.raises(StartError, match=said):
        wait(script, tmp_path)


def test_a_child_of_the_daemon_that_holds_the_pipe_is_not_waited_for(tmp_path):
    script = "import os, time\nif os.fork(): os._exit(3)\ntime.sleep(2)"
    with pytest.raises(StartError, match="ended with code 3"):
        wait(script, tmp_path)


def test_who_waits_long_is_told_where_to_look_and_not_for_ever(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(daemon, "PATIENCE", 0.01)
    monkeypatch.setattr(daemon, "START_TIMEOUT", 0.1)
    with pytest.raises(StartError, match=r"not ready within 0\.1 s; its log is .*log"):
        wait("import time; time.sleep(60)", tmp_path)
    assert capsys.readouterr().err == f"mscfs: still starting; the log is {tmp_path}/log\n"


def test_a_daemon_outlives_who_started_it():
    ours, theirs = socket.socketpair()
    ours.close()
    report = Report(theirs)
    report.ready()
    report.error("only the first report counts", 1)
    assert theirs.fileno() == -1


def test_L1_a_daemon_that_is_told_nothing_ends():
    with Daemon() as made:
        process = made.process
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_L1_a_daemon_ends_with_a_command_that_is_killed():
    script = "import os, signal\nfrom mscfs.cli.daemon import Daemon\nprint(Daemon().process.pid, flush=True)\n"
    script += "os.kill(os.getpid(), signal.SIGKILL)"
    # It has the output open until it ends.
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    wait_until(lambda: not is_running(int(done.stdout)))


def test_L5_a_log_is_made_for_its_owner_only_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    log = daemon.log_file("a/b c", tmp_path / "mnt")
    assert log.name.startswith("a_b_c-")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    log.write_text("what a mount wrote")
    assert daemon.log_file("a/b c", tmp_path / "mnt").read_text() == "what a mount wrote"
