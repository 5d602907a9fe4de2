"""The configuration as frozen values: what the rest of mscfs sees. How files become these: `load` and `schema`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True)
class ProviderConfig:
    """A `{type, options}` pair: a short name or a dotted class, and its keyword options (may hold secrets)."""

    type: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class ReplicaConfig:
    """One entry of a profile's `replicas`."""

    profile: str
    read_priority: int
    read_only: bool = False


@dataclass(frozen=True)
class RetryConfig:
    """How often and how patiently a failed call to a store is repeated. `delay` in seconds."""

    attempts: int = 3
    delay: float = 1.0
    backoff_multiplier: float = 2.0


@dataclass(frozen=True)
class CacheConfig:
    """The top-level `cache` block. Sizes in bytes; `location` None means the default cache directory."""

    size: int = 10 * GIB
    location: Path | None = None
    check_source_version: bool = True
    prefetch_file: bool = True
    line_size: int = 64 * MIB
    eviction_policy: Literal["fifo", "lru", "mru", "random", "no_eviction"] = "lru"
    refresh_interval: int = 300
    purge_factor: int = 0


@dataclass(frozen=True)
class PosixConfig:
    """The top-level `posix` block: defaults for a mount."""

    mountname: str | None = None
    mountpoint: Path = Path("/mnt")
    allow_other: bool = False
    auto_sighup_interval: int = 0


@dataclass(frozen=True)
class MscfsOptions:
    """The keys below a profile's own `mscfs:` block. Times in seconds, sizes in bytes."""

    metadata_ttl: float = 60.0
    """How long names, attributes and versions are believed without asking the primary; 0 asks at every open."""
    read_consistency: Literal["primary", "replica"] = "primary"
    """`primary`: a replica's copy must be of the primary's version (R4). `replica`: first replica that has the key."""
    read_deadline: float = 30.0
    """A read that no store could serve fails with EIO after this long, never later."""
    store_timeout: float = 10.0
    """How long one request to one store may stay silent before the next store is asked."""
    propagate_deletes: bool = False
    preserve_attributes: bool = False
    page_cache: bool = True
    """Let the kernel keep a file's contents between opens while its version is unchanged."""
    memory_limit: int = 512 * MIB
    chunk_size: int = 1 * MIB
    staging_limit: int = 0
    """Bytes of staging files at once; 0: as much as the disk has free."""
    shutdown_timeout: float = 90.0
    metrics_address: str = ""
    """`HOST:PORT` where metrics are told over HTTP, without a host on the loopback; empty: no port is opened."""
    hedging: bool = True
    sibling_read_ahead: bool = True
    """Fetch the next small files of a directory whose files are opened in listing order."""
    workers: int = 0
    """Fetch worker processes; 0: one for every two cores, at most four."""
    uid: int | None = None
    gid: int | None = None
    file_mode: int = 0o644
    directory_mode: int = 0o755


@dataclass(frozen=True)
class ProfileConfig:
    """One profile, complete and validated."""

    name: str
    storage_provider: ProviderConfig
    credentials_provider: ProviderConfig | None = None
    replicas: tuple[ReplicaConfig, ...] = ()
    """Sorted by read_priority; equal priorities in the order listed."""
    caching_enabled: bool = False
    retry: RetryConfig = RetryConfig()
    mscfs: MscfsOptions = MscfsOptions()


@dataclass(frozen=True)
class Config:
    """A whole configuration. Profiles are looked up with `load.find_profile`, which knows the unusable ones."""

    profiles: Mapping[str, ProfileConfig]
    cache: CacheConfig | None = None
    posix: PosixConfig = PosixConfig()
    path_mapping: Mapping[str, str] = field(default_factory=dict)
    opentelemetry: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: tuple[Path, ...] = ()
    """The files it was read from, the main one first."""
    warnings: tuple[str, ...] = ()
    """One line each; no secrets."""
    unusable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Profiles that cannot be used, and why, one line each: these are not in `profiles`."""
