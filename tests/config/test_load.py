from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mscfs.config.load import check_config, find_profile, load_config, parse_config
from mscfs.errors import ConfigError
from tests.config.samples import parse, profile, refusal, replica, with_options, write

TYPOS = """\
profiles:
  data:
    storage_provider:
      type: s3
      options:
        base_path: bucket
        regoin_name: us-east-1
    replica:
    - {replica_profile: copy, read_priority: 1}
    mscfs:
      metadata_tll: 5
    frobnicate: 1
  copy:
    storage_provider: {type: file, options: {base_path: /copy}}
    replicas:
    - {replica_profile: data, read_priority: 1, readonly: true}
cahe:
  size: 1G
"""


def test_fault_15_unknown_keys_in_a_profile_do_not_pass_silently(tmp_path: Path) -> None:
    path = write(tmp_path / "c.yaml", TYPOS)
    told = [
        warning.removeprefix(f"{path}:").replace(": unknown key, ignored", "") for warning in load_config(path).warnings
    ]
    assert told == [
        "7: profiles.data.storage_provider.options.regoin_name; did you mean 'region_name'?",
        "8: profiles.data.replica; did you mean 'replicas'?",
        "11: profiles.data.mscfs.metadata_tll; did you mean 'metadata_ttl'?",
        "12: profiles.data.frobnicate",
        "16: profiles.copy.replicas[0].readonly; did you mean 'read_only'?",
        "17: cahe; did you mean 'cache'?",
    ]


def test_fault_15_a_mistyped_key_is_told_together_with_the_key_that_is_missing_for_it() -> None:
    message = refusal({"a": profile(replicas=[{"replica_profile": "b", "read_prioritty": 1}], x=1), "b": profile()})
    assert message.splitlines() == [
        "test: profiles.a.replicas[0].read_prioritty: unknown key, ignored; did you mean 'read_priority'?",
        "test: profiles.a.replicas[0].read_priority: is required: a positive whole number; 1 is read first",
    ]


def test_a_repeated_key_is_told(tmp_path: Path) -> None:
    text = "profiles:\n  a: {storage_provider: {type: x.Y}}\n  a: {storage_provider: {type: x.Z}}\n"
    path = write(tmp_path / "c.yaml", text)
    config = load_config(path)
    assert config.warnings == (f"{path}:3: profiles.a: stands here twice: the last one counts; remove the other",)
    assert config.profiles["a"].storage_provider.type == "x.Z"


def test_all_errors_of_a_file_come_together_in_the_order_of_lines(tmp_path: Path) -> None:
    text = (
        "posix: {allow_other: 1}\n"
        "profiles:\n"
        "  a:\n"
        "    storage_provider: {type: s3}\n"
        "    caching_enabled: maybe\n"
        "    replicas: [{replica_profile: x, read_priority: 0}]\n"
        "  _b: {}\n"
        "cache: {size: 1}\n"
    )
    path = write(tmp_path / "c.yaml", text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    lines = str(caught.value).splitlines()
    assert [line.removeprefix(f"{path}:").split(":")[0] for line in lines] == ["1", "4", "5", "6", "6", "7", "7", "8"]
    assert all(line.startswith(f"{path}:") for line in lines)


def test_errors_and_configurations_are_picklable() -> None:
    with pytest.raises(ConfigError) as caught:
        parse({"a": 1})
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    config = parse({"a": profile(), "b": profile("oci")})
    assert pickle.loads(pickle.dumps(config)) == config


def test_the_searched_file_is_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no configuration file found"):
        load_config()
    write(tmp_path / "c.json", '{"profiles": {"j": {"storage_provider": {"type": "x.Y"}}}}')
    monkeypatch.setenv("MSC_CONFIG", str(tmp_path / "c.json"))
    assert set(load_config().profiles) == {"j"}
    other = write(tmp_path / "c.yaml", {"profiles": {"y": profile()}})
    assert set(load_config(other).profiles) == {"y"}


def test_a_file_that_cannot_be_read_is_a_ConfigError(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_config(tmp_path / "none.yaml")


@pytest.mark.parametrize("data", [[], None, "x"])
def test_only_a_mapping_can_be_parsed(data: Any) -> None:
    with pytest.raises(ConfigError, match="<dict>: must be a mapping"):
        parse_config(data)


def test_an_empty_configuration_has_no_profiles(tmp_path: Path) -> None:
    assert load_config(write(tmp_path / "c.yaml", "profiles:\ncache:\n")).profiles == {}
    assert parse_config({}).profiles == {}


def test_a_parsed_mapping_is_not_changed_and_may_hold_tuples() -> None:
    data = {"profiles": {"a": profile(replicas=(replica("b"),)), "b": with_options("s3", region_name=None)}}
    before = repr(data)
    assert parse_config(data).profiles["a"].replicas[0].profile == "b"
    assert repr(data) == before


def test_the_report_tells_what_kind_of_problem_each_is(tmp_path: Path) -> None:
    text = "profiles:\n  a: {storage_provider: {type: oci}, x: 1}\n  b: {storage_provider: {type: $NOT_SET}}\n"
    report = check_config(write(tmp_path / "c.yaml", text))
    assert report.config is not None
    assert sorted((problem.kind, problem.profile, problem.line or 0) for problem in report.problems) == [
        ("unsupported", "a", 2),
        ("unusable", "b", 3),
        ("warning", "a", 2),
    ]
    assert set(report.config.unusable) == {"a", "b"}


def test_an_accepted_file_of_the_wider_format(tmp_path: Path) -> None:
    """Everything the shared format knows, in one file: what mscfs can use of it can be used."""
    text = """\
profiles:
  s3: &s3
    comment: shared
    storage_provider: {type: s3, options: {base_path: b, region_name: r, profile_name: p, rust_client: {}}}
    caching_enabled: true
  swift: {storage_provider: {type: s8k, options: {base_path: b/p, endpoint_url: "https://s8k.example"}}}
  hf: {storage_provider: {type: huggingface, options: {repository_id: a/b, base_path: ""}}}
  composite: {storage_provider_profiles: [s3, swift], metadata_provider: {type: x.Router, options: {}}}
  bundle: {provider_bundle: {type: x.Bundle}}
  manifest:
    <<: *s3
    metadata_provider: {type: manifest, options: {manifest_path: .m}}
    autocommit: {interval_minutes: 1.5, at_exit: true}
cache:
  size: 20G
  check_source_version: true
  eviction_policy: {policy: fifo, refresh_interval: 300}
  cache_backend: {cache_path: /tmp/msc_cache}
path_mapping: {/lustre/data/: "msc://s3/", s3://old/: "msc://swift/"}
posix: {mountpoint: /mnt, auto_sighup_interval: 10}
experimental_features: {}
"""
    config = load_config(write(tmp_path / "c.yaml", text))
    assert config.warnings == ()
    assert set(config.profiles) == {"s3", "swift"}
    assert set(config.unusable) == {"hf", "composite", "bundle", "manifest"}
    assert find_profile(config, "s3").caching_enabled


def test_importing_the_loader_does_not_import_pydantic() -> None:
    code = "import sys, mscfs.config.load as load; early = 'pydantic' in sys.modules; load.parse_config({}); "
    code += "print(early, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


def test_finding_a_profile_does_not_import_pydantic() -> None:
    code = (
        "import sys; from mscfs.config.load import find_profile; from mscfs.config.values import Config; "
        "find_profile(Config({}), '__filesystem__'); print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_key_that_is_given_is_not_suggested_for_another() -> None:
    config = parse({"a": profile(replica=[], replicas=[])})
    assert config.warnings == ("test: profiles.a.replica: unknown key, ignored",)


def test_L5_what_stands_below_the_name_of_a_secret_is_not_told() -> None:
    made = profile(credentials_provider={"type": "x.Vault", "options": {"token": {"hunter2": ["x$y"]}}})
    [line] = parse({"a": made}).unusable["a"]
    assert line.startswith("test: profiles.a.credentials_provider.options.token: names a variable that is not set")


def test_L5_a_key_without_a_space_does_not_tell_its_value() -> None:
    made = profile(credentials_provider={"type": "S3Credentials", "options": {"secret_key:hunter2": None}})
    message = refusal({"a": made, "b=hunter2": 5})
    assert "hunter2" not in message
