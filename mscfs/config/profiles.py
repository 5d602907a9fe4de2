"""From one profile of a file to a `ProfileConfig`, and the rules between profiles. Imports pydantic."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mscfs.config.check import check
from mscfs.config.document import Document
from mscfs.config.implicit import FILESYSTEM_PROFILE
from mscfs.config.options import (
    CREDENTIALS_OPTIONS,
    STORAGE_OPTIONS,
    UNSUPPORTED_CREDENTIALS,
    UNSUPPORTED_STORAGE,
)
from mscfs.config.problems import Kind, Location, Problem, did_you_mean, printable
from mscfs.config.schema import Profile
from mscfs.config.values import MscfsOptions, ProfileConfig, ProviderConfig, ReplicaConfig, RetryConfig

_FILESYSTEM = {"storage_provider": {"type": "file", "options": {"base_path": "/"}}}

_CLASS_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_LONGEST_NAME = 200
"""Bytes: it is part of the names of directories and files."""
_UNSUPPORTED_KEYS = ("provider_bundle", "storage_provider_profiles", "metadata_provider")


@dataclass(frozen=True)
class RawProfile:
    """One profile as it stands in `document`, its variables expanded."""

    name: str
    data: Any
    document: Document

    @property
    def location(self) -> Location:
        """Where it stands."""
        return ("profiles", self.name)

    def problem(self, kind: Kind, message: str, *steps: str | int) -> Problem:
        """A problem at a key of this profile."""
        return self.document.problem(kind, (*self.location, *steps), message)


def build_profile(raw: RawProfile) -> tuple[ProfileConfig | None, list[Problem]]:
    """The profile, or None, and everything that is wrong inside it."""
    problems = list(_check_name(raw))
    if not isinstance(raw.data, dict):
        return None, [*problems, raw.problem("error", "must be a mapping with the key 'storage_provider'")]
    checked, found = check(Profile, raw.data, raw.document, raw.location)
    problems += found
    storage, found = _build_storage_provider(raw)
    problems += found
    credentials, found = _build_credentials_provider(raw, storage)
    problems += found
    if checked is None or storage is None:
        return None, problems
    replicas = [
        ReplicaConfig(entry["replica_profile"], entry["read_priority"], entry.get("read_only", False))
        for entry in checked.get("replicas", ())
    ]
    options = MscfsOptions(**checked.get("mscfs", {}))
    if replicas and options.store_timeout > options.read_deadline:
        message = "is longer than read_deadline: a silent store leaves no time to ask the next one"
        problems.append(raw.problem("warning", message, "mscfs", "store_timeout"))
    profile = ProfileConfig(
        raw.name,
        storage,
        credentials,
        tuple(sorted(replicas, key=lambda replica: replica.read_priority)),
        checked.get("caching_enabled", False),
        RetryConfig(**checked.get("retry", {})),
        options,
    )
    return profile, problems


def check_replicas(raw: RawProfile, others: Mapping[str, RawProfile]) -> Iterator[Problem]:
    """What is wrong with the replicas a profile names: they must exist, be others, and have no replicas themselves."""
    seen: set[str] = set()
    for index, name in _replica_names(raw.data):
        where = ("replicas", index, "replica_profile")
        if name == raw.name:
            yield raw.problem("error", "a profile cannot be its own replica", *where)
        elif name in seen:
            yield raw.problem("error", f"'{printable(name)}' is listed twice", *where)
        elif name not in others:
            known = [other for other in others if other != raw.name]
            yield raw.problem("error", f"no profile is named '{printable(name)}'{did_you_mean(name, known)}", *where)
        elif any(_replica_names(others[name].data)):
            # A write would reach the replica but not the replica's replicas: nobody who writes this expects that.
            message = (
                f"'{printable(name)}' has replicas of its own, which is not followed: list them here, and name a "
                "profile without replicas for this place"
            )
            yield raw.problem("unusable", message, *where)
        seen.add(name)


def _check_name(raw: RawProfile) -> Iterator[Problem]:
    if raw.name == FILESYSTEM_PROFILE:
        if raw.data != _FILESYSTEM:
            yield raw.problem("error", "is reserved for the local file system and cannot be changed: rename it")
    elif not raw.name or raw.name.startswith("_"):
        yield raw.problem("error", "a profile's name must not be empty or begin with '_': rename it")
    elif "/" in raw.name or not raw.name.isprintable():
        yield raw.problem("error", "a profile's name must not hold '/' or control characters: rename it")
    elif len(raw.name.encode()) > _LONGEST_NAME:
        yield raw.problem("error", f"a profile's name must not have more than {_LONGEST_NAME} bytes: rename it")


def _build_storage_provider(raw: RawProfile) -> tuple[ProviderConfig | None, list[Problem]]:
    key = "storage_provider"
    problems = []
    for other in _UNSUPPORTED_KEYS:
        if other in raw.data:
            message = "is part of the shared format and not supported by mscfs: this profile cannot be used"
            problems.append(raw.problem("unsupported", message, other))
    others = [other for other in _UNSUPPORTED_KEYS[:2] if other in raw.data]
    if key not in raw.data:
        if not others:
            problems.append(raw.problem("error", "is required: a mapping with type and options", key))
        return None, problems
    if others:
        problems.append(raw.problem("error", f"excludes {key}: remove one of them", others[0]))
    kind, options = _type_and_options(raw.data[key])
    if kind is None or options is None:
        return None, problems  # `check` has said so
    if kind in UNSUPPORTED_STORAGE:
        message = f"'{kind}' is part of the shared format and not supported by mscfs: this profile cannot be used"
        return None, [*problems, raw.problem("unsupported", message, key, "type")]
    block = STORAGE_OPTIONS.get(kind)
    if block is None:
        if not _CLASS_NAME.fullmatch(kind):
            known = ", ".join(STORAGE_OPTIONS)
            message = f"must be one of {known}, or a class as module.Class{did_you_mean(kind, STORAGE_OPTIONS)}"
            return None, [*problems, raw.problem("error", message, key, "type")]
        return ProviderConfig(kind, options), problems
    checked, found = check(block, options, raw.document, (*raw.location, key, "options"), kind="unusable")
    return (None if checked is None else ProviderConfig(kind, checked)), [*problems, *found]


def _build_credentials_provider(
    raw: RawProfile, storage: ProviderConfig | None
) -> tuple[ProviderConfig | None, list[Problem]]:
    key = "credentials_provider"
    kind, options = _type_and_options(raw.data.get(key))
    if kind is None or options is None:
        return None, []
    if kind in UNSUPPORTED_CREDENTIALS:
        message = f"'{kind}' is part of the shared format and not supported by mscfs: this profile cannot be used"
        return None, [raw.problem("unsupported", message, key, "type")]
    if kind not in CREDENTIALS_OPTIONS:
        if _CLASS_NAME.fullmatch(kind):
            return ProviderConfig(kind, options), []
        known = ", ".join(CREDENTIALS_OPTIONS)
        message = f"must be one of {known}, or a class as module.Class{did_you_mean(kind, CREDENTIALS_OPTIONS)}"
        return None, [raw.problem("error", message, key, "type")]
    block, serves = CREDENTIALS_OPTIONS[kind]
    problems = []
    if storage is not None and storage.type in STORAGE_OPTIONS and storage.type not in {*serves, "file"}:
        message = f"{kind} is for {', '.join(sorted(serves))}, not for a storage provider of type {storage.type}"
        problems.append(raw.problem("unusable", message, key, "type"))
    if kind == "GoogleServiceAccountCredentialsProvider" and ("file" in options) == ("info" in options):
        problems.append(raw.problem("error", "needs either file or info", key, "options"))
    if block is None:
        return ProviderConfig(kind, options), problems
    checked, found = check(block, options, raw.document, (*raw.location, key, "options"), kind="unusable")
    return ProviderConfig(kind, checked or {}), [*problems, *found]


def _type_and_options(pair: Any) -> tuple[str | None, dict[str, Any] | None]:
    """The two halves of a `{type, options}` pair where they are well-formed; options that are null were not given."""
    if not isinstance(pair, dict):
        return None, None
    kind, options = pair.get("type"), pair.get("options", {})
    if not isinstance(options, dict):
        options = None
    else:
        options = {name: value for name, value in options.items() if value is not None}
    return (kind if isinstance(kind, str) and kind else None), options


def _replica_names(data: Any) -> Iterator[tuple[int, str]]:
    entries = data.get("replicas") if isinstance(data, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and isinstance(entry.get("replica_profile"), str):
            yield index, entry["replica_profile"]
