from __future__ import annotations

import errno
import io
import pickle

import pytest

import mscfs
from mscfs.client.sync import ExecutionMode
from mscfs.errors import (
    AlreadyExistsError,
    ConfigError,
    IsADirectoryKeyError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
    UnsupportedError,
    UsageError,
)
from mscfs.providers.memory import MemoryProvider
from mscfs.types import STAMP_KEY, ByteRange

pytestmark = pytest.mark.usefixtures("no_background")


@pytest.fixture
def client(world):
    return world.client()


def keys(entries):
    return [entry.key for entry in entries]


# -- reading --------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_with_and_without_a_leading_slash(client):
    client.write("/a/b", b"content")
    assert client.read("a/b") == client.read("/a/b") == b"content"


def test_a_range_is_clipped_to_the_object(client):
    client.write("k", b"0123456789")
    assert client.read("k", ByteRange(4, 3)) == b"456"
    assert client.read("k", mscfs.Range(offset=8, size=100)) == b"89"
    assert client.read("k", ByteRange(50, 5)) == b""


def test_missing_objects_are_not_found_as_python_says(client):
    with pytest.raises(FileNotFoundError):
        client.read("nothing")
    with pytest.raises(NotFoundError):
        client.open("nothing")
    with pytest.raises(NotFoundError):
        client.info("nothing")
    with pytest.raises(NotFoundError):
        client.delete("nothing")
    assert not client.is_file("nothing")
    assert client.is_empty("nothing")


def test_R1_a_read_sees_one_version_while_the_object_is_replaced_again_and_again(world, client):
    client.write("k", b"first")
    versions = iter([b"second", b"third"])

    def replace(key):
        for content in versions:
            world.primary.put(key, content)
            break

    world.primary.before["get"] = replace
    assert client.read("k") == b"third"


def test_a_read_gives_up_on_an_object_that_never_stands_still(world, client):
    client.write("k", b"first")
    world.primary.before["get"] = lambda key: MemoryProvider.put(world.primary, key, b"again")
    with pytest.raises(StorageError) as raised:
        client.read("k")
    assert raised.value.errno in {errno.ESTALE, errno.EIO}


def test_info_tells_the_users_metadata_and_none_of_mscfs(world, client):
    client.write("k", b"x", attributes={"epoch": 3})
    world.replicate()
    world.primary.fail()
    found = world.client().info("k")
    assert world.near.stamp("k") is not None
    assert dict(found.metadata) == {"epoch": "3"}
    assert (found.key, found.content_length, found.type) == ("k", 1, "file")


def test_info_of_directories(client):
    client.write("a/b/c", b"")
    assert client.info("a").is_directory
    assert client.info("a/b/").key == "a/b/"
    assert client.info("").is_directory
    assert not client.is_file("a")
    assert client.is_file("a/b/c")


# -- listing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(client):
    for key in ("a", "a!", "a/b", "a/c/d", "ab", "é", "z"):
        client.write(key, key.encode())
    return client


def test_list_gives_the_object_and_all_below_the_directory_and_no_namesakes(tree):
    assert keys(tree.list("a")) == ["a", "a/b", "a/c/d"]
    assert keys(tree.list("a/")) == ["a/b", "a/c/d"]
    assert keys(tree.list("/a/c")) == ["a/c/d"]
    assert keys(tree.list()) == ["a", "a!", "a/b", "a/c/d", "ab", "z", "é"]
    assert keys(tree.list(prefix="a")) == ["a", "a!", "a/b", "a/c/d", "ab"]


def test_list_after_and_up_to(tree):
    assert keys(tree.list(start_after="a/b", end_at="z")) == ["a/c/d", "ab", "z"]
    assert keys(tree.list("a", start_after="a")) == ["a/b", "a/c/d"]
    assert keys(tree.list(end_at="a!")) == ["a", "a!"]


def test_list_with_directories_stays_on_one_level(tree):
    assert [(entry.key, entry.type) for entry in tree.list("a", include_directories=True)] == [
        ("a/b", "file"),
        ("a/c/", "directory"),
    ]
    assert "a/" in keys(tree.list(include_directories=True))
    assert keys(tree.list("a", include_directories=True, start_after="a/b")) == ["a/c/"]


def test_list_gives_urls_on_request(tree):
    assert keys(tree.list("a/c", include_url_prefix=True)) == ["msc://data/a/c/d"]


def test_directory_markers_are_no_objects(client):
    client.store.make_directory("d/")
    assert keys(client.list()) == []
    assert client.is_empty("d")
    assert client.info("d").is_directory


def test_glob_matches_segments_and_double_stars(client):
    for key in ("a.txt", "d/b.txt", "d/e/c.txt", "d/e/c.bin", "d/.hidden/x.txt", ".top.txt"):
        client.write(key, b"")
    assert client.glob("*.txt") == ["a.txt"]
    assert client.glob("**/*.txt") == ["a.txt", "d/b.txt", "d/e/c.txt"]
    assert client.glob("d/*") == ["d/b.txt", "d/e"]
    assert client.glob("d/**") == ["d/b.txt", "d/e", "d/e/c.bin", "d/e/c.txt"]
    assert client.glob("d/?/c.[tb]*") == ["d/e/c.bin", "d/e/c.txt"]
    assert client.glob(".top*") == [".top.txt"]
    assert client.glob("d/.h*/*") == ["d/.hidden/x.txt"]
    assert client.glob("/d/e/c.txt", include_url_prefix=True) == ["msc://data/d/e/c.txt"]
    assert client.glob("none/*") == []


def test_glob_lists_only_the_directory_that_the_pattern_names(world, client):
    client.write("d/x", b"")
    listed = []
    world.primary.before["list"] = listed.append
    client.glob("d/*")
    assert listed == ["d/"]


# -- writing and removing -------------------------------------------------------------------------------------------


def test_copy_takes_attributes_along(client):
    client.write("a", b"x", attributes={"lr": "0.1"})
    client.copy("a", "/b")
    assert client.read("b") == b"x"
    assert dict(client.info("b").metadata) == {"lr": "0.1"}


def test_attributes_of_mscfs_itself_are_refused(client):
    with pytest.raises(UsageError, match=STAMP_KEY):
        client.write("k", b"", attributes={STAMP_KEY: "1 1 1 x"})


def test_delete_of_a_directory_needs_recursive(tree):
    with pytest.raises(IsADirectoryKeyError, match="recursive"):
        tree.delete("a/c")
    tree.store.make_directory("a/empty/")
    tree.delete("a/", recursive=True)
    assert keys(tree.list()) == ["a", "a!", "ab", "z", "é"]
    assert not tree.store.has_directory("a/")


def test_delete_recursive_of_more_than_one_batch(client, monkeypatch):
    monkeypatch.setattr("mscfs.client.tree.BATCH", 7)
    for number in range(30):
        client.write(f"d/{number % 3}/{number}", b"")
    client.delete("d", recursive=True)
    assert client.is_empty("")


def test_delete_recursive_raises_what_the_store_says(world, client):
    client.write("d/1", b"")
    world.primary.before["delete"] = lambda _: world.primary.fail()
    with pytest.raises(StoreUnavailableError):
        client.delete("d", recursive=True)


def test_W8_a_deleted_object_is_never_read_from_a_replica(world, client):
    client.write("k", b"old")
    world.replicate()
    client.delete("k")
    assert world.near.content("k") == b"old"
    for reader in (client, world.client()):
        with pytest.raises(NotFoundError):
            reader.read("k")
        assert not reader.is_file("k")
        assert keys(reader.list()) == []


def test_W8_deletes_reach_replicas_only_when_they_are_propagated(world):
    world.options["propagate_deletes"] = True
    client = world.client()
    client.write("k", b"x")
    world.replicate()
    client.delete("k")
    world.replicate()
    assert world.near.keys() == world.far.keys() == []


def test_W1_write_raises_what_the_primary_says(world, client):
    world.primary.fail()
    with pytest.raises(StoreUnavailableError, match="unreachable"):
        client.write("k", b"x")
    assert world.journal.pending() == 0


def test_W2_the_wish_is_on_disk_when_write_returns(world, client):
    client.write("k", b"12345")
    lag = world.journal.lag()
    assert {name: (entry.entries, entry.bytes) for name, entry in lag.items()} == {"near": (1, 5), "far": (1, 5)}


# -- the rest -------------------------------------------------------------------------------------------------------


def test_clients_are_picklable_and_show_no_secrets():
    config = mscfs.StorageClientConfig.from_dict(
        {
            "profiles": {
                "data": {
                    "storage_provider": {"type": "s3", "options": {"base_path": "bucket"}},
                    "credentials_provider": {
                        "type": "S3Credentials",
                        "options": {"access_key": "key-very-secret", "secret_key": "also-very-secret"},
                    },
                }
            }
        },
        "data",
    )
    assert "secret" not in repr(config)
    client = mscfs.StorageClient(config)
    assert "secret" not in repr(client)
    again = pickle.loads(pickle.dumps(client))
    assert again.profile == "data"
    assert again.config == config


def test_replicas_are_clients_of_their_own_profiles_in_reading_order(world, client):
    client.write("k", b"x")
    world.replicate()
    assert [replica.profile for replica in client.replicas] == ["near", "far"]
    assert [replica.read("k") for replica in client.replicas] == [b"x", b"x"]


def test_configuration_from_files(tmp_path, monkeypatch):
    text = "profiles: {data: {storage_provider: {type: file, options: {base_path: /tmp}}}}"
    (tmp_path / "one.yaml").write_text(text)
    paths = [tmp_path / "none.yaml", str(tmp_path / "one.yaml")]
    assert mscfs.StorageClientConfig.from_file(paths, profile="data").profile == "data"
    monkeypatch.setenv("MSC_CONFIG", str(tmp_path / "one.yaml"))
    assert mscfs.StorageClientConfig.from_file(profile="data").profile == "data"
    assert mscfs.StorageClientConfig.from_yaml(text, "data").profile == "data"
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        mscfs.StorageClientConfig.from_file([tmp_path / "none.yaml"])
    with pytest.raises(ConfigError, match="did you mean 'data'"):
        mscfs.StorageClientConfig.from_yaml(text, "dato")
    with pytest.raises(ConfigError, match=r"not valid YAML \(line 1\)"):
        mscfs.StorageClientConfig.from_yaml("{secret: [")


def test_ray_is_refused_clearly(client):
    with pytest.raises(UnsupportedError, match="ray"):
        client.sync_replicas(execution_mode=ExecutionMode.RAY)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_a_bad_number_of_threads_is_a_clear_error(world, monkeypatch, value):
    monkeypatch.setenv("MSC_REPLICA_UPLOAD_THREADS", value)
    with pytest.raises(ConfigError, match=f"MSC_REPLICA_UPLOAD_THREADS is '{value}'"):
        world.client()


def test_a_closed_client_opens_again(world):
    with world.client() as client:
        client.write("k", b"x")
    assert client.read("k") == b"x"


def test_exclusive_creation(client):
    with client.open("k", "xb") as file:
        file.write(b"mine")
    with pytest.raises(AlreadyExistsError):
        client.open("k", "xb")
    assert isinstance(client.open("k", "rb"), io.BufferedReader)


@pytest.mark.parametrize(
    ("down", "server"), [((), "near"), (("near",), "far"), (("near", "far"), "data"), (("data",), "near")]
)
def test_R3_reads_come_from_the_first_healthy_replica_in_order_then_from_the_primary(world, client, down, server):
    client.write("k", b"content")
    world.replicate()
    stores = {"near": world.near, "far": world.far, "data": world.primary}
    for name in down:
        stores[name].fail()
    for store in stores.values():
        store.bytes_served = 0
    reader = world.client()
    for _ in range(5):
        assert reader.read("k") == b"content"
    assert {name for name, store in stores.items() if store.bytes_served} == {server}


def test_R6_a_read_wishes_for_every_replica_that_is_missing_or_stale(world, client):
    client.write("k", b"old")
    client.sync_replicas(replica_indices=[0])
    world.journal.forget_replica("near")
    world.journal.forget_replica("far")
    MemoryProvider.put(world.primary, "k", b"new")
    assert world.journal.pending() == 0
    assert client.read("k") == b"new"
    assert {name: entry.entries for name, entry in world.journal.lag().items()} == {"near": 1, "far": 1}


def test_R6_a_read_only_replica_is_not_back_filled(world):
    world.read_only = frozenset({"near"})
    client = world.client()
    MemoryProvider.put(world.primary, "k", b"content")
    assert client.read("k") == b"content"
    assert list(world.journal.lag()) == ["far"]
    world.replicate()
    assert world.near.keys() == []
