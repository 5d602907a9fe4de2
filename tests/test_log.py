"""What stands in a log: one line for each message, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import logging
import os
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from mscfs import log

HOSTILE = "a\x1b[2J\nINFO mscfs: all is well\r\x9b31m\x07b"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("mscfs").level
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(log, "_is_journal", lambda: request.param)
    log.configure_logging()
    yield file
    root.handlers[:], level, ours = before
    root.setLevel(level)
    logging.getLogger("mscfs").setLevel(ours)
    logging.captureWarnings(capture=False)


def breaks(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable()}


@pytest.mark.parametrize("written", [False, True], ids=["file", "journal"], indirect=True)
def test_L5_a_key_gives_a_terminal_no_orders_and_makes_no_lines(written: io.StringIO) -> None:
    logger = logging.getLogger("mscfs.test")
    logger.warning("%s is stale", HOSTILE)
    logger.warning("a literal \x1b[2J")
    assert len(written.getvalue().splitlines()) == 2
    assert "a\\x1b[2J\\nINFO" in written.getvalue()
    try:
        int(HOSTILE)
    except ValueError:
        logger.exception("a bug with %s", HOSTILE)
    assert breaks(written.getvalue()) == {"\n"}
    assert "Traceback (most recent call last):\n" in written.getvalue()
    assert "int(HOSTILE)" in written.getvalue()


@pytest.mark.parametrize("written", [False], ids=["file"], indirect=True)
@pytest.mark.parametrize("logger", ["azure.identity", "urllib3.connectionpool", "botocore.endpoint"])
def test_L5_what_an_sdk_warns_of_is_told_in_our_words_only(
    written: io.StringIO, capsys: pytest.CaptureFixture[str], logger: str
) -> None:
    sdk = logging.getLogger(logger)
    sdk.warning("Failed to parse headers (url=https://lake/c?sig=SECRET)")
    sdk.error("it ends")
    log.configure_terminal()
    sdk.warning("Retrying after connection broken by NameResolutionError")
    sdk.error("it ends")
    for shown in (written.getvalue(), capsys.readouterr().err):
        assert len(shown.splitlines()) == 1
        assert "it ends" in shown


PROCESS = """
import logging, os, sys
from pathlib import Path
from mscfs import log

log._LARGEST = 40_000
file = Path(sys.argv[1])
logger = logging.getLogger("mscfs.test")

def configure(name):
    log.configure_logging(process=name, file=file)

def write(name, count):
    for number in range(count):
        logger.info("%s-%04d", name, number)
"""


def run_process(file: Path, script: str) -> None:
    """Run a process that has, as a daemon does, both its streams in `file`."""
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        done = subprocess.run(
            [sys.executable, "-c", PROCESS + script, file], stdout=opened, stderr=opened, timeout=60, check=False
        )
    finally:
        os.close(opened)
    assert done.returncode == 0, file.read_text()


def kept(file: Path) -> Counter[str]:
    """The messages in the log and in its predecessor."""
    lines = [line for path in file.parent.iterdir() for line in path.read_text().splitlines()]
    return Counter(line.rsplit(" ", 1)[1] for line in lines)


def test_no_process_loses_a_line_when_a_large_log_is_put_aside(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    script = """
configure("daemon")
workers = []
for name in ("one", "two", "three"):
    if not (pid := os.fork()):
        configure(name)
        write(name, 200)
        os._exit(0)
    workers.append(pid)
write("daemon", 200)
for pid in workers:
    assert os.waitpid(pid, 0)[1] == 0
"""
    run_process(file, script)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.log", "a.log.1"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    wanted = [f"{name}-{number:04}" for name in ("daemon", "one", "two", "three") for number in range(200)]
    assert kept(file) == Counter(wanted)


def test_a_log_keeps_two_files_however_long_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    script = """
configure("daemon")
go, told = os.pipe()
if not (pid := os.fork()):
    configure("silent")
    os.read(go, 1)
    held = os.fstat(2)
    assert (held.st_size, held.st_nlink) == (0, 0), held
    write("silent", 1)
    os._exit(0)
write("daemon", 2000)
print("not a line of the log", file=sys.stderr)
os.write(1, b"nor this\\n")
os.write(told, b"x")
assert os.waitpid(pid, 0)[1] == 0
"""
    run_process(file, script)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"a.log", "a.log.1"}
    assert max(sizes.values()) < 41_000
    ends = file.read_text()
    assert "not a line of the log" in ends
    assert "nor this" in ends
    assert ends.splitlines()[-1].endswith("silent-0000")


def test_standard_error_that_is_somebody_elses_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    run_process(file, "log.configure_logging()\nassert log.logged_to() is None\nwrite('daemon', 2000)")
    assert [path.name for path in tmp_path.iterdir()] == ["a.log"]
    assert sum(kept(file).values()) == 2000
