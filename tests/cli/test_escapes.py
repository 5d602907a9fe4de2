"""Keys, links, attributes and messages of a store give the terminal of whoever looks at them no orders (L5)."""

from __future__ import annotations

import json
import logging
from functools import partial

import pytest
from typer.testing import CliRunner

from mscfs.cli import program
from mscfs.cli.app import make_app
from mscfs.config.load import load_config
from mscfs.errors import ConfigError, MscfsError, SyncError
from mscfs.store import open_store

ORDERS = "\x1b]0;title\x07\x1b[2J\x9b31m\r\b\u202e"
KEY = f"d/{ORDERS}\nof two lines [red]x"


@pytest.fixture(autouse=True)
def root_logger():
    """What a command changes of it is put right."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], level = before
    root.setLevel(level)


@pytest.fixture
def hostile(machine, monkeypatch):
    """A store with such a key, a copy of it elsewhere, and unsent content for it."""
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(machine.root)
    manager = open_store(load_config(None), "data")
    manager.primary.put(KEY, b"1", metadata={"[/x]": ORDERS, ORDERS: "[bold]"})
    manager.primary.make_symlink(f"{KEY}-link", ORDERS)
    manager.replica("near").provider.put(KEY, b"another")
    staging = manager.journal.path.parent / "staging" / "1-2-3"
    staging.mkdir(parents=True)
    for number in range(2):
        (staging / f"{number}").write_bytes(b"unsent")
        row = manager.journal.begin_upload(f"{KEY}-{number}", staging / f"{number}", "replace", None)
        manager.journal.keep_upload(row, f"refused: {ORDERS}")
        manager.journal.release_upload(row)
    manager.close()
    return machine


def run(capsys, *arguments, answer=""):
    """What a terminal would get of a command, its error included."""
    done = CliRunner().invoke(make_app(arguments), list(arguments), input=answer)
    if isinstance(done.exception, MscfsError):
        with pytest.raises(SystemExit):
            program.run(partial(_raise, done.exception))
    elif done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout + done.stderr + capsys.readouterr().err


def _raise(error):
    raise error


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "data:d/"),
        ("ls", "-r", "data:"),
        ("ls", "-r", "--json", "data:"),
        ("info", f"data:{KEY}"),
        ("info", "--json", f"data:{KEY}"),
        ("info", f"data:{KEY}-link"),
        ("info", f"data:{KEY}-none"),
        ("where", f"data:{KEY}"),
        ("rm", f"data:{KEY}/below"),
        ("cp", f"data:{KEY}-none", "x"),
        ("cp", "-r", "data:", "none:x"),
        ("recover", "list", "data"),
        ("recover", "show", "data", "1"),
        ("recover", "upload", "data", "--all"),
        ("recover", "discard", "data", "1"),
        ("recover", "save", "data", "saved"),
        ("sync-replicas", "data"),
        ("sync-replicas", "data", "--dry-run"),
        ("drain", "data", "--timeout", "5"),
        ("status",),
    ],
    ids=" ".join,
)
def test_L5_no_order_reaches_the_terminal(hostile, capsys, arguments):
    shown = run(capsys, *arguments)
    assert {letter for letter in shown if not letter.isprintable()} <= {"\n"}, shown
    assert "\nof two lines" not in shown.replace("\nmscfs: ", "\n")


def test_L5_what_is_shown_is_still_told_apart(hostile, capsys):
    assert "\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\r\\x08\\u202e\\nof two lines [red]x" in run(capsys, "ls", "data:d/")
    lines = run(capsys, "ls", "-r", "--json", "data:").splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == [KEY, f"{KEY}-link"]


def test_L5_an_error_about_a_key_is_one_line(capsys):
    with pytest.raises(SystemExit):
        program.run(partial(_raise, SyncError([("near", KEY, "refused")], 1, None)))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()


def test_a_configuration_has_as_many_lines_as_problems(capsys):
    with pytest.raises(SystemExit) as ended:
        program.run(partial(_raise, ConfigError("one\ntwo")))
    assert (ended.value.code, capsys.readouterr().err) == (78, "mscfs: one\nmscfs: two\n")


def test_L5_what_the_library_warns_of_is_a_line_of_the_command(capsys):
    with pytest.raises(SystemExit):
        program.run(lambda: logging.getLogger("mscfs.client.replicator").warning("%s: no room", KEY))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mscfs: d/\\x1b]0;title")
    assert line.isprintable()
