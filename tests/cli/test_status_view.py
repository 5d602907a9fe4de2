"""The table of `mscfs status`."""

import io

from rich.console import Console
from rich.table import Table

from mscfs.cli import status
from mscfs.cli.lines import console
from mscfs.cli.status_view import render
from mscfs.telemetry.status import MountState, MountStatus, PrimaryStatus, ReplicaStatus, StoreState


def shown(**stores):
    file = io.StringIO()
    status = MountStatus(
        profile="data", mountpoint="/mnt/data", pid=1, state=MountState.HEALTHY, started=0, uptime=1, **stores
    )
    Console(file=file, width=200, highlight=False).print(render(status))
    return file.getvalue().splitlines()


def test_it_says_why_a_store_is_down():
    lines = shown(
        primary=PrimaryStatus(profile="data", state=StoreState.DOWN, last_error="data:a/b: cannot be reached"),
        replicas=[
            ReplicaStatus(profile="near", read_priority=1, state=StoreState.DOWN, last_error="near: no\x1b[2J answer"),
            ReplicaStatus(profile="far", read_priority=2, last_error="far: some time ago"),
        ],
    )
    assert "  near is down: no\\x1b[2J answer" in lines
    assert "  data is down: data:a/b: cannot be reached" in lines
    assert not [line for line in lines if "some time ago" in line]


def test_no_line_of_an_answer_is_cut_or_broken(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "40")
    table = Table.grid(padding=(0, 2))
    table.add_row("file", "/a/path/" + 30 * "that goes on " + "to its end")
    console().print(table)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.rstrip().endswith("to its end")


def test_no_mount_is_told(monkeypatch, capsys):
    monkeypatch.setattr(status, "all_mounts", list)
    status.status()
    assert capsys.readouterr().out == "nothing is mounted\n"
