"""A mount that stops answering is noticed, and said to the log and to systemd (L3)."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import threading
import time

import pytest
import trio

from mscfs.fuse.watchdog import Watchdog, ask
from tests.fuse.mounting import MSCFS, prepare, unmount_whatever_is_left

LONGEST = 60.0


def wait_for(records: list, said: str) -> None:
    """Block until it is in the log."""
    end = time.monotonic() + LONGEST
    while not any(said in record.getMessage() for record in records):
        assert time.monotonic() < end
        time.sleep(0.01)


async def test_L3_a_loop_that_is_stuck_is_logged_with_what_it_does(caplog):
    def get_stuck() -> None:
        wait_for(caplog.records, "does not answer")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Watchdog(lambda: None, lambda: None, interval=0.01, patience=0.1).run)
        await trio.sleep(0.05)
        assert caplog.records == []
        get_stuck()
        await trio.to_thread.run_sync(wait_for, caplog.records, "answers again")
        nursery.cancel_scope.cancel()
    assert "in get_stuck" in caplog.text


async def test_L3_an_answer_that_does_not_come_is_logged_once_and_holds_nothing_up(caplog):
    alive = []
    answer = threading.Event()
    async with trio.open_nursery() as nursery:
        watchdog = Watchdog(answer.wait, lambda: alive.append(1), interval=0.01, patience=0.1)
        nursery.start_soon(watchdog.run)
        await trio.to_thread.run_sync(wait_for, caplog.records, "does not answer")
        assert alive == []
        answer.set()
        await trio.to_thread.run_sync(wait_for, caplog.records, "answers again")
        assert alive
        answer.clear()
        nursery.cancel_scope.cancel()  # does not wait for the answer
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
    answer.set()
    # Nobody is left behind but the thread that waited for the answer.
    end = time.monotonic() + LONGEST
    while any("_watch" in str(thread) for thread in threading.enumerate()):
        assert time.monotonic() < end


def test_L3_any_answer_will_do(tmp_path, monkeypatch):
    ask(tmp_path / "nowhere")

    def dead(*_: object) -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    monkeypatch.setattr(os, "getxattr", dead)
    ask(tmp_path)


@pytest.mark.mount
def test_L3_systemd_hears_of_a_mount_that_answers(tmp_path):
    m = prepare(tmp_path)
    m.path.mkdir()
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(path))
        notified.settimeout(LONGEST)
        environment = {**os.environ, "NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}
        command = [*MSCFS, "mount", "--config", str(m.config), "--foreground", "data", str(m.path)]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
            try:
                told = [notified.recv(4096) for _ in range(4)]
                assert told.count(b"WATCHDOG=1") == 3
                assert any(message.startswith(b"READY=1") for message in told)
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=LONGEST)
            finally:
                process.kill()
                unmount_whatever_is_left(m)
