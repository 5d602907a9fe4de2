"""From a profile's configuration to its storage provider. SDKs are imported only for the types in use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from mscfs.config.load import find_profile
from mscfs.config.values import Config
from mscfs.errors import ConfigError
from mscfs.providers.base import StorageProvider

_CLASSES = {
    "file": "mscfs.providers.file.FileProvider",
    "memory": "mscfs.providers.memory.MemoryProvider",
    "s3": "mscfs.providers.s3.S3Provider",
    "s8k": "mscfs.providers.s3.S8kProvider",
    "gcs_s3": "mscfs.providers.s3.GcsS3Provider",
    "gcs": "mscfs.providers.gcs.GcsProvider",
    "azure": "mscfs.providers.azure.AzureProvider",
}


def open_provider(config: Config, name: str) -> StorageProvider:
    """The provider of one profile, without its replicas. No request is made yet.

    A dotted type is imported: a class that takes `profile`, `options` and `credentials`. Raises ConfigError.
    """
    settings = find_profile(config, name)
    kind = settings.storage_provider.type
    path = _CLASSES.get(kind, kind)
    provider = _class(name, path)(
        profile=name, options=settings.storage_provider.options, credentials=settings.credentials_provider
    )
    if not isinstance(provider, StorageProvider):
        raise ConfigError(f"profile {name}: {path} is no mscfs.providers.base.StorageProvider")
    return provider


def _class(name: str, path: str) -> Any:
    module, _, attribute = path.rpartition(".")
    if not module:
        raise ConfigError(f"profile {name}: no storage provider type {path!r}; known: {', '.join(sorted(_CLASSES))}")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"profile {name}: the storage provider class {path} cannot be loaded: {error}") from error
