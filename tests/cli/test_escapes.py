"""Keys, links, attributes and messages of a store give the terminal of whoever looks at them no orders (L5)."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from mscfs.cli.app import make_app
from mscfs.cli.program import note
from mscfs.config.load import load_config
from mscfs.errors import MscfsError
from mscfs.store import open_store

ORDERS = "\x1b]0;title\x07\x1b[2J\x9b31m\r\b\u202e"
KEY = f"d/{ORDERS}\nof two lines [red]x"


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
        note(str(done.exception))
    elif done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout + done.stderr + capsys.readouterr().err


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


def test_L5_what_is_shown_is_still_told_apart(hostile, capsys):
    assert "\\x1b]0;title\\x07\\x1b[2J\\x9b31m\\r\\x08\\u202e\\nof two lines [red]x" in run(capsys, "ls", "data:d/")
    lines = run(capsys, "ls", "-r", "--json", "data:").splitlines()
    assert sorted(json.loads(line)["key"] for line in lines) == [KEY, f"{KEY}-link"]
