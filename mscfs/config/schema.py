"""The blocks of a configuration file, key by key. Imports pydantic: `load` imports this when it parses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Required

from pydantic import AfterValidator, BeforeValidator, Field, with_config
from typing_extensions import TypedDict

from mscfs.config.check import STRICT
from mscfs.config.units import parse_address, parse_duration, parse_size
from mscfs.config.values import MIB

_LONGEST_DURATION = 10 * 365 * 86_400.0
"""Seconds. More is a slip, and would overflow what clocks count in."""


def _cache_size(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch("[0-9]+[MGT]", value, re.IGNORECASE) and (size := parse_size(value)):
        return size
    raise ValueError("must be a size with the unit M, G or T, such as 10G")


def _size(value: Any) -> int:
    if isinstance(value, str):
        return parse_size(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ValueError("must be a size in whole units, such as 512M or 10G, or a whole number of bytes")


def _duration(value: Any) -> float:
    if isinstance(value, str):
        value = parse_duration(value)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < float("inf"):
        raise ValueError("must be a duration such as 60, 60s, 250ms, 5m or 1h")
    if value > _LONGEST_DURATION:
        raise ValueError("must be at most ten years")
    return float(value)


def _mode(value: Any) -> int:
    # An unquoted 0644 is 420 after YAML and impossible in JSON; only a string says clearly that it is octal.
    if isinstance(value, str) and re.fullmatch("(0o?)?[0-7]{3}", value):
        return int(value[-3:], 8)
    raise ValueError('must be three octal digits in quotes, such as "0644"')


def _address(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)  # YAML may have read a number
    if text:
        parse_address(text)
    return text


def _chunk_size(size: int) -> int:
    if not MIB // 16 <= size <= 64 * MIB or size % 4096:
        raise ValueError("must be from 64K to 64M and a multiple of 4K")
    return size


def _memory_limit(size: int) -> int:
    if size < 16 * MIB:
        raise ValueError("must be at least 16M")
    return size


def _time_limit(seconds: float) -> float:
    if seconds < 0.1:
        raise ValueError("must be at least 100ms")
    return seconds


def _replaced_by(advice: str) -> Callable[[Any], Any]:
    def refuse(_: Any) -> Any:
        raise ValueError(f"is no longer supported: {advice}")

    return refuse


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


AbsolutePath = Annotated[str, Field(pattern="^/", description="an absolute path")]
Flag = Annotated[bool, Field(description="true or false")]
Text = Annotated[str, Field(description="a string")]
Name = Annotated[str, Field(min_length=1, description="a name that is not empty")]
AnyMapping = Annotated[dict[str, Any], Field(description="a mapping")]
Count = Annotated[int, Field(ge=0, description="a whole number, 0 or more")]
Destination = Annotated[str, Field(pattern="^msc://[^/]+/$", description="a URL such as msc://profile/")]
CacheSize = Annotated[int, BeforeValidator(_cache_size)]
Size = Annotated[int, BeforeValidator(_size)]
Duration = Annotated[float, BeforeValidator(_duration)]
TimeLimit = Annotated[float, BeforeValidator(_duration), AfterValidator(_time_limit)]
UserId = Annotated[int, Field(ge=0, lt=2**32 - 1, description="a numeric id")]
Address = Annotated[str, BeforeValidator(_address)]
Mode = Annotated[int, BeforeValidator(_mode)]


@with_config(STRICT)
class EvictionPolicy(TypedDict, total=False):
    """`cache.eviction_policy`."""

    policy: Annotated[
        str,
        BeforeValidator(_lower),
        Field(pattern="^(fifo|lru|mru|random|no_eviction)$", description="fifo, lru, mru, random or no_eviction"),
    ]
    refresh_interval: Annotated[int, Field(ge=1, description="a positive whole number of seconds")]
    purge_factor: Annotated[int, Field(ge=0, le=100, description="a whole percentage from 0 to 100")]


@with_config(STRICT)
class CacheBackend(TypedDict, total=False):
    """`cache.cache_backend`, the older place of `cache.location`."""

    cache_path: AbsolutePath


@with_config(STRICT)
class Cache(TypedDict, total=False):
    """`cache`."""

    size: CacheSize
    location: AbsolutePath
    check_source_version: Flag
    prefetch_file: Flag
    cache_line_size: CacheSize
    eviction_policy: Annotated[EvictionPolicy, Field(description="a mapping")]
    cache_backend: Annotated[CacheBackend, Field(description="a mapping")]
    size_mb: Annotated[Any, BeforeValidator(_replaced_by("write cache.size with a unit, such as 500G"))]
    use_etag: Annotated[Any, BeforeValidator(_replaced_by("write cache.check_source_version"))]


@with_config(STRICT)
class Posix(TypedDict, total=False):
    """`posix`."""

    mountname: Text
    mountpoint: Annotated[str, Field(pattern=r"^/([^/\x00]+/)*[^/\x00]*$", description="an absolute path without '//'")]
    allow_other: Flag
    auto_sighup_interval: Count


@with_config(STRICT)
class Extension(TypedDict, total=False):
    """A `{type, options}` pair."""

    type: Required[Name]
    options: AnyMapping


# Written as a call, for the sake of the key `async`.
Reader = TypedDict("Reader", {"options": AnyMapping, "async": Flag}, total=False)
with_config(STRICT)(Reader)


@with_config(STRICT)
class Metrics(TypedDict, total=False):
    """`opentelemetry.metrics`."""

    attributes: Annotated[list[Extension], Field(description="a list of {type, options}")]
    reader: Annotated[Reader, Field(description="a mapping")]
    exporter: Annotated[Extension, Field(description="a mapping with type and options")]


@with_config(STRICT)
class OpenTelemetry(TypedDict, total=False):
    """`opentelemetry`."""

    metrics: Annotated[Metrics, Field(description="a mapping")]


@with_config(STRICT)
class File(TypedDict, total=False):
    """The top of a file. Its profiles are checked one by one, with `Profile`."""

    include: Annotated[list[Name], Field(description="a list of file names")]
    experimental_features: Annotated[dict[str, Any], Field(max_length=0, description="an empty mapping")]
    profiles: Annotated[dict[str, Any], Field(description="a mapping of names to profiles")]
    cache: Annotated[Cache, Field(description="a mapping")]
    opentelemetry: Annotated[OpenTelemetry, Field(description="a mapping")]
    path_mapping: Annotated[dict[str, Destination], Field(description="a mapping of URL prefixes to msc://profile/")]
    posix: Annotated[Posix, Field(description="a mapping")]


@with_config(STRICT)
class StorageProvider(TypedDict, total=False):
    """A profile's `storage_provider`; its options are checked by type, with `options`."""

    type: Required[Name]
    options: AnyMapping


@with_config(STRICT)
class Replica(TypedDict, total=False):
    """An entry of a profile's `replicas`."""

    replica_profile: Required[Annotated[str, Field(min_length=1, description="the name of another profile")]]
    read_priority: Required[Annotated[int, Field(ge=1, description="a positive whole number; 1 is read first")]]
    read_only: Flag


@with_config(STRICT)
class Retry(TypedDict, total=False):
    """A profile's `retry`."""

    attempts: Annotated[int, Field(ge=1, description="a whole number, 1 or more")]
    delay: Annotated[float, Field(ge=0, description="a number of seconds, 0 or more")]
    backoff_multiplier: Annotated[float, Field(ge=1, description="a number, 1 or more")]


@with_config(STRICT)
class Autocommit(TypedDict, total=False):
    """A profile's `autocommit`: it belongs to metadata providers and means nothing without one."""

    interval_minutes: Annotated[float, Field(ge=0, description="a number of minutes, 0 or more")]
    at_exit: Flag


@with_config(STRICT)
class Mscfs(TypedDict, total=False):
    """A profile's `mscfs`: the keys of mscfs alone. Meanings and defaults: `values.MscfsOptions`."""

    metadata_ttl: Duration
    read_consistency: Annotated[str, Field(pattern="^(primary|replica)$", description="primary or replica")]
    read_deadline: TimeLimit
    store_timeout: TimeLimit
    propagate_deletes: Flag
    preserve_attributes: Flag
    page_cache: Flag
    memory_limit: Annotated[int, BeforeValidator(_size), AfterValidator(_memory_limit)]
    chunk_size: Annotated[int, BeforeValidator(_size), AfterValidator(_chunk_size)]
    staging_limit: Size
    shutdown_timeout: Duration
    metrics_address: Address
    hedging: Flag
    sibling_read_ahead: Flag
    workers: Annotated[int, Field(ge=0, le=64, description="a whole number from 0 to 64")]
    uid: UserId
    gid: UserId
    file_mode: Mode
    directory_mode: Mode


@with_config(STRICT)
class Profile(TypedDict, total=False):
    """One profile. The last three keys are valid in the shared format and cannot be used by mscfs."""

    comment: Text
    storage_provider: Annotated[StorageProvider, Field(description="a mapping with type and options")]
    credentials_provider: Annotated[Extension, Field(description="a mapping with type and options")]
    replicas: Annotated[list[Replica], Field(description="a list of {replica_profile, read_priority}")]
    caching_enabled: Flag
    retry: Annotated[Retry, Field(description="a mapping")]
    mscfs: Annotated[Mscfs, Field(description="a mapping")]
    autocommit: Annotated[Autocommit, Field(description="a mapping")]
    metadata_provider: Annotated[Extension, Field(description="a mapping with type and options")]
    provider_bundle: Annotated[Extension, Field(description="a mapping with type and options")]
    storage_provider_profiles: Annotated[list[Name], Field(description="a list of profile names")]
