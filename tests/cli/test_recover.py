import json
from pathlib import Path, PurePosixPath

import pytest

from mscfs.cli.recover import _inside
from mscfs.config.load import load_config
from mscfs.store import open_store

PROBLEM = "the object was changed elsewhere since"


@pytest.fixture
def kept(machine, monkeypatch):
    """Two contents that recovery kept, as it leaves them."""
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    manager = open_store(load_config(None), "data")
    journal = manager.journal
    staging = journal.path.parent / "staging"
    staging.mkdir()
    for number, key in enumerate(["runs/a.bin", "b\n"]):
        (staging / f"{number}").write_text(f"unsent {key}")
        upload = journal.begin_upload(key, staging / f"{number}", "replace", None)
        journal.keep_upload(upload, PROBLEM)
    manager.close()
    return staging


def test_W4_what_was_kept_is_listed(machine, kept):
    shown = machine.run("recover", "data")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "runs/a.bin" in shown.stdout
    assert "b\\n" in shown.stdout
    assert "changed elsewhere" in shown.stdout
    listed = json.loads(machine.run("recover", "data", "--json").stdout)
    assert [entry["key"] for entry in listed] == ["runs/a.bin", "b\n"]
    assert Path(listed[0]["file"]).read_text() == "unsent runs/a.bin"


def test_W4_what_was_kept_is_saved_and_then_forgotten(machine, kept):
    done = machine.run("recover", "data", "--save", "rescued")
    assert done.returncode == 0
    assert (machine.root / "rescued" / "runs" / "a.bin").read_text() == "unsent runs/a.bin"
    assert (machine.root / "rescued" / "b\n").read_text() == "unsent b\n"
    assert list(kept.iterdir()) == []
    assert machine.run("recover", "data").stdout == "nothing was kept\n"


def test_W4_nothing_is_overwritten(machine, kept):
    (machine.root / "rescued" / "runs").mkdir(parents=True)
    (machine.root / "rescued" / "runs" / "a.bin").write_text("mine")
    done = machine.run("recover", "data", "--save", "rescued")
    assert done.returncode == 64
    assert "exists: choose another directory" in done.stderr
    assert (machine.root / "rescued" / "runs" / "a.bin").read_text() == "mine"
    assert len(json.loads(machine.run("recover", "data", "--json").stdout)) == 2


def test_a_profile_that_never_crashed(machine):
    assert machine.run("recover", "data").stdout == "nothing was kept\n"
    assert "no profile is named 'dta'" in machine.run("recover", "dta").stderr


@pytest.mark.parametrize(
    ("key", "path"),
    [("a/b", "a/b"), ("../../etc/passwd", "etc/passwd"), ("/etc/passwd", "etc/passwd"), ("a/../b", "a/b")],
)
def test_L5_a_key_does_not_lead_out_of_the_directory(key, path):
    assert _inside(key) == PurePosixPath(path)
