from __future__ import annotations

import json

import pytest

import mscfs
from mscfs.client import shortcuts
from mscfs.errors import ConfigError, UsageError


@pytest.fixture(autouse=True)
def no_clients_of_earlier_tests():
    yield
    for cached in (shortcuts._client, shortcuts._configuration):
        cached.cache_clear()


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """A configuration with the profile `data` and a mapping of two other places to it."""
    stores = tmp_path / "store", tmp_path / "near"
    for store in stores:
        store.mkdir()
    profiles = {
        name: {"storage_provider": {"type": "file", "options": {"base_path": str(store)}}}
        for name, store in zip(("data", "near"), stores, strict=True)
    }
    profiles["data"]["replicas"] = [{"replica_profile": "near", "read_priority": 1}]
    mapping = {"/lustre/data/": "msc://data/", "s3://old-bucket/": "msc://data/"}
    (tmp_path / "config.json").write_text(json.dumps({"profiles": profiles, "path_mapping": mapping}))
    monkeypatch.setenv("MSC_CONFIG", str(tmp_path / "config.json"))
    return tmp_path


def test_open_by_url(configured):
    with mscfs.open("msc://data/d/k", "w", encoding="utf-8") as file:
        file.write("grüße")
    assert (configured / "store" / "d" / "k").read_text() == "grüße"
    with mscfs.open("msc://data/d/k") as file:
        assert file.read() == "grüße".encode()


@pytest.mark.parametrize("prefix", ["/lustre/data/", "s3://old-bucket/", "msc:/data/"])
def test_mapped_paths_mean_the_profile(configured, prefix):
    mscfs.write(prefix + "k", b"content")
    assert (configured / "store" / "k").read_bytes() == b"content"
    assert mscfs.open(prefix + "k").read() == b"content"


@pytest.mark.usefixtures("configured")
def test_everything_else_by_url(tmp_path):
    mscfs.write("msc://data/d/a", b"1", attributes={"n": 1})
    (tmp_path / "local").write_bytes(b"22")
    mscfs.upload_file("msc://data/d/b", tmp_path / "local")
    assert mscfs.is_file("msc://data/d/a")
    assert not mscfs.is_empty("msc://data/d")
    assert mscfs.info("msc://data/d/b").content_length == 2
    assert [entry.key for entry in mscfs.list("msc://data/d")] == ["msc://data/d/a", "msc://data/d/b"]
    assert mscfs.glob("msc://data/**/b") == ["msc://data/d/b"]
    mscfs.download_file("msc://data/d/a", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"1"
    assert mscfs.sync_replicas("msc://data/", dryrun=True).replicas[0].profile == "near"
    mscfs.delete("msc://data/d", recursive=True)
    assert mscfs.is_empty("msc://data/")


def test_local_paths_need_no_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with mscfs.open("relative", "wb") as file:
        file.write(b"content")
    assert mscfs.open(f"file://{tmp_path}/relative").read() == b"content"
    assert mscfs.open(tmp_path / "relative").read() == b"content"


def test_a_client_is_made_once_for_each_profile(configured):
    assert mscfs.resolve_storage_client("msc://data/a")[0] is mscfs.resolve_storage_client("/lustre/data/b")[0]
    assert mscfs.resolve_storage_client("msc://data/a")[1] == "a"
    assert mscfs.resolve_storage_client("s3://elsewhere/a")[0].profile == "_s3-elsewhere"


def test_what_cannot_be_meant(configured, monkeypatch):
    with pytest.raises(ConfigError, match="did you mean 'data'"):
        mscfs.open("msc://dato/k")
    with pytest.raises(UsageError, match="http"):
        mscfs.open("http://host/k")
    monkeypatch.setenv("MSC_CONFIG", str(configured / "nothing.yaml"))
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        mscfs.open("msc://data/k")
