import os
import subprocess
import sys

import pytest

from mscfs.cli import daemon
from mscfs.cli.daemon import Report, StartError


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


def start(script, writing):
    process = subprocess.Popen([sys.executable, "-c", f"report = {writing}\n{script}"], pass_fds=[writing])
    os.close(writing)
    return process


def wait(script, pipe, tmp_path):
    reading, writing = pipe
    process = start(script, writing)
    try:
        daemon._wait(process, reading, tmp_path / "log")
    finally:
        process.kill()
        process.wait()


def test_ready(pipe, tmp_path):
    wait(
        "import os, time; os.write(report, b'rea'); time.sleep(0.05); os.write(report, b'dy\\n'); input()",
        pipe,
        tmp_path,
    )


def test_an_error_travels_with_its_code_and_its_line_breaks(pipe, tmp_path):
    script = "from mscfs.cli.daemon import Report; Report(report).error('first\\nsecond', 78)"
    with pytest.raises(StartError, match=r"^first\nsecond$") as raised:
        wait(script, pipe, tmp_path)
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
def test_a_daemon_that_ends_without_a_word(pipe, tmp_path, script, said):
    with pytest.raises(StartError, match=said):
        wait(script, pipe, tmp_path)


def test_a_child_of_the_daemon_that_holds_the_pipe_is_not_waited_for(pipe, tmp_path):
    script = "import os, time\nif os.fork(): os._exit(3)\ntime.sleep(2)"
    with pytest.raises(StartError, match="ended with code 3"):
        wait(script, pipe, tmp_path)


def test_who_waits_long_is_told_where_to_look_and_not_for_ever(pipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(daemon, "PATIENCE", 0.01)
    monkeypatch.setattr(daemon, "START_TIMEOUT", 0.1)
    with pytest.raises(StartError, match=r"not ready within 0\.1 s; its log is .*log"):
        wait("import time; time.sleep(60)", pipe, tmp_path)
    assert capsys.readouterr().err == f"mscfs: still starting; the log is {tmp_path}/log\n"


def test_a_daemon_outlives_who_started_it():
    reading, writing = os.pipe()
    os.close(reading)
    report = Report(writing)
    report.ready()
    report.error("only the first report counts", 1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(writing)


def test_a_log_that_grew_large_starts_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(daemon, "_LARGEST_LOG", 10)
    log = daemon.log_file("a/b c", tmp_path / "mnt")
    assert log.name.startswith("a_b_c-")
    log.write_text("short")
    assert daemon.log_file("a/b c", tmp_path / "mnt").read_text() == "short"
    log.write_text("longer than ten bytes")
    assert daemon.log_file("a/b c", tmp_path / "mnt").read_text() == ""
    assert log.with_suffix(".log.1").read_text() == "longer than ten bytes"
