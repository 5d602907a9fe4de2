from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from mscfs.client.paths import literal_prefix, locate_url, match, to_key
from mscfs.errors import UsageError

MAPPING = {"/data/": "msc://data/", "/data/big/": "msc://big/", "s3://old-bucket/": "msc://new/"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("msc://profile/a/b", ("profile", "a/b")),
        ("msc://profile//a///b", ("profile", "a/b")),
        ("msc:/profile/a", ("profile", "a")),
        ("msc://profile", ("profile", "")),
        ("msc://profile/a?b#c", ("profile", "a?b#c")),
        ("/data/x", ("data", "x")),
        ("/data/big/x", ("big", "x")),
        ("s3://old-bucket/x", ("new", "x")),
        ("s3://other/x/y", ("_s3-other", "x/y")),
        ("gs://other/x", ("_gs-other", "x")),
        ("/etc/hosts", ("__filesystem__", "etc/hosts")),
        ("file:///etc/hosts", ("__filesystem__", "etc/hosts")),
        (PurePosixPath("/etc/hosts"), ("__filesystem__", "etc/hosts")),
    ],
)
def test_urls(url, expected):
    assert locate_url(url, MAPPING) == expected


def test_a_relative_path_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert locate_url("x/y", {}) == ("__filesystem__", str(tmp_path / "x/y").lstrip("/"))


@pytest.mark.parametrize("url", ["http://host/x", "msc:///x", "ftp://x/y"])
def test_urls_that_mean_nothing_here(url):
    with pytest.raises(UsageError):
        locate_url(url, {})


def test_keys():
    assert to_key("//a/b/") == to_key(PurePosixPath("/a/b")) + "/" == "a/b/"


def test_the_directory_before_the_first_wildcard():
    assert literal_prefix("a/b/*.txt") == "a/b/"
    assert literal_prefix("a/b/c") == "a/b/"
    assert literal_prefix("**/x") == literal_prefix("x") == ""
    assert literal_prefix("a/[bc]/d/*") == "a/"


def test_wildcards_do_not_cross_segments_and_escape_nothing_else():
    keys = ["a/b", "a.b", "axb", "(a)/b+c", "a/b/c/d"]
    assert list(match(keys, "a.b")) == ["a.b"]
    assert list(match(keys, "a?b")) == ["a.b", "axb"]
    assert list(match(keys, "*")) == ["a", "a.b", "axb", "(a)"]
    assert list(match(keys, "(a)/b+*")) == ["(a)/b+c"]
    assert list(match(keys, "**/**/d")) == ["a/b/c/d"]
    assert list(match(keys, "a/**/d")) == ["a/b/c/d"]
    assert list(match(["a/b\nc"], "a/*")) == ["a/b\nc"]
