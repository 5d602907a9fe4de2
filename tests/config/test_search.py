from __future__ import annotations

from pathlib import Path

import pytest

from mscfs.config.search import find_file, places
from mscfs.errors import ConfigError


def test_places_in_order() -> None:
    environment = {"XDG_CONFIG_HOME": "/x", "HOME": "/h", "XDG_CONFIG_DIRS": "/one: /two :"}
    assert [str(place) for place in places(environment)] == [
        "/x/msc/config.yaml",
        "/x/msc/config.json",
        "/h/.msc_config.yaml",
        "/h/.msc_config.json",
        "/h/.config/msc/config.yaml",
        "/h/.config/msc/config.json",
        "/one/msc/config.yaml",
        "/one/msc/config.json",
        "/two/msc/config.yaml",
        "/two/msc/config.json",
        "/etc/msc_config.yaml",
        "/etc/msc_config.json",
    ]


def test_places_of_a_service_without_home() -> None:
    assert [str(place) for place in places({})] == [
        "/etc/xdg/msc/config.yaml",
        "/etc/xdg/msc/config.json",
        "/etc/msc_config.yaml",
        "/etc/msc_config.json",
    ]


def test_the_first_that_exists_wins(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "etc")}
    late = tmp_path / "etc" / "msc" / "config.json"
    late.parent.mkdir(parents=True)
    late.touch()
    assert find_file(environment) == late
    early = tmp_path / ".msc_config.json"
    early.touch()
    assert find_file(environment) == early


def test_MSC_CONFIG_comes_before_every_place(tmp_path: Path) -> None:
    (tmp_path / ".msc_config.yaml").touch()
    named = tmp_path / "named.yaml"
    named.touch()
    assert find_file({"HOME": str(tmp_path), "MSC_CONFIG": str(named)}) == named


def test_empty_MSC_CONFIG_is_none(tmp_path: Path) -> None:
    (tmp_path / ".msc_config.yaml").touch()
    assert find_file({"HOME": str(tmp_path), "MSC_CONFIG": ""}) == tmp_path / ".msc_config.yaml"


def test_a_missing_file_in_MSC_CONFIG_is_an_error_even_with_another_file(tmp_path: Path) -> None:
    (tmp_path / ".msc_config.yaml").touch()
    with pytest.raises(ConfigError, match="MSC_CONFIG names /nowhere, which does not exist: correct"):
        find_file({"HOME": str(tmp_path), "MSC_CONFIG": "/nowhere"})


def test_no_file_lists_where_it_was_looked_for_and_how_to_give_one(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "etc")}
    with pytest.raises(ConfigError) as caught:
        find_file(environment)
    message = str(caught.value)
    assert "--config" in message
    assert "MSC_CONFIG" in message
    assert all(str(place) in message for place in places(environment))
    assert "\n" not in message
