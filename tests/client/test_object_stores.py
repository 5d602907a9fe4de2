"""The library on servers that speak the object stores' protocols: S3 as primary, GCS and Azure as replicas."""

from __future__ import annotations

import multiprocessing
import pickle
import random
import subprocess
import sys
import time

import pytest

from mscfs.client import transfer
from mscfs.client.client import StorageClient
from mscfs.client.config import StorageClientConfig
from mscfs.types import ByteRange

pytestmark = pytest.mark.emulator

LARGE = random.Random(1).randbytes(20 << 20)
SECONDS = 60


@pytest.fixture
def config(s3_server, gcs_server, azure_server):
    profiles = {
        "data": s3_server.new_bucket(),
        "near": gcs_server.new_bucket(),
        "far": azure_server.new_bucket(),
    }
    profiles["data"]["replicas"] = [
        {"replica_profile": "near", "read_priority": 1},
        {"replica_profile": "far", "read_priority": 2},
    ]
    return StorageClientConfig.from_dict({"profiles": profiles}, "data")


@pytest.fixture
def client(config):
    with StorageClient(config) as made:
        yield made


def test_W2_R3_what_is_written_reaches_both_replicas_and_is_read_from_the_first(client):
    client.write("d/small", b"small", attributes={"run": 1})
    with client.open("d/large", "wb") as file:
        for at in range(0, len(LARGE), 1 << 20):
            file.write(LARGE[at : at + (1 << 20)])
    client.copy("d/small", "d/copied")
    assert client.drain(timeout=SECONDS).complete
    for replica in client.replicas:
        assert replica.read("d/small") == replica.read("d/copied") == b"small"
        assert replica.read("d/large") == LARGE
        assert replica.info("d/small").metadata["run"] == "1"
    before = client.store.primary_source.statistics.hits
    assert client.read("d/large", ByteRange(10_000_000, 1000)) == LARGE[10_000_000:10_001_000]
    assert client.store.primary_source.statistics.hits == before
    assert [counts.fresh for counts in client.sync_replicas().replicas] == [3, 3]


def test_large_downloads_in_ranges_and_uploads_of_files(client, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "PARALLEL_FROM", 5 << 20)
    monkeypatch.setattr(transfer, "RANGE_SIZE", 3 << 20)
    (tmp_path / "up").write_bytes(LARGE)
    client.upload_file("large", tmp_path / "up")
    client.download_file("large", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == LARGE
    with client.open("large") as file:
        file.seek(7_000_000)
        assert file.read(3_000_000) == LARGE[7_000_000:10_000_000]


def test_R4_an_overwrite_is_seen_and_sync_finds_what_is_stale(client):
    client.write("k", b"one")
    assert client.drain(timeout=SECONDS).complete
    client.store.primary.put("k", b"two")
    assert client.read("k") == b"two"
    assert client.drain(timeout=SECONDS).complete
    client.store.primary.put("k", b"333")
    assert [counts.copied for counts in client.sync_replicas(dryrun=True).replicas] == [1, 1]
    client.sync_replicas()
    assert [replica.read("k") for replica in client.replicas] == [b"333", b"333"]


def read_one(client, key, queue):
    client.write(f"from/{key}", b"x")
    queue.put((client.read(key), client.open(key).read()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes(client, method):
    client.write("k", b"content")
    assert client.drain(timeout=SECONDS).complete
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = [context.Process(target=read_one, args=(client, "k", queue), daemon=True) for _ in range(2)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert queue.get(timeout=SECONDS) == (b"content", b"content")
    for worker in workers:
        worker.join(SECONDS)
        assert worker.exitcode == 0


PROGRAM = """
import pickle, sys
client = pickle.load(sys.stdin.buffer)
for number in range(40):
    client.write(f"k{number}", bytes(100_000))
"""


def test_fault_06_a_program_may_end_in_the_middle_of_its_background_copies(client):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=pickle.dumps(client), capture_output=True, timeout=SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert time.monotonic() - begun < SECONDS / 2
    assert client.drain(timeout=SECONDS).complete
    assert len(list(client.replicas[1].list())) == 40


def test_a_directory_of_objects_is_removed(client):
    for number in range(5):
        client.write(f"d/{number % 2}/{number}", b"")
    client.store.make_directory("d/empty/")
    client.delete("d", recursive=True)
    assert client.is_empty("d")
    assert not client.store.has_directory("d/")
