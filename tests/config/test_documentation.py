from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mscfs.config import options, schema
from mscfs.config.check import _annotations
from mscfs.config.load import parse_config
from mscfs.config.units import parse_duration, parse_size
from mscfs.config.values import MscfsOptions
from tests.config.samples import profile

TEXT = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
WORDS = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)))


def blocks() -> Iterator[Any]:
    for module in (schema, options):
        for name, value in vars(module).items():
            if hasattr(value, "__total__") and not name.startswith("_") and name != "TypedDict":
                yield value


@pytest.mark.parametrize("block", list(blocks()), ids=lambda block: block.__name__)
def test_every_key_is_documented(block: Any) -> None:
    words = {word for text in WORDS for word in re.findall(r"\w+", text)}
    assert set(_annotations(block)) <= words


@pytest.mark.parametrize(
    "names",
    [
        options.STORAGE_OPTIONS,
        options.CREDENTIALS_OPTIONS,
        options.UNSUPPORTED_STORAGE,
        options.UNSUPPORTED_CREDENTIALS,
    ],
)
def test_every_type_is_documented(names: Any) -> None:
    assert set(names) <= {word for text in WORDS for word in re.split(r"[, ]+", text)}


@pytest.mark.parametrize("field", dataclasses.fields(MscfsOptions), ids=lambda field: field.name)
def test_the_defaults_of_mscfs_are_documented(field: dataclasses.Field[Any]) -> None:
    row = re.search(rf"^\| [^|]*`{field.name}`[^|]*\|[^|]*\| ([^|]*) \|", TEXT, re.MULTILINE)
    assert row is not None
    told, default = row[1].replace("`", ""), field.default
    if field.name.endswith("_mode"):
        assert f'"{default:04o}"' in told
    elif isinstance(default, bool):
        assert told == str(default).lower()
    elif isinstance(default, float):
        assert parse_duration(told) == default
    elif isinstance(default, int):
        assert parse_size(told) == default
    else:
        assert told == (default or {"metrics_address": "none"}.get(field.name, "who mounts"))


def test_the_examples_are_accepted() -> None:
    examples = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)]
    assert len(examples) > 5
    others = {name: profile() for name in ("training-data", "local-copy", "archive")}
    for example in examples:
        if "include" in example:
            continue
        if {"profiles", "path_mapping", "opentelemetry"} & set(example):
            data = {"profiles": others, **example}
        else:
            data = {"profiles": {**others, "a": {**profile("azure"), **example}}}
        config = parse_config(data)
        assert config.warnings == ()
        assert not [line for lines in config.unusable.values() for line in lines if "must be set" not in line]
