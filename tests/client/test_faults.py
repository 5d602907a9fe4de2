"""The faults of replicas in the library whose configuration mscfs shares: each scenario, and the fault is not there.

The numbers are those of the list in the design notes; fault 6 is in `test_processes`.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

from mscfs.client.client import StorageClient
from mscfs.errors import NotFoundError, StoreMissingError, StoreTimeoutError, StoreUnavailableError, SyncError
from mscfs.types import ByteRange
from tests.client.stores import Gate, Store

CONTENT = bytes(range(256)) * 4096  # 1 MiB


# -- 1: after an overwrite, read() returns the old bytes for ever ----------------------------------------------------


@pytest.mark.usefixtures("no_background")
@pytest.mark.parametrize("writer", ["same client", "another client", "another tool"])
def test_fault_01_R1_after_an_overwrite_nobody_reads_the_old_bytes(world, writer):
    client = world.client()
    client.write("k", b"old content")
    world.replicate()
    if writer == "another tool":
        Store.put(world.primary, "k", b"new content")
    else:
        (client if writer == "same client" else world.client()).write("k", b"new content")
    assert world.near.content("k") == b"old content"
    for reader in (client, world.client()):
        assert reader.read("k") == b"new content"
        assert reader.info("k").version == world.primary.head("k").version
        with reader.open("k") as file:
            assert file.read() == b"new content"
    world.replicate()
    assert world.near.content("k") == world.far.content("k") == b"new content"


# -- 2: a replica that fails in the middle leaves its bytes in the buffer --------------------------------------------


@pytest.mark.usefixtures("no_background")
@pytest.mark.parametrize("how", ["read", "range", "open", "download", "into"])
@pytest.mark.parametrize("after", [0, 1, 1000, len(CONTENT) - 1])
def test_fault_02_R5_a_replica_that_fails_in_the_middle_leaves_no_trace(world, tmp_path, how, after):
    client = world.client()
    client.write("k", CONTENT)
    world.replicate()
    world.near.break_after = after
    world.far.break_after = after // 2
    if how == "read":
        got = client.read("k")
    elif how == "range":
        got = CONTENT[:5] + client.read("k", ByteRange(5, len(CONTENT)))
    elif how == "open":
        with client.open("k") as file:
            got = file.read(10) + file.read()
    elif how == "download":
        client.download_file("k", tmp_path / "file")
        got = (tmp_path / "file").read_bytes()
    else:
        with (tmp_path / "file").open("wb") as file:
            client.download_file("k", file)
        got = (tmp_path / "file").read_bytes()
    assert got == CONTENT


# -- 3: deletes and overwrites during a back-fill --------------------------------------------------------------------


def test_fault_03_W8_a_delete_during_a_back_fill_does_not_bring_the_object_back(world):
    client = world.client()
    Store.put(world.primary, "k", b"content")
    gate = Gate()
    world.near.before["put"] = world.far.before["put"] = gate  # a copy made before the delete would be left alone
    assert client.read("k") == b"content"
    gate.wait_reached()
    client.delete("k")
    gate.open()
    assert client.drain(timeout=30).complete
    assert world.near.keys() == world.far.keys() == []
    with pytest.raises(NotFoundError):
        client.read("k")


def test_fault_03_W8_a_copy_that_another_host_removed_during_a_back_fill_serves_nobody_and_goes_with_the_next_sync(
    world,
):
    """It was stale when the back-fill found it: as after any delete, what a replica had already is left to it."""
    client = world.client()
    Store.put(world.near, "k", b"older")
    Store.put(world.primary, "k", b"content")
    gate = Gate()
    world.near.before["put"] = gate
    assert client.read("k") == b"content"
    gate.wait_reached()
    Store.delete(world.primary, "k")
    Store.delete(world.near, "k")
    gate.open()
    assert client.drain(timeout=30).complete
    assert world.near.keys() == ["k"]
    with pytest.raises(NotFoundError):
        client.read("k")
    assert [entry.key for entry in client.list()] == []
    told = client.sync_replicas(delete_unmatched_files=True, dryrun=True).replicas
    assert (told[0].profile, told[0].deleted) == ("near", 1)
    client.sync_replicas(delete_unmatched_files=True)
    assert world.near.keys() == world.far.keys() == []


def test_fault_03_an_overwrite_during_a_back_fill_does_not_leave_the_replica_stale(world):
    client = world.client()
    Store.put(world.primary, "k", b"old")
    gate = Gate()
    world.near.before["put"] = gate
    assert client.read("k") == b"old"
    gate.wait_reached()
    client.write("k", b"new")
    gate.open()
    assert client.drain(timeout=30).complete
    assert world.near.content("k") == world.far.content("k") == b"new"
    assert [counts.fresh for counts in client.sync_replicas().replicas] == [1, 1]


@pytest.mark.usefixtures("no_background")
def test_fault_03_R4_sync_does_not_call_a_stale_copy_of_equal_size_and_second_up_to_date(world):
    client = world.client()
    client.write("k", b"old")
    world.replicate()
    client.write("k", b"new")
    result = client.sync_replicas(dryrun=True)
    assert [counts.copied for counts in result.replicas] == [1, 1]


# -- 4: stale replica bytes under the primary's new version ----------------------------------------------------------


@pytest.mark.usefixtures("no_background")
def test_fault_04_R1_bytes_of_a_stale_replica_never_pass_for_the_new_version(world):
    client = world.client()
    client.write("k", b"old content")
    world.replicate()
    client.write("k", b"new content")
    version = world.primary.head("k").version
    with client.store.get("k", expected=version) as answer:
        assert answer.metadata.version == version
        assert answer.read_all() == b"new content"
    # And with nobody left who has that version: an error, not the old bytes.
    world.primary.fail()
    with pytest.raises(StoreUnavailableError):
        client.store.get("k", expected=version).read_all()


@pytest.mark.usefixtures("no_background")
def test_fault_04_a_profile_with_caching_reads_the_new_bytes(file_config):
    config = file_config(caching_enabled=True)
    client = StorageClient(config)
    client.write("k", b"old content")
    assert client.read("k") == b"old content"
    assert client.drain(timeout=30).complete
    StorageClient(config).write("k", b"new content")
    assert client.read("k") == client.open("k").read() == b"new content"


# -- 5: a range read downloads the whole object ----------------------------------------------------------------------


@pytest.mark.usefixtures("no_background")
@pytest.mark.parametrize("holder", ["near", "far", "data"])
def test_fault_05_R7_a_range_read_moves_the_range(world, holder):
    client = world.client()
    Store.put(world.primary, "k", CONTENT)
    if holder != "data":
        client.sync_replicas(replica_indices=[["near", "far"].index(holder)])
    stores = {"data": world.primary, "near": world.near, "far": world.far}
    for store in stores.values():
        store.bytes_served = 0
    assert client.read("k", ByteRange(500_000, 100)) == CONTENT[500_000:500_100]
    assert {name: store.bytes_served for name, store in stores.items()} == {
        name: 100 if name == holder else 0 for name in stores
    }


# -- 6, the second half: the queue pins whole objects in memory ------------------------------------------------------


@pytest.mark.usefixtures("no_background")
def test_fault_06_R6_what_waits_for_back_fill_is_on_disk_not_in_memory(world):
    client = world.client()
    for number in range(20):
        Store.put(world.primary, f"k{number}", bytes(1 << 20))
    for number in range(20):
        client.read(f"k{number}")
    gc.collect()
    stored = {id(world.primary.content(f"k{number}")) for number in range(20)}
    kept = [thing for thing in gc.get_objects() if isinstance(thing, bytes) and len(thing) == 1 << 20]
    assert {id(thing) for thing in kept} <= stored
    assert world.journal.pending() == 40


# -- 7: the back-fill uploads the caller's own file ------------------------------------------------------------------


def test_fault_07_R6_what_the_caller_does_to_his_file_later_reaches_no_replica(world, tmp_path):
    client = world.client()
    Store.put(world.primary, "k", b"content")
    gate = Gate()
    world.near.before["put"] = gate
    client.download_file("k", tmp_path / "mine")
    gate.wait_reached()
    (tmp_path / "mine").write_bytes(b"edited")
    gate.open()
    client.upload_file("u", tmp_path / "mine")
    (tmp_path / "mine").write_bytes(b"edited again")
    assert client.drain(timeout=30).complete
    for store in world.replicas:
        assert store.content("k") == b"content"
        assert store.content("u") == b"edited"


# -- 8 and 9, as far as the library is concerned ---------------------------------------------------------------------


def test_fault_08_L6_the_directory_of_an_unmounted_replica_is_not_created(tmp_path, file_config):
    client = StorageClient(file_config())
    (tmp_path / "stores" / "near").rmdir()
    client.write("k", b"content")
    assert client.read("k") == b"content"
    with pytest.raises(SyncError):
        client.sync_replicas()
    assert client.drain(timeout=2).remaining == 1
    assert not (tmp_path / "stores" / "near").exists()
    assert (tmp_path / "stores" / "far" / "k").read_bytes() == b"content"
    client.close()


@pytest.mark.usefixtures("no_background")
def test_fault_09_R5_a_silent_replica_costs_one_time_out_not_one_for_each_read(world):
    client = world.client()
    client.write("k", b"content")
    world.replicate()
    client = world.client()
    world.near.down = StoreTimeoutError("no answer in time", store="near")
    before = world.near.calls["get"]
    for _ in range(20):
        assert client.read("k") == b"content"
    assert world.near.calls["get"] - before <= 2


# -- 10: with the primary down, open, list and is_file fail ----------------------------------------------------------


@pytest.mark.usefixtures("no_background")
@pytest.mark.parametrize(
    "failure",
    [
        StoreUnavailableError("connection refused", store="data"),
        StoreTimeoutError("no answer in time", store="data"),
        StoreMissingError("the bucket is not there", store="data"),
    ],
)
def test_fault_10_R8_with_the_primary_down_everything_that_reads_goes_on(world, tmp_path, failure):
    world.client().write("d/k", b"content")
    world.replicate()
    world.primary.down = failure
    client = world.client()
    assert client.read("d/k") == b"content"
    assert client.is_file("d/k")
    with pytest.raises(StoreUnavailableError):
        client.is_file("nobody knows")
    assert client.info("d/k").content_length == 7
    assert client.info("d").is_directory
    assert [entry.key for entry in client.list()] == ["d/k"]
    assert [entry.key for entry in client.list("d", include_directories=True)] == ["d/k"]
    assert client.glob("**/k") == ["d/k"]
    assert not client.is_empty("d")
    with client.open("d/k") as file:
        assert file.read() == b"content"
    client.download_file("d/k", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"content"
    with pytest.raises(type(failure)):
        client.write("d/k", b"new")
    world.primary.down = None
    assert world.client().read("d/k") == b"content"


@pytest.mark.usefixtures("no_background")
def test_fault_10_a_file_opened_before_the_primary_went_down_is_read_on_and_after_it_came_back(world):
    client = world.client()
    client.write("k", CONTENT)
    world.replicate()
    with client.open("k") as file:
        got = file.read(1000)
        world.primary.fail()
        got += file.read(300_000)
        world.primary.down = None
        assert got + file.read() == CONTENT


# -- 11: writes and copies are not replicated ------------------------------------------------------------------------


def test_fault_11_W2_every_way_to_write_reaches_the_replicas(world, tmp_path):
    client = world.client()
    (tmp_path / "file").write_bytes(b"uploaded")
    client.write("written", b"written", attributes={"run": 1})
    client.upload_file("uploaded", tmp_path / "file")
    client.copy("written", "copied")
    with client.open("opened", "wb") as file:
        file.write(b"opened")
    with client.open("opened", "ab") as file:
        file.write(b" again")
    with client.open("large", "wb") as file:
        file.write(bytes(9 << 20))
    assert client.drain(timeout=30).complete
    for store in world.replicas:
        assert store.content("written") == store.content("copied") == b"written"
        assert store.head("copied").metadata["run"] == "1"
        assert store.content("uploaded") == b"uploaded"
        assert store.content("opened") == b"opened again"
        assert len(store.content("large")) == 9 << 20


# -- 12: a dry run that deletes --------------------------------------------------------------------------------------


def test_fault_12_a_dry_run_with_delete_unmatched_files_deletes_nothing(tmp_path, file_config):
    client = StorageClient(file_config())
    for name in ("near", "far"):
        (tmp_path / "stores" / name / "surplus").write_text("precious")
    result = client.sync_replicas(delete_unmatched_files=True, dryrun=True)
    assert [counts.deleted for counts in result.replicas] == [1, 1]
    for name in ("near", "far"):
        assert (tmp_path / "stores" / name / "surplus").read_text() == "precious"


# -- 13: dead workers, replicas that stop the others, copies that are not atomic -------------------------------------


@pytest.mark.usefixtures("no_background")
def test_fault_13_a_worker_that_dies_is_no_success(world):
    client = world.client()
    for number in range(20):
        client.write(f"k{number:02}", b"x")

    def die(key):
        if key == "k07":
            sys.exit("the worker dies")

    world.near.before["put"] = die
    with pytest.raises(SyncError, match="k07") as raised:
        client.sync_replicas(num_workers=2)
    assert [(counts.copied, counts.failed) for counts in raised.value.result.replicas] == [(19, 1), (20, 0)]


@pytest.mark.usefixtures("no_background")
@pytest.mark.parametrize("broken", ["near", "far"])
def test_fault_13_a_failing_replica_does_not_stop_the_others(world, broken):
    client = world.client()
    for number in range(5):
        client.write(f"k{number}", b"x")
    failing, working = (world.near, world.far) if broken == "near" else (world.far, world.near)
    failing.fail()
    with pytest.raises(SyncError, match=broken):
        client.sync_replicas()
    assert len(working.keys()) == 5


COPY = """
import pickle, sys
client = pickle.load(sys.stdin.buffer)
print("begin", flush=True)
client.sync_replicas(replica_indices=[0])
"""


def test_fault_13_W3_a_copy_between_directories_that_is_killed_leaves_the_old_file_or_the_new(tmp_path, file_config):
    client = StorageClient(file_config())
    old, new = bytes(1000), os.urandom(1 << 20) * 64
    target = tmp_path / "stores" / "near" / "k"
    target.write_bytes(old)
    (tmp_path / "stores" / "data" / "k").write_bytes(new)
    seen = set()
    for attempt in range(12):
        target.write_bytes(old)
        with subprocess.Popen([sys.executable, "-c", COPY], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
            program.stdin.write(pickle.dumps(client))
            program.stdin.close()
            assert program.stdout.readline() == b"begin\n"
            time.sleep(attempt * 0.01)
            program.send_signal(signal.SIGKILL)
        found = target.read_bytes()
        assert found in {old, new}
        seen.add(found)
    assert client.sync_replicas(replica_indices=[0]).replicas[0].failed == 0
    assert target.read_bytes() == new
    assert old in seen


# -- 14: files on replicas are 0600 and lose their time --------------------------------------------------------------


def test_fault_14_files_on_replicas_keep_mode_and_time(tmp_path, file_config):
    client = StorageClient(file_config())
    source = tmp_path / "stores" / "data" / "k"
    source.write_bytes(b"content")
    source.chmod(0o640)
    os.utime(source, ns=(10**18 + 1, 10**18 + 1))
    client.write("written", b"content")
    client.sync_replicas()
    for name in ("near", "far"):
        copy = (tmp_path / "stores" / name / "k").stat()
        assert oct(copy.st_mode & 0o777) == "0o640"
        assert copy.st_mtime_ns == 10**18 + 1
        written = (tmp_path / "stores" / name / "written").stat()
        assert written.st_mode & 0o777 == (tmp_path / "stores" / "data" / "written").stat().st_mode & 0o777
    client.close()
