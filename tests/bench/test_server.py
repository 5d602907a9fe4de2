"""The benchmark's server speaks S3 as mscfs, boto3 and obstore expect it, so that figures are of real work."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mscfs.config.values import ProviderConfig
from mscfs.providers.base import StorageProvider
from mscfs.providers.s3 import S3Provider
from tests.bench import server
from tests.bench.raw import _store as obstore_store
from tests.providers.contract import ProviderContract

pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(server.missing() is not None, reason=f"nginx with Lua: {server.INSTALL}"),
]

MIB = 1 << 20


@pytest.fixture(scope="module")
def running() -> Iterator[server.Server]:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        server.running(Path(directory) / "server") as started,
    ):
        yield started


@pytest.fixture
def bucket(running: server.Server) -> Iterator[server.Bucket]:
    made = running.bucket(f"test-{uuid.uuid4().hex}")
    yield made
    made.clear()
    made.path.rmdir()


@pytest.fixture
def client(running: server.Server) -> Any:
    return running.client()


class TestContract(ProviderContract):
    """All that mscfs asks of a store."""

    @pytest.fixture
    def provider(
        self, running: server.Server, bucket: server.Bucket, request: pytest.FixtureRequest
    ) -> StorageProvider:
        if request.node.name == "test_N2_keys_that_are_no_paths_break_nothing":
            pytest.skip("capability: keys of the benchmark's server are names of files")
        return S3Provider(
            profile="bench",
            options={
                "base_path": f"{bucket.name}/some/prefix",
                "endpoint_url": running.url,
                "region_name": server.REGION,
            },
            credentials=ProviderConfig(
                type="S3Credentials", options={"access_key": server.ACCESS_KEY, "secret_key": server.SECRET_KEY}
            ),
        )


def test_what_get_head_and_listing_say_agrees(bucket: server.Bucket, client: Any) -> None:
    bucket.put("a/b", b"12345")
    client.put_object(Bucket=bucket.name, Key="a/c", Body=b"123", Metadata={"made-of": "x"}, ContentType="text/x")
    listed = {entry["Key"]: entry for entry in client.list_objects_v2(Bucket=bucket.name)["Contents"]}
    for key, size in (("a/b", 5), ("a/c", 3)):
        got, head = client.get_object(Bucket=bucket.name, Key=key), client.head_object(Bucket=bucket.name, Key=key)
        assert got["ETag"] == head["ETag"] == listed[key]["ETag"]
        assert got["LastModified"] == head["LastModified"] == listed[key]["LastModified"]
        assert got["ContentLength"] == head["ContentLength"] == listed[key]["Size"] == size
    assert head["Metadata"] == {"made-of": "x"}
    assert head["ContentType"] == "text/x"


def test_an_overwrite_of_the_same_size_is_another_version(bucket: server.Bucket, client: Any) -> None:
    tags = {client.put_object(Bucket=bucket.name, Key="k", Body=b"same")["ETag"] for _ in range(50)}
    assert len(tags) == 50


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("page", [1, 2, 3, 1000])
def test_pages_of_listings_lose_and_repeat_nothing(
    bucket: server.Bucket, client: Any, version: int, delimiter: str, page: int
) -> None:
    keys = ["a", "a/", "a/1", "a/b/2", "a0", "b & <c>/+ %/é", "b", "z\n"]
    for key in keys:
        bucket.put(key, b"")
    pages = client.get_paginator("list_objects_v2" if version == 2 else "list_objects").paginate(
        Bucket=bucket.name, Delimiter=delimiter, PaginationConfig={"PageSize": page}
    )
    found = [
        name
        for answer in pages
        for name in (
            *(entry["Key"] for entry in answer.get("Contents", [])),
            *(entry["Prefix"] for entry in answer.get("CommonPrefixes", [])),
        )
    ]
    expected = {key.partition("/")[0] + "/" if "/" in key else key for key in keys} if delimiter else set(keys)
    assert sorted(found) == sorted(expected)


def test_a_listing_begins_after_a_key_and_holds_one_prefix(bucket: server.Bucket, client: Any) -> None:
    for number in range(5):
        bucket.put(f"p/{number}", b"")
        bucket.put(f"q/{number}", b"")
    answer = client.list_objects_v2(Bucket=bucket.name, Prefix="p/", StartAfter="p/2")
    assert [entry["Key"] for entry in answer["Contents"]] == ["p/3", "p/4"]


def test_a_listing_sees_what_was_just_written_or_deleted(bucket: server.Bucket, client: Any) -> None:
    """Whichever of nginx's processes answers."""
    present = set()
    for number in range(40):
        key = f"k{number}"
        if number % 3:
            bucket.put(key, b"")
        else:
            client.put_object(Bucket=bucket.name, Key=key, Body=b"")
        present.add(key)
        if number % 4 == 0:
            client.delete_object(Bucket=bucket.name, Key=key)
            present.discard(key)
        fresh = client if number % 2 else obstore_listing(client.meta.endpoint_url, bucket.name)
        found = (
            {entry["Key"] for entry in fresh.list_objects_v2(Bucket=bucket.name).get("Contents", [])}
            if number % 2
            else fresh
        )
        assert found == present


def obstore_listing(url: str, bucket: str) -> set[str]:
    import obstore

    return {entry["path"] for page in obstore.list(obstore_store(url, bucket)) for entry in page}


def test_parts_become_one_object_with_one_version(bucket: server.Bucket, client: Any) -> None:
    import obstore

    content = os.urandom(17 * MIB)
    store = obstore_store(client.meta.endpoint_url, bucket.name)
    obstore.put(store, "k", content, chunk_size=5 * MIB)
    before = client.head_object(Bucket=bucket.name, Key="k")
    assert before["ContentLength"] == len(content)
    assert bucket.holds("k", len(content))
    assert obstore.get_range(store, "k", start=9 * MIB, length=3 * MIB) == content[9 * MIB : 12 * MIB]
    assert bucket.file("k").read_bytes() == content
    assert client.head_object(Bucket=bucket.name, Key="k")["ETag"] == before["ETag"]
    client.copy_object(Bucket=bucket.name, Key="copy", CopySource={"Bucket": bucket.name, "Key": "k"})
    assert bucket.file("copy").read_bytes() == content


def test_the_counters_tell_the_bytes_of_objects(running: server.Server, bucket: server.Bucket, client: Any) -> None:
    bucket.put("k", bytes(100_000))
    before = running.counters()
    client.get_object(Bucket=bucket.name, Key="k")["Body"].read()
    client.get_object(Bucket=bucket.name, Key="k", Range="bytes=10-19")["Body"].read()
    client.list_objects_v2(Bucket=bucket.name)
    client.head_object(Bucket=bucket.name, Key="k")
    # A request counts when it has ended, which may be a moment after the client has the last byte.
    for _ in range(100):
        sent = running.counters() - before
        if sent.object_bytes >= 100_010:
            break
    assert sent.object_bytes == 100_010


def test_the_server_ends_with_whoever_started_it(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.bench import server\n"
        f"with server.running(Path({str(tmp_path)!r}) / 's') as running: print(running.port)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    import socket

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(done.stdout)), timeout=5)
