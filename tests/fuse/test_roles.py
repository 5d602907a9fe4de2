"""The black box with every kind of store in every role."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mscfs.config.load import load_config
from mscfs.errors import NotFoundError
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, with_replicas, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

ROLES = [
    ("s3", "file", "azure"),
    ("s3", "gcs", "s3"),
    ("gcs", "s3", "file"),
    ("azure", "gcs", "s3"),
    ("file", "azure", "gcs"),
]
"""Primary, first replica, second replica: each kind of store in each role."""

CONTENT = {
    "top": b"top",
    "empty": b"",
    "d/e/f.bin": os.urandom(300_000),
    "big.bin": os.urandom(3 << 20),
    "odd name +%20#'&=.txt": b"odd",
    "日本語/ü": b"utf-8",
}


@pytest.fixture(params=ROLES, ids="-".join)
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mounted]:
    def store(kind: str, name: str) -> dict[str, Any]:
        if kind == "file":
            return file_store(tmp_path / name)
        return request.getfixturevalue(f"{kind}_server").new_bucket()

    primary, near, far = request.param
    write_config(
        tmp_path,
        {
            "data": with_replicas(store(primary, "primary"), "near", "far", metadata_ttl=0, page_cache=False),
            "near": store(near, "near"),
            "far": store(far, "far"),
        },
    )
    m = Mounted(tmp_path)
    m.mount()
    yield m
    unmount_whatever_is_left(m)


def behind(m: Mounted, profile: str) -> StorageProvider:
    """A store, past the mount."""
    return open_provider(load_config(m.config), profile)


def contents(provider: StorageProvider) -> dict[str, bytes]:
    return {entry.key: provider.get(entry.key).read_all() for entry in provider.list() if not entry.is_directory}


def through(m: Mounted) -> dict[str, bytes]:
    return {
        str(path.relative_to(m.path)): path.read_bytes()
        for path in m.path.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def test_every_store_in_every_role(mounted: Mounted) -> None:
    m = mounted
    primary = behind(m, "data")
    for key, data in CONTENT.items():
        primary.put(key, data)

    # R3, R6: reads equal the primary; then both replicas hold everything.
    assert through(m) == CONTENT
    m.drain()
    assert contents(behind(m, "near")) == CONTENT
    assert contents(behind(m, "far")) == CONTENT

    # R3: the second pass comes from the first replica.
    before = m.status()
    assert through(m) == CONTENT
    after = m.status()
    assert after["primary"]["hits"] == before["primary"]["hits"]
    assert after["replicas"][0]["hits"] > before["replicas"][0]["hits"]

    # W1, W2: on the primary when close() returns, on the replicas after drain.
    data = os.urandom(700_000)
    (m.path / "d/new").write_bytes(data)
    assert primary.get("d/new").read_all() == data
    with (m.path / "d/new").open("r+b") as file:
        file.seek(10)
        file.write(b"in place")
    data = data[:10] + b"in place" + data[18:]
    assert primary.get("d/new").read_all() == data
    (m.path / "d/new").rename(m.path / "d/renamed")
    assert primary.get("d/renamed").read_all() == data
    m.drain()
    for name in ("near", "far"):
        assert behind(m, name).get("d/renamed").read_all() == data

    # R2, R4: overwritten behind the mount with the same size: the new bytes, never the replicas' old ones.
    primary.put("top", b"TOP")
    assert (m.path / "top").read_bytes() == b"TOP"
    m.drain()
    for name in ("near", "far"):
        assert behind(m, name).get("top").read_all() == b"TOP"

    # W8: deleted behind the mount and through it: gone, although replicas still hold it.
    primary.delete("top")
    with pytest.raises(FileNotFoundError):
        (m.path / "top").read_bytes()
    (m.path / "big.bin").unlink()
    with pytest.raises(NotFoundError):
        primary.head("big.bin")
    assert behind(m, "near").head("big.bin").content_length == 3 << 20

    # Directories and links.
    (m.path / "made/deep").mkdir(parents=True)
    (m.path / "link").symlink_to("d/renamed")
    assert (m.path / "link").read_bytes() == data
    (m.path / "made/deep").rmdir()
    (m.path / "made").rmdir()
    assert sorted(os.listdir(m.path)) == ["d", "empty", "link", "odd name +%20#'&=.txt", "日本語"]
    m.umount()
    assert os.listdir(m.path) == []
