"""The longest keys: they work, and what is longer is told by its own error before anything is sent (N3)."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mscfs.errors import InvalidKeyError, KeyTooLongError
from mscfs.providers.base import StorageProvider
from mscfs.providers.file import FileProvider
from tests.providers import test_azure, test_gcs, test_s3
from tests.providers.contract import body, keys

pytestmark = pytest.mark.emulator


def of_s3(request: pytest.FixtureRequest, _: Path) -> StorageProvider:
    return test_s3.opened(request.getfixturevalue("s3_server").new_bucket())


def of_gcs(request: pytest.FixtureRequest, _: Path) -> StorageProvider:
    return test_gcs.opened(request.getfixturevalue("gcs_server").new_bucket())


def of_azure(request: pytest.FixtureRequest, _: Path) -> StorageProvider:
    return test_azure.opened(request.getfixturevalue("azure_server").new_bucket())


def of_file(_: pytest.FixtureRequest, root: Path) -> StorageProvider:
    return FileProvider(options={"base_path": str(root)})


Opener = Callable[[pytest.FixtureRequest, Path], StorageProvider]
each_store = pytest.mark.parametrize("opener", [of_s3, of_gcs, of_azure, of_file])


def longest_key(provider: StorageProvider) -> str:
    """A key of names of 200 bytes, as long as the provider says a key may be."""
    whole = "/".join(["n" * 200] * 25)
    for length in range(len(whole), 0, -1):
        try:
            provider.check_new_key(whole[:length])
        except KeyTooLongError:
            continue
        return whole[:length]
    raise AssertionError


@each_store
def test_N3_the_longest_key_works_and_a_longer_one_is_refused_as_such(
    opener: Opener, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    provider = opener(request, tmp_path)
    key = longest_key(provider)
    assert len(key) > 900
    provider.put(key, b"1")
    assert body(provider, key) == b"1"
    assert keys(provider.list()) == [key]
    provider.copy(key, "e")
    longer: list[Callable[[], Any]] = [
        lambda: provider.put(key + "x", b"1"),
        lambda: provider.start_upload(key + "x").complete(),
        lambda: provider.copy("e", key + "x"),
        lambda: provider.make_directory(key + "x/"),
        lambda: provider.check_new_key(key + "x"),
    ]
    for call in longer:
        with pytest.raises(KeyTooLongError) as refused:
            call()
        assert refused.value.errno == errno.ENAMETOOLONG
    provider.delete(key)
    provider.delete("e")
    assert keys(provider.list()) == []


@pytest.mark.parametrize("opener", [of_s3, of_gcs])
def test_N3_the_length_of_a_key_is_counted_in_bytes(
    opener: Opener, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    provider = opener(request, tmp_path)
    provider.check_new_key("é" * 450)
    with pytest.raises(KeyTooLongError):
        provider.check_new_key("é" * 513)


@pytest.mark.parametrize(
    ("opener", "key"),
    [(of_gcs, "new\nline"), (of_azure, "dot."), (of_azure, "back\\slash"), (of_file, ".mscfs-x.draft")],
)
def test_N3_what_a_store_cannot_hold_is_known_without_asking_it(
    opener: Opener, key: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with pytest.raises(InvalidKeyError) as refused:
        opener(request, tmp_path).check_new_key(key)
    assert refused.value.errno == errno.EINVAL


def test_N3_a_path_below_a_directory_is_as_long_as_the_kernel_takes_it(tmp_path: Path) -> None:
    provider = of_file(None, tmp_path)  # type: ignore[arg-type]
    assert len(os.fsencode(tmp_path / longest_key(provider))) == 4095
