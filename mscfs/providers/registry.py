"""From a profile's configuration to its storage provider. SDKs are imported only for the types in use."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from mscfs.config.load import find_profile
from mscfs.config.values import Config, ProfileConfig
from mscfs.errors import ConfigError
from mscfs.providers.base import StorageProvider
from mscfs.providers.retry import RetryingProvider

_CLASSES = {
    "file": "mscfs.providers.file.FileProvider",
    "memory": "mscfs.providers.memory.MemoryProvider",
    "s3": "mscfs.providers.s3.S3Provider",
    "s8k": "mscfs.providers.s3.S8kProvider",
    "gcs_s3": "mscfs.providers.s3.GcsS3Provider",
    "gcs": "mscfs.providers.gcs.GcsProvider",
    "azure": "mscfs.providers.azure.AzureProvider",
}
_WITH_TIMEOUTS = frozenset({"s3", "s8k", "gcs_s3", "gcs", "azure"})
_NOT_OFFERED = frozenset({"ais", "ais_s3", "oci", "huggingface", "s3_cuobject"})
"""Types of the shared configuration format that mscfs does not have."""


def open_provider(config: Config, name: str, *, retry_reads: bool = True) -> StorageProvider:
    """The provider of one profile, without its replicas, which repeats what failed as the profile's `retry` says.

    `retry_reads` is false for a store that is only one of several to read from. No request is made yet. A dotted type
    is imported: a subclass of StorageProvider that takes `profile`, `options` and `credentials`. Raises ConfigError.
    """
    settings = find_profile(config, name)
    provider = _class_of(settings)(
        profile=name, options=_options_of(settings), credentials=settings.credentials_provider
    )
    return RetryingProvider(provider, settings.retry, retry_reads=retry_reads)


def load_provider(config: Config, name: str) -> None:
    """Import what a profile's provider is made of, so that processes forked afterwards share it. Raises ConfigError.

    A class that is named by its dotted name is left alone: its module may start threads, which no fork survives.
    """
    settings = find_profile(config, name)
    if settings.storage_provider.type in _CLASSES:
        _class_of(settings)


def _options_of(settings: ProfileConfig) -> dict[str, Any]:
    options = dict(settings.storage_provider.options)
    if settings.storage_provider.type in _WITH_TIMEOUTS:
        for name in ("connect_timeout", "read_timeout"):
            options.setdefault(name, settings.mscfs.store_timeout)
    return options


def _class_of(settings: ProfileConfig) -> Callable[..., StorageProvider]:
    kind = settings.storage_provider.type
    path = _CLASSES.get(kind, kind)
    module, _, attribute = path.rpartition(".")
    if kind in _NOT_OFFERED:
        raise ConfigError(f"profile {settings.name}: mscfs has no storage provider type '{kind}'")
    if not module:
        known = ", ".join(sorted(_CLASSES))
        raise ConfigError(f"profile {settings.name}: no storage provider type '{kind}'; known: {known}")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        message = f"profile {settings.name}: the storage provider class {path} cannot be loaded: {error}"
        raise ConfigError(message) from error
    if not (isinstance(found, type) and issubclass(found, StorageProvider)):
        raise ConfigError(f"profile {settings.name}: {path} is no mscfs.providers.base.StorageProvider")
    return found
