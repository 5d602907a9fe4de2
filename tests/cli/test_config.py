from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from mscfs.cli.config import app
from mscfs.errors import ConfigError

GOOD = """\
profiles:
  data:
    storage_provider: {type: s3, options: {base_path: bucket}}
    credentials_provider: {type: S3Credentials, options: {access_key: hunter1, secret_key: hunter2}}
    replicas: [{replica_profile: copy, read_priority: 1}]
  copy:
    storage_provider: {type: file, options: {base_path: /copy}}
"""
UNKNOWN_KEY = GOOD + "    cachin_enabled: true\n"
UNSUPPORTED = GOOD + "  hub: {storage_provider: {type: huggingface, options: {base_path: ''}}}\n"
UNSET = GOOD + "  other: {storage_provider: {type: s3, options: {base_path: $NOT_SET}}}\n"
WRONG = GOOD + "    caching_enabled: 1\ncache: {size: 1}\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.yaml"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_valid_file(path: Path) -> None:
    path.write_text(GOOD)
    result = call("validate", str(path))
    assert result.exit_code == 0
    assert result.stdout == f"{path}: valid; 2 profiles can be used\n"
    assert result.stderr == ""


def test_the_file_is_searched_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(call("validate").exception, ConfigError)
    path.write_text(GOOD)
    monkeypatch.setenv("MSC_CONFIG", str(path))
    assert str(path) in call("validate").stdout


def test_fault_15_an_unknown_key_is_a_warning_and_an_error_when_strict(path: Path) -> None:
    path.write_text(UNKNOWN_KEY)
    line = f"{path}:8: profiles.copy.cachin_enabled: unknown key, ignored; did you mean 'caching_enabled'?\n"
    result = call("validate", str(path))
    assert (result.exit_code, result.stderr) == (0, f"mscfs: warning: {line}")
    result = call("validate", "--strict", str(path))
    assert (result.exit_code, result.stderr, result.stdout) == (78, f"mscfs: error: {line}", "")


def test_what_mscfs_does_not_support_is_a_warning(path: Path) -> None:
    path.write_text(UNSUPPORTED)
    result = call("validate", str(path))
    assert result.exit_code == 0
    assert result.stdout.endswith("valid; 2 profiles can be used, not hub\n")
    assert "warning" in result.stderr
    assert call("validate", "--strict", str(path)).exit_code == 78


def test_all_profiles_are_validated_used_or_not(path: Path) -> None:
    path.write_text(UNSET)
    result = call("validate", str(path))
    assert result.exit_code == 78
    assert "error" in result.stderr
    assert "NOT_SET must be set" in result.stderr


def test_every_problem_is_one_line(path: Path) -> None:
    path.write_text(WRONG)
    result = call("validate", str(path))
    assert result.exit_code == 78
    assert result.stderr.splitlines() == [
        f"mscfs: error: {path}:8: profiles.copy.caching_enabled: must be true or false, not 1",
        f"mscfs: error: {path}:9: cache.size: must be a size with the unit M, G or T, such as 10G",
    ]


def test_validate_in_json(path: Path) -> None:
    path.write_text(UNSUPPORTED)
    result = call("validate", "--json", str(path))
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["valid"] is True
    assert answer["files"] == [str(path)]
    assert answer["profiles"] == ["copy", "data"]
    assert answer["unusable_profiles"] == ["hub"]
    assert answer["errors"] == []
    [warning] = answer["warnings"]
    assert warning["file"] == str(path)
    assert warning["line"] == 8
    assert warning["key"] == "profiles.hub.storage_provider.type"
    assert "not supported" in warning["message"]


def test_validate_a_broken_file_in_json(path: Path) -> None:
    path.write_text("a: {")
    result = call("validate", "--json", str(path))
    assert result.exit_code == 78
    answer = json.loads(result.stdout)
    assert answer["valid"] is False
    assert answer["errors"][0]["line"] == 1


def test_show_gives_effective_values_without_secrets(path: Path) -> None:
    path.write_text(GOOD)
    result = call("show", "data", "--config", str(path))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"# {path}\n")
    assert "hunter" not in result.output
    shown = yaml.safe_load(result.stdout)
    assert set(shown["profiles"]) == {"data", "copy"}
    assert shown["profiles"]["data"]["credentials_provider"]["options"] == {"access_key": "***", "secret_key": "***"}
    assert shown["profiles"]["data"]["mscfs"]["memory_limit"] == "512M"
    assert shown["profiles"]["data"]["mscfs"]["file_mode"] == "0644"
    assert shown["profiles"]["copy"]["retry"] == {"attempts": 3, "delay": 1.0, "backoff_multiplier": 2.0}
    as_json = call("show", "data", "--config", str(path), "--json")
    assert json.loads(as_json.stdout) == shown


def test_show_an_implicit_profile(path: Path) -> None:
    path.write_text(GOOD)
    result = call("show", "_s3-bucket", "--config", str(path))
    shown = yaml.safe_load(result.stdout)
    assert shown["profiles"]["_s3-bucket"]["storage_provider"] == {"type": "s3", "options": {"base_path": "bucket"}}


def test_show_an_unknown_profile(path: Path) -> None:
    path.write_text(GOOD)
    error = call("show", "dat", "--config", str(path)).exception
    assert isinstance(error, ConfigError)
    assert "did you mean 'data'?" in str(error)
