"""`mscfs drain`: what it waits for, and what it says in the end."""

import json
from contextlib import closing

import pytest
from typer.testing import CliRunner

from mscfs.cli.app import make_app
from mscfs.config.load import load_config
from mscfs.journal import Wish
from mscfs.store import open_store
from tests.cli.test_mount import one_line

pytestmark = pytest.mark.mount


def replica(profile, pending=0, pending_bytes=0, last_error=""):
    return {"profile": profile, "pending": pending, "pending_bytes": pending_bytes, "last_error": last_error}


def report(machine, *arguments):
    """The exit code, the object, and what stands on standard error, line by line."""
    done = machine.run("drain", *arguments, "--json")
    return done.returncode, json.loads(done.stdout), done.stderr.splitlines()


def test_W2_drain_waits_for_the_replicas(machine):
    machine.mount()
    (machine.mountpoint / "a").write_text("content")
    done = machine.run("drain", machine.mountpoint)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (machine.store("near") / "a").read_text() == (machine.store("far") / "a").read_text() == "content"
    drained = {
        "profile": "data",
        "mountpoint": str(machine.mountpoint),
        "outcome": "drained",
        "remaining": 0,
        "replicas": [replica("near"), replica("far")],
    }
    assert report(machine, "data") == (0, drained, [])


def test_W2_drain_without_a_mount(machine):
    machine.mount()
    machine.store("near").rename(machine.store("gone"))
    (machine.mountpoint / "a").write_text("content")
    assert "journal entries wait" in one_line(machine.run("drain", machine.mountpoint, "--timeout", "0.5"))
    code, said, [line] = report(machine, machine.mountpoint, "--timeout", "0.5")
    assert (code, said["outcome"], said["remaining"]) == (1, "timeout", 1)
    assert [(each["profile"], each["pending"], each["pending_bytes"]) for each in said["replicas"]] == [
        ("near", 1, len("content")),
        ("far", 0, 0),
    ]
    assert said["replicas"][0]["last_error"].removeprefix("near: ") in line
    done = machine.run("umount", machine.mountpoint)
    assert done.returncode == 0
    assert "`mscfs drain data`" in done.stderr
    code, said, [line] = report(machine, "data", "--timeout", "0.5")
    assert (code, said["outcome"], said["mountpoint"], said["remaining"]) == (1, "timeout", None, 1)
    assert (said["replicas"][0]["pending"], said["replicas"][1]) == (1, replica("far"))
    assert "near" in line
    machine.store("gone").rename(machine.store("near"))
    code, said, lines = report(machine, "data")
    assert (code, said["outcome"], said["replicas"], lines) == (0, "drained", [replica("near"), replica("far")], [])
    assert (machine.store("near") / "a").read_text() == "content"


def test_W2_drain_of_a_mount_tells_what_a_replica_cannot_hold_and_ends(machine):
    (machine.store("near") / "a").write_text("in the way of a directory")
    machine.mount()
    (machine.mountpoint / "c").write_text("content")
    (machine.mountpoint / "a").mkdir()
    (machine.mountpoint / "a" / "b").write_text("content")
    code, said, [line] = report(machine, machine.mountpoint)
    assert "journal entries wait; near: a/" in line
    assert "Not a directory" in line
    assert (code, said["outcome"]) == (1, "stuck")
    assert said["remaining"] == said["replicas"][0]["pending"] > 0
    assert said["replicas"][1] == replica("far")
    (machine.store("near") / "a").unlink()
    done = machine.run("drain", machine.mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert (machine.store("near") / "a" / "b").read_text() == "content"


def test_W2_what_waits_for_no_replica_of_the_profile_is_told(machine, monkeypatch):
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    with closing(open_store(load_config(None), "data")) as manager:
        manager.journal.wish([Wish("gone", "a", "replicate", size=5)])
    done = CliRunner().invoke(make_app(["drain"]), ["drain", "data", "--json"])
    said = json.loads(done.stdout)
    assert (said["outcome"], said["remaining"], said["replicas"][:2]) == ("stuck", 1, [replica("near"), replica("far")])
    assert (said["replicas"][2]["profile"], said["replicas"][2]["pending_bytes"]) == ("gone", 5)
    assert "it is no replica of data" in said["replicas"][2]["last_error"]


def test_drain_of_something_unknown(machine):
    for more in ((), ("--json",)):
        done = machine.run("drain", "dta", *more)
        assert "no profile is named 'dta'" in one_line(done)
        assert done.returncode == 78


def test_help_tells_the_exit_codes(machine):
    said = " ".join(machine.run("drain", "--help").stdout.split())
    assert "Ends with 0 when nothing waits any more, and with 1 and the reasons when" in said
