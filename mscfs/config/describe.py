"""A profile as it takes effect, in the form of a configuration file: defaults filled in, secrets masked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from mscfs.config.secrets import mask, mask_all
from mscfs.config.units import format_size
from mscfs.config.values import CacheConfig, Config, MscfsOptions, ProfileConfig, ProviderConfig

_SIZES = frozenset({"memory_limit", "chunk_size", "staging_limit"})
_MODES = frozenset({"file_mode", "directory_mode"})
_NOT_SECRET = frozenset({"base_path"})


def describe(config: Config, profile: ProfileConfig) -> dict[str, Any]:
    """Everything that a mount of this profile reads: the profile, its replicas' profiles, `cache` and `posix`.

    Without the masked values it is a valid configuration again. Keys that have neither value nor default are left
    out. Replicas must be usable (`load.find_profile` sees to that).
    """
    stores = [profile, *(config.profiles[replica.profile] for replica in profile.replicas)]
    described: dict[str, Any] = {"profiles": {store.name: _profile(store) for store in stores}}
    if config.cache:
        described["cache"] = _cache(config.cache)
    described["posix"] = _given({**asdict(config.posix), "mountpoint": str(config.posix.mountpoint)})
    return described


def _profile(profile: ProfileConfig) -> dict[str, Any]:
    described: dict[str, Any] = {"storage_provider": _provider(profile.storage_provider)}
    if profile.credentials_provider:
        described["credentials_provider"] = _provider(profile.credentials_provider)
    if profile.replicas:
        described["replicas"] = [
            {
                "replica_profile": replica.profile,
                "read_priority": replica.read_priority,
                "read_only": replica.read_only,
            }
            for replica in profile.replicas
        ]
    described["caching_enabled"] = profile.caching_enabled
    described["retry"] = asdict(profile.retry)
    described["mscfs"] = _options(profile.mscfs)
    return described


def _provider(provider: ProviderConfig) -> dict[str, Any]:
    # What the options of an unknown class mean is unknown too.
    custom = "." in provider.type
    options = mask_all(provider.options, keep=_NOT_SECRET) if custom else mask(provider.options)
    return {"type": provider.type, "options": options}


def _options(options: MscfsOptions) -> dict[str, Any]:
    described = _given(asdict(options))
    described |= {name: format_size(described[name]) for name in _SIZES}
    return described | {name: f"{described[name]:04o}" for name in _MODES}


def _cache(cache: CacheConfig) -> dict[str, Any]:
    return _given(
        {
            "size": format_size(cache.size),
            "location": str(cache.location) if cache.location else None,
            "check_source_version": cache.check_source_version,
            "prefetch_file": cache.prefetch_file,
            "cache_line_size": format_size(cache.line_size),
            "eviction_policy": {
                "policy": cache.eviction_policy,
                "refresh_interval": cache.refresh_interval,
                "purge_factor": cache.purge_factor,
            },
        }
    )


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
