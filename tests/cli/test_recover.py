"""`mscfs recover`: W4. In this process, for a process costs a second; the last test has a real mount."""

import errno
import json
import os
import shutil
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from mscfs.cli import completion
from mscfs.cli.app import make_app
from mscfs.cli.recover import _inside
from mscfs.config.load import load_config
from mscfs.errors import ConfigError, MountError, StorageError, UsageError, VersionMismatchError
from mscfs.store import open_store
from mscfs.vfs.staging_log import Staged, StagingLog
from tests.fuse.mounting import wait_until
from tests.fuse.test_ownership import held_elsewhere

LOST = "lost+found/1-2-3/2"
PROBLEM = "the object was changed elsewhere since"


@pytest.fixture
def here(machine, monkeypatch):
    """The machine's environment in this process."""
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(machine.root)
    return machine


@pytest.fixture
def kept(here):
    """What recovery kept: two contents with a name, and one whose program never closed it."""
    manager = open_store(load_config(None), "data")
    journal = manager.journal
    staging = journal.path.parent / "staging"
    (staging / "1-2-3").mkdir(parents=True)
    for number, key in enumerate(["runs/a.bin", "b\n"]):
        path = staging / "1-2-3" / f"{number}"
        path.write_text(f"unsent {key}")
        row = journal.begin_upload(key, path, "replace", None)
        journal.keep_upload(row, PROBLEM if number == 0 else "")
        journal.release_upload(row)
    (staging / "1-2-3" / "2").write_text("unclosed")
    manager.close()
    return staging


def recover(verb, *arguments, answer=""):
    arguments = ["recover", verb, *arguments]
    return CliRunner().invoke(make_app(arguments), arguments, input=answer)


def listed():
    return json.loads(recover("list", "data", "--json").stdout)


def ids():
    return [entry["id"] for entry in listed()]


def test_W4_what_was_left_behind_is_listed(kept):
    shown = recover("list", "data")
    assert (shown.exit_code, shown.stderr) == (0, "")
    for words in ("runs/a.bin", "b\\n", "changed elsewhere", "a mount uploads it", LOST):
        assert words in shown.stdout
    found = listed()
    assert [entry["key"] for entry in found] == ["runs/a.bin", "b\n", LOST]
    assert Path(found[0]["file"]).read_text() == "unsent runs/a.bin"
    assert len(set(ids())) == 3


def test_W4_what_a_mount_elsewhere_is_writing_is_not_touched(here, kept):
    writing = kept / "4711-1-0" / "00000001"
    writing.parent.mkdir()
    StagingLog(writing.parent).write(Staged.of(writing.name, "writing", "new", "create", None))
    writing.touch()
    with held_elsewhere(here.root / "state" / "mscfs"):
        for arguments in (["list", "data"], ["discard", "data", "--all", "--yes"], ["save", "data", here.root / "x"]):
            refused = recover(*map(str, arguments))
            assert isinstance(refused.exception, MountError)
            assert "pid 4711 there" in str(refused.exception)
    assert writing.exists()
    assert len(ids()) == 3  # it has ended


def test_W4_one_is_shown_beside_what_the_primary_holds(here, kept):
    (here.store("primary") / "runs").mkdir()
    (here.store("primary") / "runs/a.bin").write_text("newer")
    first, second, third = ids()
    assert "5 B, written" in recover("show", "data", first).stdout
    found = json.loads(recover("show", "data", first, "--json").stdout)
    assert (found["key"], found["primary"]["size"]) == ("runs/a.bin", 5)
    assert json.loads(recover("show", "data", second, "--json").stdout)["primary"] is None
    assert LOST in recover("show", "data", third).stdout
    here.store("primary").rename(here.root / "away")
    assert "cannot be asked" in recover("show", "data", first).stdout
    unknown = recover("show", "data", "99").exception
    assert isinstance(unknown, UsageError)
    assert "there is no '99'" in str(unknown)


def test_W4_upload_is_conditional_unless_told_otherwise(here, kept):
    primary = here.store("primary")
    (primary / "runs").mkdir()
    (primary / "runs/a.bin").write_text("newer")
    first, second, third = ids()
    done = recover("upload", "data", first, second, "--json")
    assert isinstance(done.exception, VersionMismatchError)
    answers = json.loads(done.stdout)
    assert "changed elsewhere" in answers[0]["error"]
    assert answers[1]["uploaded"] == "b\n"
    assert (primary / "runs/a.bin").read_text() == "newer"
    assert (primary / "b\n").read_text() == "unsent b\n"
    assert ids() == [first, third]
    assert recover("upload", "data", first, "--overwrite").exit_code == 0
    assert (primary / "runs/a.bin").read_text() == "unsent runs/a.bin"
    assert isinstance(recover("upload", "data", third, "--key", "b\n").exception, VersionMismatchError)
    assert recover("upload", "data", third, "--key", "found").exit_code == 0
    assert (primary / "found").read_text() == "unclosed"
    assert listed() == []
    manager = open_store(load_config(None), "data")
    wishes = {(wish.replica, wish.key) for wish in manager.journal.claim(100)}
    manager.close()
    assert wishes == {(replica, key) for replica in ("near", "far") for key in ("runs/a.bin", "b\n", "found")}


def test_W4_what_cannot_be_uploaded_now_stays(here, kept):
    here.store("primary").rename(here.root / "away")
    before = ids()
    assert isinstance(recover("upload", "data", before[1]).exception, StorageError)
    assert ids() == before


def test_W4_discard_asks(kept):
    first, *rest = ids()
    for answer in ("", "n\n"):
        asked = recover("discard", "data", first, answer=answer)
        assert asked.exit_code != 0
        assert "runs/a.bin" in asked.stderr
    assert len(ids()) == 3
    assert recover("discard", "data", first, answer="y\n").exit_code == 0
    assert ids() == rest
    assert isinstance(recover("discard", "data", "--yes").exception, UsageError)
    done = json.loads(recover("discard", "data", "--all", "-y", "--json").stdout)
    assert [entry["id"] for entry in done] == rest
    assert listed() == []
    assert [path for path in kept.rglob("*") if path.is_file()] == []


def test_W4_what_was_left_behind_is_saved_and_then_forgotten(here, kept):
    assert len(ids()) == 3
    assert recover("save", "data", "rescued").exit_code == 0
    assert (here.root / "rescued" / "runs" / "a.bin").read_text() == "unsent runs/a.bin"
    assert (here.root / "rescued" / "b\n").read_text() == "unsent b\n"
    assert (here.root / "rescued" / LOST).read_text() == "unclosed"
    assert [path for path in kept.rglob("*") if path.is_file()] == []
    assert recover("list", "data").stdout == "nothing was left behind\n"


def test_W4_saving_overwrites_nothing(here, kept):
    (here.root / "rescued" / "runs").mkdir(parents=True)
    (here.root / "rescued" / "runs" / "a.bin").write_text("mine")
    done = recover("save", "data", "rescued")
    assert isinstance(done.exception, UsageError)
    assert "exists: choose another directory" in str(done.exception)
    assert (here.root / "rescued" / "runs" / "a.bin").read_text() == "mine"
    assert [entry["key"] for entry in listed()] == ["runs/a.bin"]


def test_W4_a_content_that_cannot_be_saved_does_not_stop_the_rest(here, kept):
    (here.root / "rescued").mkdir()
    (here.root / "rescued" / "runs").write_text("mine")
    done = recover("save", "data", "rescued", "--json")
    first, *others = json.loads(done.stdout)
    assert first["error"].endswith("runs: File exists")
    assert [entry["key"] for entry in others if "saved" in entry] == ["b\n", LOST]
    assert isinstance(done.exception, FileExistsError)
    assert [entry["key"] for entry in listed()] == ["runs/a.bin"]


def test_W4_content_is_saved_on_another_disk_whole_or_not_at_all(here, kept, monkeypatch):
    def elsewhere(self, target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self))

    def full(reader, writer):
        writer.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "rename", elsewhere)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", full)
        assert recover("save", "data", "rescued").exit_code == 1
    assert [path for path in (here.root / "rescued").rglob("*") if path.is_file()] == []
    assert len(ids()) == 3
    assert recover("save", "data", "rescued").exit_code == 0
    assert (here.root / "rescued" / "runs" / "a.bin").read_text() == "unsent runs/a.bin"
    assert [path for path in kept.rglob("*") if path.is_file()] == []


def test_a_profile_that_never_crashed(here):
    assert recover("list", "data").stdout == "nothing was left behind\n"
    assert recover("upload", "data", "--all").exit_code == 0
    assert isinstance(recover("list", "dta").exception, ConfigError)


def test_W4_what_another_process_has_in_hand_is_left_alone(kept):
    manager = open_store(load_config(None), "data")
    first, *_ = manager.journal.uploads_left_behind()
    assert manager.journal.claim_upload(first.id)  # as the recovery of a mount does
    manager.close()
    assert [entry["key"] for entry in listed()] == ["b\n", LOST]


def test_the_shell_completes_what_there_is(kept):
    context = SimpleNamespace(params={"profile": "data"})
    known = ids()
    assert completion.left_behind(context, "") == known
    assert completion.left_behind(context, known[2]) == known[2:]
    assert completion.left_behind(SimpleNamespace(params={"profile": "dta"}), "") == []


@pytest.mark.parametrize("verb", ["list", "show", "upload", "discard", "save"])
def test_each_verb_explains_itself_by_examples(verb):
    shown = recover(verb, "--help").stdout
    assert f"mscfs recover {verb} training-data" in shown
    assert "--json" in shown


@pytest.mark.mount
def test_R8_W4_it_works_beside_a_mount(machine):
    assert machine.run("mount", "data", machine.mountpoint).returncode == 0
    try:
        away = machine.root / "away"
        machine.store("primary").rename(away)
        descriptor = os.open(machine.mountpoint / "a", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"precious")
        with pytest.raises(OSError, match="Input/output"):
            os.close(descriptor)
        (entry,) = json.loads(machine.run("recover", "list", "data", "--json").stdout)
        assert (entry["key"], entry["problem"]) == ("a", "")
        assert machine.status()["journal"]["kept"] == 1
        (away / "a").write_bytes(b"made elsewhere, and newer")
        away.rename(machine.store("primary"))
        # The mount tries it by itself, and leaves to a person what does not fit.
        wait_until(lambda: "changed elsewhere" in machine.run("recover", "list", "data").stdout, 60)
        assert (machine.store("primary") / "a").read_bytes() == b"made elsewhere, and newer"
        assert machine.run("recover", "upload", "data", entry["id"], "--overwrite").returncode == 0
        assert machine.status()["journal"]["kept"] == 0
        assert (machine.store("primary") / "a").read_bytes() == b"precious"
    finally:
        machine.run("umount", machine.mountpoint)


@pytest.mark.parametrize(
    ("key", "path"),
    [("a/b", "a/b"), ("../../etc/passwd", "etc/passwd"), ("/etc/passwd", "etc/passwd"), ("a/../b", "a/b")],
)
def test_L5_a_key_does_not_lead_out_of_the_directory(key, path):
    assert _inside(key) == PurePosixPath(path)
