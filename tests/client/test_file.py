from __future__ import annotations

import gc
import io
import logging
import random
import tempfile

import pytest

from mscfs.client import file as file_module
from mscfs.errors import AlreadyExistsError, IsADirectoryKeyError, StoreUnavailableError, VersionMismatchError

pytestmark = pytest.mark.usefixtures("no_background")

CONTENT = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def client(world):
    return world.client()


# -- reading --------------------------------------------------------------------------------------------------------


def test_reading_agrees_with_a_file_in_memory(client, monkeypatch):
    monkeypatch.setattr(file_module, "SMALLEST_FETCH", 1000)
    monkeypatch.setattr(file_module, "LARGEST_FETCH", 5000)
    content = random.Random(1).randbytes(70_001)
    client.write("k", content)
    rng = random.Random(2)
    with client.open("k") as ours, io.BytesIO(content) as model:
        for _ in range(400):
            size = rng.choice([0, 1, 10, 999, 1001, 6000, 20_000])
            match rng.randrange(5):
                case 0:
                    offset = rng.randrange(80_000)
                    assert ours.seek(offset) == model.seek(offset)
                case 1:
                    buffer, expected = bytearray(size), bytearray(size)
                    assert ours.readinto(buffer) == model.readinto(expected)
                    assert buffer == expected
                case 2:
                    assert ours.readline() == model.readline()
                case 3 if rng.random() < 0.1:
                    assert ours.read() == model.read()
                case _:
                    assert ours.read(size) == model.read(size)
            assert ours.tell() == model.tell()
        assert ours.seek(-5, io.SEEK_END) == 69_996
        assert ours.read() == content[-5:]
        with pytest.raises(ValueError, match="negative"):
            ours.seek(-1)


def test_R7_reading_a_little_of_a_large_object_moves_a_little(world, client):
    client.write("k", bytes(50 << 20))
    with client.open("k") as file:
        file.seek(40 << 20)
        assert file.read(4096) == bytes(4096)
        file.seek(10 << 20)
        assert file.read(4096) == bytes(4096)
    assert world.primary.bytes_served <= 3 * file_module.SMALLEST_FETCH


def test_reading_in_sequence_takes_few_requests(world, client):
    client.write("k", bytes(50 << 20))
    with client.open("k") as file:
        while file.read(100_000):
            pass
    assert world.primary.calls["get"] < 20


def test_a_small_object_is_one_request(world, client):
    client.write("k", b"small")
    before = world.primary.calls["get"]
    with client.open("k") as file:
        assert file.read() == b"small"
    assert world.primary.calls["get"] == before + 1


def test_a_large_read_needs_no_second_copy_in_memory(client, monkeypatch):
    monkeypatch.setattr(file_module, "LARGEST_FETCH", 256 << 10)
    client.write("k", CONTENT)
    with client.open("k", buffering=0) as raw:
        raw.seek(1)
        target = bytearray(len(CONTENT) - 1)
        got = raw.readinto(memoryview(target)[:0x1000])
        while got < len(target):
            got += raw.readinto(memoryview(target)[got:])
    assert target == CONTENT[1:]


def test_R1_an_open_file_stays_at_its_version_while_a_replica_holds_it(world, client):
    client.write("k", CONTENT)
    world.replicate()
    with client.open("k") as file:
        head = file.read(10)
        client.write("k", b"new")
        assert head + file.read() == CONTENT
        assert client.read("k") == b"new"


def test_R1_a_file_whose_version_is_gone_everywhere_is_stale(world, client):
    client.write("k", CONTENT)
    with client.open("k") as replaced, client.open("k") as deleted:
        replaced.read(10)
        client.write("k", bytes(len(CONTENT)))
        with pytest.raises(VersionMismatchError):
            replaced.read()
        client.delete("k")
        with pytest.raises(VersionMismatchError, match="deleted"):
            deleted.read()


def test_R5_a_source_that_breaks_off_is_replaced_at_the_same_offset(world, client):
    client.write("k", CONTENT)
    world.replicate()
    with client.open("k") as file:
        head = file.read(100)
        world.near.break_after = 1000
        assert head + file.read() == CONTENT
    assert world.far.bytes_served > 0


def test_text_with_lines(client):
    with client.open("k", "w") as file:
        file.write("grüße\nzweite\r\ndritte")
    assert client.read("k") == "grüße\nzweite\r\ndritte".encode()
    with client.open("k", "r") as file:
        assert list(file) == ["grüße\n", "zweite\n", "dritte"]
    with client.open("k", "rt", encoding="latin-1", newline="") as file:
        assert file.readline() == "grüße\n".encode().decode("latin-1")


def test_modes_that_make_no_sense(client):
    client.write("k", b"")
    for mode in ("", "rw", "b", "rr", "rbt", "U", "z"):
        with pytest.raises(ValueError, match="mode"):
            client.open("k", mode)
    with pytest.raises(ValueError, match="binary mode"):
        client.open("k", "rb", encoding="utf-8")
    with pytest.raises(ValueError, match="buffered"):
        client.open("k", "r", buffering=0)
    with pytest.raises(LookupError):
        client.open("k", "w", encoding="no-such-thing")
    for key in ("", "d/"):
        with pytest.raises(IsADirectoryKeyError):
            client.open(key, "wb")


def test_reading_files_refuse_to_be_written_and_the_other_way_round(client):
    client.write("k", b"x")
    with client.open("k") as file, pytest.raises(io.UnsupportedOperation):
        file.write(b"")
    with client.open("k", "wb") as file, pytest.raises(io.UnsupportedOperation):
        file.read()
    with pytest.raises(ValueError, match="closed"):
        file.write(b"")


# -- writing --------------------------------------------------------------------------------------------------------


def test_W3_a_written_file_appears_whole_at_close(client):
    client.write("k", b"old")
    with client.open("k", "wb") as file:
        file.write(b"new ")
        file.flush()
        assert client.read("k") == b"old"
        file.write(b"content")
    assert client.read("k") == b"new content"


@pytest.mark.parametrize("mode", ["wb", "w", "xb"])
def test_W3_an_exception_publishes_nothing(client, mode):
    key = "fresh" if mode == "xb" else "k"
    client.write("k", b"old")

    def interrupted():
        with client.open(key, mode) as file:
            file.write("half" if mode == "w" else b"half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        interrupted()
    assert client.read("k") == b"old"
    assert not client.is_file("fresh")


@pytest.mark.parametrize("mode", ["wb", "w"])
def test_W3_a_file_that_is_never_closed_publishes_nothing_and_says_so(client, caplog, mode):
    file = client.open("k", mode)
    file.write("half" if mode == "w" else b"half")
    with caplog.at_level(logging.WARNING):
        del file
        gc.collect()
    assert "k: not stored" in caplog.text
    assert not client.is_file("k")


def test_W1_close_raises_what_the_primary_says_and_may_be_repeated(world, client):
    file = client.open("k", "w")
    file.write("content")
    world.primary.fail()
    with pytest.raises(StoreUnavailableError):
        file.close()
    assert not file.closed
    world.primary.down = None
    file.close()
    file.close()
    assert client.read("k") == b"content"


@pytest.mark.parametrize("size", [0, 1, file_module.SENT_FROM_MEMORY, file_module.SENT_FROM_MEMORY + 1])
def test_sizes_around_the_border_between_memory_and_file(client, size):
    with client.open("k", "wb") as file:
        file.write(bytes(size))
    assert client.info("k").content_length == size


def test_append_adds_to_what_is_there_and_creates_what_is_not(client):
    for part in (b"one", b"two"):
        with client.open("k", "ab") as file:
            file.write(part)
            file.seek(0)
            file.write(b"!")
    assert client.read("k") == b"one!two!"


def test_append_keeps_attributes(client):
    client.write("k", b"a", attributes={"run": "7"})
    with client.open("k", "a") as file:
        file.write("b")
    assert dict(client.info("k").metadata) == {"run": "7"}


@pytest.mark.parametrize("mode", ["ab", "r+b"])
def test_changing_an_object_that_was_replaced_meanwhile_is_refused(client, mode):
    client.write("k", b"one")
    file = client.open("k", mode)
    client.write("k", b"other")
    file.write(b"mine")
    with pytest.raises(VersionMismatchError):
        file.close()
    file.discard()
    assert client.read("k") == b"other"


def test_appending_to_a_new_object_that_somebody_else_made_meanwhile_is_refused(client):
    file = client.open("k", "ab")
    client.write("k", b"theirs")
    file.write(b"mine")
    with pytest.raises(AlreadyExistsError):
        file.close()
    file.discard()


def test_update_in_place_agrees_with_a_local_file(client):
    client.write("k", b"0123456789")
    with tempfile.TemporaryFile() as model:
        model.write(b"0123456789")
        model.seek(0)
        with client.open("k", "r+b") as ours:
            for file in (ours, model):
                assert file.read(2) == b"01"
                file.write(b"AB")
                file.seek(8)
                file.truncate(20)
                file.seek(15)
                file.write(b"Z")
                file.seek(0)
            assert ours.read() == model.read()
        model.seek(0)
        assert client.read("k") == model.read()


def test_write_and_read_back(client):
    with client.open("k", "w+") as file:
        file.write("line one\nline two\n")
        file.seek(0)
        assert file.readline() == "line one\n"


def test_attributes_of_a_written_file(client):
    with client.open("k", "wb", attributes={"step": 10}) as file:
        file.write(b"")
    assert dict(client.info("k").metadata) == {"step": "10"}
