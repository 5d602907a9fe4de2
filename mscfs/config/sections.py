"""The sections beside `profiles`, from checked data to values."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from mscfs.config.merge import Merger, Part
from mscfs.config.problems import Location, Problem, printable
from mscfs.config.values import CacheConfig, PosixConfig

_MAPPED_PREFIX = re.compile(r"(/|[a-z][a-z0-9+.-]*://)[^/].*/")

_CACHE_BACKEND: Location = ("cache", "cache_backend", "cache_path")


def build_cache(part: Part | None) -> tuple[CacheConfig | None, list[Problem]]:
    """`cache`; None without the section."""
    if part is None:
        return None, []
    given = part.checked.get("cache", {})
    eviction = given.get("eviction_policy", {})
    older = given.get("cache_backend", {}).get("cache_path")
    problems = []
    if older and "location" in given:
        message = "is ignored, because cache.location is given: remove it"
        problems.append(part.document.problem("warning", _CACHE_BACKEND, message))
    location = given.get("location") or older
    values = {
        "size": given.get("size"),
        "location": Path(location) if location else None,
        "check_source_version": given.get("check_source_version"),
        "prefetch_file": given.get("prefetch_file"),
        "line_size": given.get("cache_line_size"),
        "eviction_policy": eviction.get("policy"),
        "refresh_interval": eviction.get("refresh_interval"),
        "purge_factor": eviction.get("purge_factor"),
    }
    cache = CacheConfig(**{name: value for name, value in values.items() if value is not None})
    if cache.line_size > cache.size:
        if "cache_line_size" in given:
            message = "must not be larger than cache.size"
            problems.append(part.document.problem("error", ("cache", "cache_line_size"), message))
        cache = replace(cache, line_size=cache.size)
    return cache, problems


def build_posix(part: Part | None) -> PosixConfig:
    """`posix`, with defaults for what is not given."""
    given = dict(part.checked.get("posix", {})) if part else {}
    if "mountpoint" in given:
        given["mountpoint"] = Path(given["mountpoint"])
    return PosixConfig(**given)


def build_path_mapping(merger: Merger, profiles: Collection[str]) -> tuple[dict[str, str], list[Problem]]:
    """`path_mapping` of all files. A target that is no profile is worth a warning: it may be meant for others."""
    mapping, problems = {}, []
    for prefix, part in merger.entries("path_mapping"):
        location = ("path_mapping", prefix)
        target = part.checked.get("path_mapping", {}).get(prefix, "")
        profile = target.removeprefix("msc://").rstrip("/")
        if not _MAPPED_PREFIX.fullmatch(prefix):
            message = "must be an absolute path or a URL, and end in '/'"
            problems.append(part.document.problem("error", location, message))
        elif profile and profile not in profiles:
            message = f"no profile is named '{printable(profile)}'"
            problems.append(part.document.problem("warning", location, message))
        mapping[prefix] = target
    return mapping, problems


def merge_opentelemetry(merger: Merger) -> dict[str, Any]:
    """`opentelemetry` of all files, as it stands: the attributes one after the other, the rest from one file."""
    metrics = {}
    for key in ("reader", "exporter"):
        part = merger.section("opentelemetry", "metrics", key)
        if part:
            metrics[key] = part.expanded("opentelemetry", "metrics", key)
    attributes = merger.concatenated("opentelemetry", "metrics", "attributes")
    if attributes:
        metrics["attributes"] = attributes
    return {"metrics": metrics} if metrics else {}
