import importlib.metadata
import json
import os
import subprocess
import sys

import pytest
import typer

from mscfs.cli.app import MODULES, make_app
from mscfs.cli.program import printable, run
from mscfs.errors import ConfigError, StoreUnavailableError


def mscfs(*arguments, **variables):
    return subprocess.run(
        [sys.executable, "-m", "mscfs.cli.main", *arguments],
        env={**os.environ, "COLUMNS": "200", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_version():
    assert mscfs("--version").stdout == f"mscfs {importlib.metadata.version('mscfs')}\n"


def test_help_names_every_command():
    shown = mscfs("--help").stdout
    commands = "mount umount status metrics drain recover demo config ls cat cp rm info where sync-replicas"
    for command in commands.split():
        assert f" {command} " in shown


@pytest.mark.parametrize("command", ["mount", "umount", "status", "metrics", "drain", "demo"])
def test_help_of_a_command_has_examples(command):
    shown = mscfs(command, "--help")
    assert shown.returncode == 0
    assert f"mscfs {command}" in shown.stdout.split("Examples:")[1]


def test_a_wrong_call_is_not_a_traceback():
    done = mscfs("mount", "only-one-argument")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_help_loads_nothing_heavy():
    code = "import sys, mscfs.cli.app; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {"trio", "pyfuse3", "boto3", "google.cloud.storage", "azure.storage.blob", "obstore", "pydantic"}
    assert (heavy | {"prometheus_client"}).isdisjoint(loaded)


def test_what_the_daemon_is_forked_from_has_loaded_no_command():
    code = "import sys, mscfs.cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"typer", "rich", "yaml", "msgspec", "mscfs.config.load"}.isdisjoint(loaded)


def ended(action):
    with pytest.raises(SystemExit) as ending:
        run(action)
    return ending.value.code


def raising(error):
    def action():
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ConfigError("a.yaml:3: wrong"), 78, "a.yaml:3: wrong"),
        (ConfigError("first\nsecond"), 78, "first\nmscfs: second"),
        (StoreUnavailableError("refused", store="data", key="a\nb"), 69, "data:a\\nb: refused"),
        (FileNotFoundError(2, "No such file or directory", "/x"), 1, "/x: No such file or directory"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ZeroDivisionError("boom"), 70, "internal error: ZeroDivisionError: boom (set MSCFS_DEBUG=1 to see where)"),
    ],
)
def test_an_error_is_a_line_and_a_code(error, code, line, capsys, monkeypatch):
    monkeypatch.delenv("MSCFS_DEBUG", raising=False)
    assert ended(raising(error)) == code
    assert capsys.readouterr().err == f"mscfs: {line}\n"


def test_a_traceback_is_shown_to_who_asks(capsys, monkeypatch):
    monkeypatch.setenv("MSCFS_DEBUG", "1")
    ended(raising(ConfigError("wrong")))
    assert "Traceback" in capsys.readouterr().err


def test_success():
    assert ended(lambda: None) == 0


def test_L5_nothing_from_a_store_can_write_to_the_terminal():
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"
    assert printable("naïve 文") == "naïve 文"


def test_the_shell_completes_profiles(tmp_path):
    provider = {"storage_provider": {"type": "file", "options": {"base_path": "/srv"}}}
    (tmp_path / "c.json").write_text(json.dumps({"profiles": {"data": provider, "dark": provider, "other": provider}}))
    variables = {"_MSCFS_COMPLETE": "complete_bash", "COMP_WORDS": "mscfs mount da", "COMP_CWORD": "2"}
    assert mscfs(MSC_CONFIG=str(tmp_path / "c.json"), **variables).stdout.split() == ["dark", "data"]
    broken = mscfs(MSC_CONFIG=str(tmp_path / "none"), **variables)
    assert (broken.stdout.split(), broken.stderr) == ([], "")


def commands(arguments: list[str]) -> list[str]:
    return list(typer.main.get_group(make_app(arguments)).commands)


def test_the_help_lists_every_command_and_each_finds_its_own():
    assert set(commands(["--help"])) == set(MODULES)
    for name in MODULES:
        assert name in commands([name, "--help"])
    assert set(commands(["no-such-command"])) == set(MODULES)  # "did you mean" knows them all
