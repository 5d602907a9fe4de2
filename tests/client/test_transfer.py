from __future__ import annotations

import io
import os
import threading

import pytest

from mscfs.client import transfer
from mscfs.errors import NotFoundError, StoreUnavailableError
from tests.client.stores import Store

pytestmark = pytest.mark.usefixtures("no_background")

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def small_ranges(monkeypatch):
    monkeypatch.setattr(transfer, "PARALLEL_FROM", 300_000)
    monkeypatch.setattr(transfer, "RANGE_SIZE", 70_000)


@pytest.fixture
def client(world):
    made = world.client()
    made.write("k", CONTENT)
    return made


def leftovers(directory):
    return [entry.name for entry in directory.iterdir() if entry.name.startswith(".mscfs-")]


@pytest.mark.parametrize("ranges", ["one", "many"])
def test_download_to_a_path(client, tmp_path, ranges, request):
    if ranges == "many":
        request.getfixturevalue("small_ranges")
    target = tmp_path / "new" / "directory" / "file"
    client.download_file("k", str(target))
    assert target.read_bytes() == CONTENT
    assert target.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert leftovers(target.parent) == []


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.usefixtures("small_ranges")
def test_R5_a_failing_replica_costs_a_download_nothing(world, client, tmp_path):
    world.replicate()
    world.near.break_after = 1000
    client.download_file("k", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == CONTENT


@pytest.mark.usefixtures("small_ranges")
def test_a_download_that_fails_leaves_the_old_file(world, client, tmp_path):
    (tmp_path / "file").write_text("old")
    world.primary.break_after = 50_000
    with pytest.raises(StoreUnavailableError):
        client.download_file("k", tmp_path / "file")
    with pytest.raises(NotFoundError):
        client.download_file("nothing", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "old"
    assert leftovers(tmp_path) == []


@pytest.mark.usefixtures("small_ranges")
def test_R1_a_download_of_an_object_that_is_replaced_begins_again(world, client, tmp_path):
    replaced = threading.Event()

    def replace(_key):
        if world.primary.calls["get"] == 3 and not replaced.is_set():
            replaced.set()
            Store.put(world.primary, "k", CONTENT[::-1])

    world.primary.before["get"] = replace
    counted = []
    transfer.download(client.store, "k", tmp_path / "file", on_bytes=counted.append)
    assert replaced.is_set()
    assert (tmp_path / "file").read_bytes() == CONTENT[::-1]
    assert sum(counted) == len(CONTENT)


def test_download_through_a_link_keeps_the_link(client, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    client.download_file("k", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_download_into_a_pipe_writes_to_the_pipe(client, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    client.download_file("k", tmp_path / "pipe")
    reader.join(10)
    assert got == [CONTENT]
    assert (tmp_path / "pipe").is_fifo()


def test_download_into_an_open_file(client):
    target = io.BytesIO()
    client.download_file("k", target)
    assert target.getvalue() == CONTENT


def test_upload_of_a_path_a_stream_and_a_pipe(client, tmp_path):
    (tmp_path / "file").write_bytes(CONTENT)
    client.upload_file("a", tmp_path / "file", attributes={"n": 1})
    client.upload_file("b", io.BytesIO(b"stream"))
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"piped"), daemon=True)
    writer.start()
    client.upload_file("c", str(tmp_path / "pipe"))
    writer.join(10)
    assert [client.read(key) for key in "abc"] == [CONTENT, b"stream", b"piped"]
    assert dict(client.info("a").metadata) == {"n": "1"}


def test_upload_of_what_is_not_there(client, tmp_path):
    with pytest.raises(FileNotFoundError):
        client.upload_file("a", tmp_path / "nothing")
    with pytest.raises(IsADirectoryError):
        client.upload_file("a", tmp_path)


def test_copy_between_stores_takes_user_metadata_and_leaves_the_stamp(world, client):
    client.write("k", b"x", attributes={"run": "3"})
    world.replicate()
    other = Store("other")
    transfer.copy_between(world.near, "k", other, "copy")
    assert other.content("copy") == b"x"
    assert dict(other.head("copy").metadata) == {"run": "3"}
    client.store.make_symlink("link", "k")
    transfer.copy_between(client.store, "link", other, "link")
    assert other.head("link").symlink_target == "k"
