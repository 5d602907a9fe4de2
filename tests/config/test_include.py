from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mscfs.config.load import load_config, parse_config
from mscfs.errors import ConfigError
from tests.config.samples import profile, with_options, write


def error_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    return str(caught.value)


def test_includes_are_relative_to_the_including_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    write(tmp_path / "team" / "more.yaml", {"profiles": {"b": profile("gcs")}, "cache": {"size": "2G"}})
    far = write(
        tmp_path / "far.json",
        '{"profiles": {"c": {"storage_provider": {"type": "file", "options": {"base_path": "/"}}}}}',
    )
    main = write(tmp_path / "main.yaml", {"include": ["team/more.yaml", str(far)], "profiles": {"a": profile()}})
    config = load_config(main)
    assert set(config.profiles) == {"a", "b", "c"}
    assert config.cache is not None
    assert config.cache.size == 2 << 30
    assert config.files == (main, tmp_path / "team" / "more.yaml", far)


def test_an_include_of_a_mapping_starts_at_base(tmp_path: Path) -> None:
    write(tmp_path / "more.yaml", {"profiles": {"b": profile()}})
    assert "b" in parse_config({"include": ["more.yaml"]}, base=tmp_path).profiles
    with pytest.raises(ConfigError, match=r"include\[0\]: must be an absolute path"):
        parse_config({"include": ["more.yaml"]})


def test_variables_in_the_name_of_an_include(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM", "red")
    write(tmp_path / "red.yaml", {"profiles": {"b": profile()}})
    assert "b" in load_config(write(tmp_path / "main.yaml", {"include": ["${TEAM}.yaml"]})).profiles


def test_identical_definitions_are_allowed(tmp_path: Path) -> None:
    shared = {"profiles": {"a": profile()}, "cache": {"size": "1G"}, "posix": {"allow_other": True}}
    write(tmp_path / "more.yaml", shared)
    main = write(tmp_path / "main.yaml", {"include": ["more.yaml", "more.yaml"], **shared})
    assert set(load_config(main).profiles) == {"a"}


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ({"profiles": {"a": profile()}}, {"profiles": {"a": profile("gcs")}}, "profiles.a: 'a'"),
        # Shallow: a profile is not put together from two halves.
        ({"profiles": {"a": profile()}}, {"profiles": {"a": profile(caching_enabled=True)}}, "profiles.a: 'a'"),
        ({"cache": {"size": "1G"}}, {"cache": {"size": "2G"}}, "cache: 'cache'"),
        ({"posix": {"mountpoint": "/a"}}, {"posix": {"mountpoint": "/b"}}, "posix: 'posix'"),
        ({"path_mapping": {"/x/": "msc://a/"}}, {"path_mapping": {"/x/": "msc://b/"}}, "path_mapping./x/: '/x/'"),
        (
            {"opentelemetry": {"metrics": {"reader": {"options": {"x": 1}}}}},
            {"opentelemetry": {"metrics": {"reader": {"options": {"x": 2}}}}},
            "opentelemetry.metrics.reader: 'reader'",
        ),
    ],
)
def test_conflicts_name_both_files(tmp_path: Path, first: dict[str, Any], second: dict[str, Any], key: str) -> None:
    main = write(tmp_path / "main.yaml", {**first, "include": ["more.yaml"]})
    more = write(tmp_path / "more.yaml", second)
    message = error_of(main)
    assert message.startswith(f"{more}:")
    assert f"{key} is defined differently in {main}:" in message
    assert len(message.splitlines()) == 1


def test_definitions_are_compared_before_variables_are_expanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUCKET", "bucket")
    write(tmp_path / "more.yaml", {"profiles": {"a": profile()}})
    main = {"include": ["more.yaml"], "profiles": {"a": with_options("s3", base_path="$BUCKET")}}
    assert "defined differently" in error_of(write(tmp_path / "main.yaml", main))


def test_opentelemetry_attributes_are_concatenated_and_the_rest_comes_from_either_file(tmp_path: Path) -> None:
    write(
        tmp_path / "more.yaml",
        {"opentelemetry": {"metrics": {"attributes": [{"type": "host"}], "exporter": {"type": "otlp"}}}},
    )
    main = write(
        tmp_path / "main.yaml",
        {
            "include": ["more.yaml"],
            "opentelemetry": {"metrics": {"attributes": [{"type": "process"}], "reader": {"options": {"x": 1}}}},
        },
    )
    assert load_config(main).opentelemetry == {
        "metrics": {
            "attributes": [{"type": "process"}, {"type": "host"}],
            "reader": {"options": {"x": 1}},
            "exporter": {"type": "otlp"},
        }
    }


def test_one_level_only(tmp_path: Path) -> None:
    write(tmp_path / "more.yaml", {"include": ["third.yaml"]})
    main = write(tmp_path / "main.yaml", {"include": ["more.yaml"]})
    assert "more.yaml:1: include: must be removed: an included file cannot include others" in error_of(main)


def test_all_includes_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    write(tmp_path / "bad.yaml", "a: {")
    main = write(tmp_path / "main.yaml", "include:\n- none.yaml\n- bad.yaml\n- ''\n- 5\n")
    message = error_of(main)
    assert f"{main}:2: include[0]: {tmp_path}/none.yaml: cannot be read: No such file" in message
    assert f"{main}:3: include[1]: {tmp_path}/bad.yaml:1: is not valid YAML" in message
    assert f"{main}:4: include[2]: must be a name" in message
    assert f"{main}:5: include[3]: must be a name" in message


def test_problems_of_an_included_file_name_that_file(tmp_path: Path) -> None:
    more = write(tmp_path / "more.yaml", "profiles:\n  b:\n    storage_provider: {type: s3}\n    replicas: 3\n")
    message = error_of(write(tmp_path / "main.yaml", {"include": ["more.yaml"], "profiles": {"a": 1}}))
    assert f"{more}:4: profiles.b.replicas: must be a list" in message
    assert f"{tmp_path}/main.yaml:4: profiles.a: must be a mapping" in message


def test_replicas_may_be_in_another_file(tmp_path: Path) -> None:
    write(tmp_path / "more.yaml", {"profiles": {"b": profile("gcs")}})
    listed = [{"replica_profile": "b", "read_priority": 1}]
    main = write(tmp_path / "main.yaml", {"include": ["more.yaml"], "profiles": {"a": profile(replicas=listed)}})
    assert load_config(main).profiles["a"].replicas[0].profile == "b"
