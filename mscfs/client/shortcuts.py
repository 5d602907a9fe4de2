"""The same by URL: `mscfs.open("msc://profile/key")` and its relatives, without making a client first.

One client for each profile is kept for the life of the process, made from the configuration that `MSC_CONFIG` or the
search order names at its first use. `path_mapping` turns other URLs and paths into `msc://` ones; what it does not map
is a local path, or a bucket (`s3://`, `gs://`) with the SDK's own settings.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterator
from functools import cache
from typing import IO, Any

from mscfs.client import sync
from mscfs.client.client import StorageClient
from mscfs.client.config import StorageClientConfig
from mscfs.client.paths import AnyPath, locate_url
from mscfs.config.load import load_config
from mscfs.config.search import places
from mscfs.config.values import Config
from mscfs.types import ObjectMetadata


def resolve_storage_client(url: AnyPath) -> tuple[StorageClient, str]:
    """The client and the key that a URL or a local path means."""
    named = os.environ.get("MSC_CONFIG", "")
    profile, key = locate_url(url, _configuration(named).path_mapping)
    return _client(named, profile), key


def open(url: AnyPath, mode: str = "rb", **options: Any) -> IO[Any]:  # noqa: A001 - the library's counterpart of it
    """Open an object as a file: see `StorageClient.open`."""
    client, key = resolve_storage_client(url)
    return client.open(key, mode, **options)


def write(url: AnyPath, body: bytes, attributes: dict[str, Any] | None = None) -> None:
    """Store an object."""
    client, key = resolve_storage_client(url)
    client.write(key, body, attributes)


def delete(url: AnyPath, recursive: bool = False) -> None:
    """Remove an object or, with `recursive`, a directory."""
    client, key = resolve_storage_client(url)
    client.delete(key, recursive)


def info(url: AnyPath) -> ObjectMetadata:
    """The metadata of an object or a directory."""
    client, key = resolve_storage_client(url)
    return client.info(key)


def is_file(url: AnyPath) -> bool:
    """Whether an object has this key."""
    client, key = resolve_storage_client(url)
    return client.is_file(key)


def is_empty(url: AnyPath) -> bool:
    """Whether nothing has this key or lies below it."""
    client, key = resolve_storage_client(url)
    return client.is_empty(key)


def list(  # noqa: A001 - the name other object-storage libraries use
    url: AnyPath, start_after: str | None = None, end_at: str | None = None, include_directories: bool = False
) -> Iterator[ObjectMetadata]:
    """What is at and below a URL; keys are whole `msc://` URLs."""
    client, key = resolve_storage_client(url)
    return client.list(key, start_after, end_at, include_directories, include_url_prefix=True)


def glob(pattern: AnyPath) -> builtins.list[str]:
    """The `msc://` URLs that match a pattern."""
    client, key = resolve_storage_client(pattern)
    return client.glob(key, include_url_prefix=True)


def download_file(url: AnyPath, local_path: AnyPath) -> None:
    """Fetch an object to a local path."""
    client, key = resolve_storage_client(url)
    client.download_file(key, local_path)


def upload_file(url: AnyPath, local_path: AnyPath, attributes: dict[str, Any] | None = None) -> None:
    """Store a local file."""
    client, key = resolve_storage_client(url)
    client.upload_file(key, local_path, attributes)


def sync_replicas(
    url: AnyPath,
    replica_indices: builtins.list[int] | None = None,
    delete_unmatched_files: bool = False,
    dryrun: bool = False,
) -> sync.SyncResult:
    """Bring everything at and below a URL to the replicas of its profile."""
    client, key = resolve_storage_client(url)
    return client.sync_replicas(key, replica_indices, delete_unmatched_files, dryrun)


@cache
def _configuration(named: str) -> Config:
    if not named and not any(place.exists() for place in places(os.environ)):
        # Local paths and buckets with the SDK's own settings need none.
        return Config(profiles={})
    return load_config()


@cache
def _client(named: str, profile: str) -> StorageClient:
    return StorageClient(StorageClientConfig(_configuration(named), profile))
