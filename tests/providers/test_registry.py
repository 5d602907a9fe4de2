from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mscfs.config.load import parse_config
from mscfs.config.values import Config, MscfsOptions, ProfileConfig, ProviderConfig, RetryConfig
from mscfs.errors import ConfigError
from mscfs.providers import registry
from mscfs.providers.file import FileProvider
from mscfs.providers.memory import MemoryProvider
from mscfs.providers.registry import open_provider
from mscfs.providers.retry import RetryingProvider


class CustomProvider(MemoryProvider):
    """A provider of somebody else's."""

    def __init__(self, *, profile: str, options: Any, credentials: ProviderConfig | None) -> None:
        super().__init__(profile=profile, options=options)
        self.given = (profile, options, credentials)


def config(kind: str, options: dict[str, Any], **more: Any) -> Config:
    return Config({"data": ProfileConfig("data", ProviderConfig(kind, options), **more)})


def opened(settings: Config) -> Any:
    provider = open_provider(settings, "data")
    assert isinstance(provider, RetryingProvider)
    return provider.inner


def test_a_configuration_opens(tmp_path: Path) -> None:
    data = {"profiles": {"data": {"storage_provider": {"type": "file", "options": {"base_path": str(tmp_path)}}}}}
    provider = open_provider(parse_config(data), "data")
    assert provider.profile == "data"
    assert provider.identity == f"file://{tmp_path}"
    assert isinstance(opened(parse_config(data)), FileProvider)


def test_a_memory_profile_opens() -> None:
    assert isinstance(opened(config("memory", {"base_path": "x"})), MemoryProvider)


def test_the_profiles_patience_is_used() -> None:
    provider = open_provider(config("memory", {"base_path": "x"}, retry=RetryConfig(7, 0.5, 3.0)), "data")
    assert isinstance(provider, RetryingProvider)
    assert provider._retry == RetryConfig(7, 0.5, 3.0)


@pytest.mark.parametrize("kind", ["s3", "s8k", "gcs_s3", "gcs", "azure"])
def test_store_timeout_is_how_long_a_store_may_be_silent(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CLASSES, kind, f"{__name__}.CustomProvider")
    patient = MscfsOptions(store_timeout=3.5)
    _, options, _ = opened(config(kind, {"base_path": "b"}, mscfs=patient)).given
    assert options == {"base_path": "b", "connect_timeout": 3.5, "read_timeout": 3.5}
    _, options, _ = opened(config(kind, {"base_path": "b", "read_timeout": 60}, mscfs=patient)).given
    assert options["read_timeout"] == 60


def test_a_dotted_type_is_imported_and_given_its_settings() -> None:
    credentials = ProviderConfig("Some", {"a": 1})
    settings = config(f"{__name__}.CustomProvider", {"base_path": "x"}, credentials_provider=credentials)
    assert opened(settings).given == ("data", {"base_path": "x"}, credentials)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("huggingface", "mscfs has no storage provider type 'huggingface'"),
        ("s4", "no storage provider type 's4'; known: azure, file,"),
        ("no.such.Thing", "cannot be loaded: No module named 'no'"),
        ("pathlib.Thing", "cannot be loaded"),
        ("pathlib.Path", "is no mscfs.providers.base.StorageProvider"),
    ],
)
def test_what_cannot_be_opened_is_a_configuration_error(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_provider(config(kind, {"base_path": "x"}), "data")


def test_no_sdk_is_imported_for_a_directory(tmp_path: Path) -> None:
    program = f"""
import sys
from mscfs.config.values import Config, ProfileConfig, ProviderConfig
from mscfs.providers.registry import open_provider
profile = ProfileConfig("data", ProviderConfig("file", {{"base_path": {str(tmp_path)!r}}}))
open_provider(Config({{"data": profile}}), "data").put("k", b"1")
loaded = {{"boto3", "google.cloud.storage", "azure.storage.blob", "obstore", "trio", "pydantic"}} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
