from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from mscfs.config.check import _annotations
from mscfs.config.load import find_profile
from mscfs.config.schema import Mscfs, Retry
from mscfs.config.values import GIB, MIB, CacheConfig, MscfsOptions, PosixConfig, RetryConfig
from tests.config.samples import parse, profile, refusal, replica


def mscfs(**keys: Any) -> MscfsOptions:
    config = parse({"a": profile(mscfs=keys)})
    assert config.warnings == ()
    return find_profile(config, "a").mscfs


def test_no_cache_section_is_no_cache() -> None:
    assert parse().cache is None
    assert parse(cache=None).cache is None


def test_cache_defaults() -> None:
    assert parse(cache={}).cache == CacheConfig()
    assert parse(cache={"eviction_policy": {}}).cache == CacheConfig()


def test_the_whole_cache_section() -> None:
    cache = {
        "size": "500g",
        "location": "/scratch/cache",
        "check_source_version": False,
        "prefetch_file": False,
        "cache_line_size": "8M",
        "eviction_policy": {"policy": "FIFO", "refresh_interval": 60, "purge_factor": 20},
    }
    assert parse(cache=cache).cache == CacheConfig(
        500 * GIB, Path("/scratch/cache"), False, False, 8 * MIB, "fifo", 60, 20
    )


def test_the_older_place_of_the_location() -> None:
    config = parse(cache={"cache_backend": {"cache_path": "/old"}})
    assert config.cache == CacheConfig(location=Path("/old"))
    config = parse(cache={"location": "/new", "cache_backend": {"cache_path": "/old"}})
    assert config.cache == CacheConfig(location=Path("/new"))
    assert "cache.cache_backend.cache_path: is ignored" in config.warnings[0]


@pytest.mark.parametrize("size", ["10K", "10", "10GB", "1.5G", "-1G", "0G", " 1G", 10, 1.5, True, None, "٣G"])
@pytest.mark.parametrize("key", ["size", "cache_line_size"])
def test_cache_sizes_have_a_unit(key: str, size: Any) -> None:
    message = refusal(cache={key: size})
    assert f"test: cache.{key}: must be a size with the unit M, G or T, such as 10G" in message


def test_a_cache_line_fits_into_the_cache() -> None:
    assert "cache.cache_line_size: must not be larger than cache.size" in refusal(
        cache={"size": "1G", "cache_line_size": "2G"}
    )
    assert parse(cache={"size": "32M"}).cache == CacheConfig(size=32 * MIB, line_size=32 * MIB)


@pytest.mark.parametrize(
    ("cache", "words"),
    [
        ({"size_mb": 500}, "cache.size_mb: is no longer supported: write cache.size with a unit, such as 500G"),
        ({"use_etag": True}, "cache.use_etag: is no longer supported: write cache.check_source_version"),
        ({"location": "cache"}, "cache.location: must be an absolute path"),
        ({"cache_backend": {"cache_path": "x"}}, "cache.cache_backend.cache_path: must be an absolute path"),
        ({"eviction_policy": {"policy": "lfu"}}, "policy: must be fifo, lru, mru, random or no_eviction"),
        ({"eviction_policy": {"refresh_interval": 0}}, "refresh_interval: must be a positive whole number"),
        ({"eviction_policy": {"purge_factor": 101}}, "purge_factor: must be a whole percentage from 0 to 100, not 101"),
        ({"check_source_version": "yes"}, "check_source_version: must be true or false, not a string"),
        ([], "cache: must be a mapping, not a list"),
    ],
)
def test_cache_errors(cache: Any, words: str) -> None:
    assert words in refusal(cache=cache)


def test_posix() -> None:
    assert parse().posix == PosixConfig()
    given = {"mountname": "m", "mountpoint": "/mnt/x", "allow_other": True, "auto_sighup_interval": 10}
    assert parse(posix=given).posix == PosixConfig("m", Path("/mnt/x"), True, 10)


@pytest.mark.parametrize("mountpoint", ["mnt", "", "/a//b", "//", "/a\0b", 5])
def test_a_mountpoint_is_absolute(mountpoint: Any) -> None:
    assert "posix.mountpoint: must be an absolute path without '//'" in refusal(posix={"mountpoint": mountpoint})


def test_path_mapping() -> None:
    mapping = {"/data/": "msc://a/", "s3://bucket/prefix/": "msc://a/"}
    config = parse(path_mapping=mapping)
    assert config.path_mapping == mapping
    assert config.warnings == ()
    assert "no profile is named 'b'" in parse(path_mapping={"/data/": "msc://b/"}).warnings[0]


@pytest.mark.parametrize("prefix", ["/data", "data/", "/", "S3://b/", "s3:///x/", "//x/"])
def test_a_mapped_prefix_ends_in_a_slash(prefix: str) -> None:
    assert "must be an absolute path or a URL, and end in '/'" in refusal(path_mapping={prefix: "msc://a/"})


@pytest.mark.parametrize("target", ["msc://a", "a", "msc://a/b/", 5, None])
def test_a_mapping_leads_to_a_profile(target: Any) -> None:
    assert "path_mapping./x/: must be a URL such as msc://profile/" in refusal(path_mapping={"/x/": target})


def test_opentelemetry_is_checked_and_kept() -> None:
    metrics = {
        "attributes": [{"type": "static", "options": {"attributes": {"a": 1}}}],
        "reader": {"options": {"collect_interval_millis": 10}, "async": True},
        "exporter": {"type": "otlp", "options": {"endpoint": "http://x"}},
    }
    config = parse(opentelemetry={"metrics": metrics})
    assert config.opentelemetry == {"metrics": metrics}
    assert config.warnings == ()
    message = refusal(opentelemetry={"metrics": {"attributes": [{"options": {}}], "exporter": "otlp"}})
    assert "opentelemetry.metrics.attributes[0].type: is required" in message
    assert "opentelemetry.metrics.exporter: must be a mapping with type and options, not a string" in message


def test_experimental_features_are_empty() -> None:
    assert parse(experimental_features={}).warnings == ()
    assert "experimental_features: must be an empty mapping" in refusal(experimental_features={"x": 1})


@pytest.mark.parametrize(("block", "values"), [(Mscfs, MscfsOptions), (Retry, RetryConfig)])
def test_the_schema_knows_every_value(block: Any, values: Any) -> None:
    assert list(_annotations(block)) == [field.name for field in dataclasses.fields(values)]


def test_the_whole_mscfs_block() -> None:
    assert mscfs(
        metadata_ttl="5m",
        read_consistency="replica",
        read_deadline="20s",
        store_timeout=2.5,
        propagate_deletes=True,
        preserve_attributes=True,
        page_cache=False,
        memory_limit="1G",
        chunk_size=2097152,
        staging_limit="20g",
        shutdown_timeout=0,
        metrics_address="[::1]:9464",
        hedging=False,
        sibling_read_ahead=False,
        workers=2,
        uid=1000,
        gid=1000,
        file_mode="0640",
        directory_mode="0o750",
    ) == MscfsOptions(
        300.0,
        "replica",
        20.0,
        2.5,
        True,
        True,
        False,
        GIB,
        2 * MIB,
        20 * GIB,
        0.0,
        "[::1]:9464",
        False,
        False,
        2,
        1000,
        1000,
        0o640,
        0o750,
    )


def test_R2_metadata_ttl_may_be_zero() -> None:
    assert mscfs(metadata_ttl=0).metadata_ttl == 0.0


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("metadata_ttl", -1, "must be a duration"),
        ("metadata_ttl", "-1s", "must be a duration"),
        ("metadata_ttl", True, "must be a duration"),
        ("metadata_ttl", float("inf"), "must be a duration"),
        ("metadata_ttl", None, "must be a duration"),
        ("store_timeout", 1e14, "must be at most ten years"),
        ("store_timeout", "9" * 400, "must be a duration"),
        ("read_deadline", 0, "must be at least 100ms"),
        ("store_timeout", "50ms", "must be at least 100ms"),
        ("memory_limit", 0.5, "must be a size in whole units"),
        ("memory_limit", "0.5G", "must be a size in whole units"),
        ("memory_limit", "15M", "must be at least 16M"),
        ("staging_limit", -1, "must be a size in whole units"),
        ("staging_limit", True, "must be a size in whole units"),
        ("chunk_size", "1K", "must be from 64K to 64M and a multiple of 4K"),
        ("chunk_size", "128M", "must be from 64K to 64M and a multiple of 4K"),
        ("chunk_size", 1048577, "must be from 64K to 64M and a multiple of 4K"),
        ("read_consistency", "eventual", "must be primary or replica"),
        ("workers", 65, "must be a whole number from 0 to 64, not 65"),
        ("workers", 1.5, "must be a whole number from 0 to 64, not 1.5"),
        ("uid", "root", "must be a numeric id, not a string"),
        ("gid", -1, "must be a numeric id, not -1"),
        ("file_mode", 420, "must be three octal digits in quotes"),
        ("file_mode", "rw-", "must be three octal digits in quotes"),
        ("directory_mode", "1777", "must be three octal digits in quotes"),
        ("hedging", 1, "must be true or false, not 1"),
        ("metrics_address", 9464, "must be HOST:PORT with a port from 1 to 65535"),
        ("metrics_address", None, "must be HOST:PORT with a port from 1 to 65535"),
        ("metrics_address", "127.0.0.1:0", "must be HOST:PORT with a port from 1 to 65535"),
    ],
)
def test_mscfs_errors(key: str, value: Any, words: str) -> None:
    assert f"test: profiles.a.mscfs.{key}: {words}" in refusal({"a": profile(mscfs={key: value})})


def test_R5_a_store_timeout_that_leaves_no_time_for_the_next_store_is_told() -> None:
    short = {"mscfs": {"read_deadline": 5}}
    assert parse({"a": profile(**short)}).warnings == ()
    config = parse({"a": profile(replicas=[replica("b")], **short), "b": profile()})
    assert "mscfs.store_timeout: is longer than read_deadline" in config.warnings[0]
