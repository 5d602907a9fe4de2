"""Streaming uploads: contract W1, W3, W4, W5, W6, with parts of a few bytes and interleavings forced by the test."""

from __future__ import annotations

import os

import pytest
import trio

from mscfs.errors import StoreUnavailableError
from mscfs.journal import process_token
from mscfs.vfs import streams
from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from tests.vfs.inline import world
from tests.vfs.recovering import recover
from tests.vfs.test_names import ME, read_file, write_file

PART = 1000


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(streams, "PART_SIZE", PART)
    monkeypatch.setattr(streams, "FIRST_AT", 2 * PART)


def on_primary(w, key: str) -> bytes:
    with w.parts.manager.primary.get(key) as reader:
        return reader.read_all()


def is_on_primary(w, key: str) -> bool:
    return key in {entry.key for entry in w.parts.manager.primary.list()}


async def create(w, name: str, flags: int = os.O_WRONLY | os.O_TRUNC) -> int:
    handle, _, _ = await w.fs.create(ROOT, name, 0o644, flags, ME)
    return handle


async def write(w, handle: int, data: bytes, offset: int = 0, step: int = 500) -> None:
    for at in range(0, len(data), step):
        await w.fs.write(handle, offset + at, data[at : at + step])


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


async def test_W6_a_file_written_in_order_is_sent_while_it_is_written_and_close_sends_the_rest(tmp_path):
    async with world(tmp_path, objects=True) as w:
        data = os.urandom(10 * PART + 123)
        handle = await create(w, "a")
        await write(w, handle, data)
        await settled()
        assert w.transport.parts == 10
        assert not is_on_primary(w, "a")  # W3
        await w.fs.flush(handle)
        assert on_primary(w, "a") == data
        assert (w.transport.completed, w.transport.uploads, w.transport.aborted) == (1, 0, [])
        assert {c.replica for c in w.parts.journal.claim(10)} == {"near", "far"}  # W2
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert w.transport.completed == 1
        assert w.parts.journal.parts() == w.parts.journal.uploads() == []


async def test_W6_a_small_file_is_one_request(tmp_path):
    async with world(tmp_path, objects=True) as w:
        handle = await create(w, "a")
        await write(w, handle, bytes(2 * PART - 1))
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert (w.transport.uploads, len(w.transport.opened)) == (1, 0)


async def test_a_directory_gets_no_streams(tmp_path):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", bytes(10 * PART))
        assert (w.transport.uploads, len(w.transport.opened)) == (1, 0)


@pytest.mark.parametrize("disturbance", ["write", "truncate", "truncate to nothing"])
async def test_W3_a_change_of_what_was_sent_falls_back_to_the_whole_file(tmp_path, disturbance):
    async with world(tmp_path, objects=True) as w:
        handle = await create(w, "a", os.O_RDWR)
        number = (await w.fs.lookup(ROOT, "a")).number
        expected = bytearray(os.urandom(5 * PART))
        await write(w, handle, bytes(expected))
        if disturbance == "write":
            await w.fs.write(handle, 7, b"new")
            expected[7:10] = b"new"
        elif disturbance == "truncate":
            await w.fs.set_attributes(number, Change(size=2 * PART + 1), by_handle=True)
            del expected[2 * PART + 1 :]
        else:
            await w.fs.set_attributes(number, Change(size=0), by_handle=True)
            expected.clear()
        await w.fs.write(handle, len(expected), b"more")
        await settled()
        assert w.transport.aborted == ["a"]
        await w.fs.flush(handle)
        assert on_primary(w, "a") == bytes(expected) + b"more"
        assert (w.transport.completed, w.transport.uploads) == (0, 1)
        await w.fs.release(handle)
        assert w.parts.journal.parts() == []


async def test_W6_changes_behind_what_was_sent_and_holes_do_not_end_the_stream(tmp_path):
    async with world(tmp_path, objects=True) as w:
        handle = await create(w, "a")
        await write(w, handle, b"a" * (3 * PART + 500))
        await w.fs.write(handle, 3 * PART + 100, b"b" * 100)
        await w.fs.write(handle, 6 * PART, b"c" * 10)
        await w.fs.flush(handle)
        assert (w.transport.completed, w.transport.uploads) == (1, 0)
        expected = b"a" * (3 * PART + 100) + b"b" * 100 + b"a" * 300
        assert on_primary(w, "a") == expected + bytes(6 * PART - len(expected)) + b"c" * 10
        await w.fs.release(handle)


async def test_W3_a_change_while_its_part_is_on_its_way_is_no_mixture(tmp_path):
    async with world(tmp_path, objects=True) as w:
        held, go_on = trio.Event(), trio.Event()

        async def hold(what: str, *_: object) -> None:
            if what == "send_part":
                held.set()
                await go_on.wait()

        w.transport.before = hold
        handle = await create(w, "a")
        await write(w, handle, b"a" * (3 * PART))
        await held.wait()
        await w.fs.write(handle, 0, b"b" * 10)
        assert w.transport.aborted == []  # not before the part has arrived: it would stay behind
        go_on.set()
        await w.fs.flush(handle)
        await settled()
        assert on_primary(w, "a") == b"b" * 10 + b"a" * (3 * PART - 10)
        assert (w.transport.completed, w.transport.aborted) == (0, ["a"])
        await w.fs.release(handle)


@pytest.mark.parametrize("broken", ["begin_parts", "send_part", "complete_parts"])
async def test_W1_trouble_in_the_stream_is_no_error_of_the_program(tmp_path, broken):
    async with world(tmp_path, objects=True) as w:

        async def fail(what: str, *_: object) -> None:
            if what == broken:
                raise StoreUnavailableError("the upload ended with its worker process", store="data")

        w.transport.before = fail
        data = os.urandom(5 * PART)
        handle = await create(w, "a")
        await write(w, handle, data)
        await w.fs.flush(handle)
        await settled()
        assert on_primary(w, "a") == data
        assert w.transport.uploads == 1
        assert w.transport.aborted == ([] if broken == "begin_parts" else ["a"])
        assert w.parts.journal.parts() == []
        await w.fs.release(handle)


async def test_W3_parts_that_the_store_may_still_join_are_thrown_away_before_the_file_is_sent_as_a_whole(tmp_path):
    async with world(tmp_path, objects=True) as w:
        began = []

        async def lose(what: str, *_: object) -> None:
            began.append(what)
            if what == "complete_parts":
                raise StoreUnavailableError("the worker process died", store="data")
            if what == "abort_parts":
                await settled()

        handle = await create(w, "a")
        await write(w, handle, bytes(5 * PART))
        await settled()
        w.transport.before = lose
        await w.fs.flush(handle)
        assert began[-3:] == ["complete_parts", "abort_parts", "upload"]
        assert w.transport.aborted == ["a"]
        assert w.parts.journal.parts() == []
        await w.fs.release(handle)


async def test_L3_a_bug_in_the_stream_does_not_end_the_mount(tmp_path, caplog):
    async with world(tmp_path, objects=True) as w:

        async def fail(what: str, *_: object) -> None:
            if what == "send_part":
                raise ZeroDivisionError

        w.transport.before = fail
        handle = await create(w, "a")
        await write(w, handle, bytes(5 * PART))
        await w.fs.flush(handle)
        assert on_primary(w, "a") == bytes(5 * PART)
        assert "a bug in the stream of a" in caplog.text
        await w.fs.release(handle)


async def test_W5_parts_that_became_the_object_unnoticed_are_no_conflict(tmp_path):
    async with world(tmp_path, objects=True) as w:

        async def lose(what: str, *_: object) -> None:
            if what == "complete_parts":
                w.transport.before = None
                await w.transport.complete_parts(1, "a", if_absent=False, expected=placeholder)
                raise StoreUnavailableError("the answer was lost", store="data")

        handle = await create(w, "a", os.O_WRONLY | os.O_EXCL)
        placeholder = w.parts.manager.primary.head("a").version
        await write(w, handle, b"a" * 5 * PART)
        w.transport.before = lose
        await w.fs.flush(handle)
        assert on_primary(w, "a") == b"a" * 5 * PART
        await w.fs.release(handle)


async def test_W5_a_stream_onto_an_object_changed_elsewhere_is_estale_and_keeps_the_content(tmp_path):
    async with world(tmp_path, objects=True) as w:
        handle = await create(w, "a", os.O_WRONLY | os.O_EXCL)
        await write(w, handle, b"a" * 5 * PART)
        w.parts.manager.primary.put("a", b"somebody else's")
        with pytest.raises(OSError, match="changed"):
            await w.fs.flush(handle)
        assert on_primary(w, "a") == b"somebody else's"
        await w.fs.release(handle)
        (kept,) = w.parts.journal.uploads()
        assert kept.problem
        assert kept.staging.read_bytes() == b"a" * 5 * PART
        await settled()
        assert w.transport.aborted == ["a"]


async def test_W7_a_fresh_file_renamed_while_it_streams_is_sent_under_its_new_name(tmp_path):
    async with world(tmp_path, objects=True) as w:
        data = os.urandom(5 * PART)
        handle = await create(w, "a.tmp")
        await write(w, handle, data)
        await w.fs.rename(ROOT, "a.tmp", ROOT, "a", 0)
        await write(w, handle, data, offset=len(data))
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await settled()
        assert on_primary(w, "a") == data + data
        assert not is_on_primary(w, "a.tmp")
        assert (w.transport.completed, w.transport.uploads, w.transport.aborted) == (0, 1, ["a.tmp"])


async def test_W8_a_file_unlinked_while_it_streams_leaves_nothing(tmp_path):
    async with world(tmp_path, objects=True) as w:
        handle = await create(w, "a", os.O_RDWR)
        await write(w, handle, b"a" * 5 * PART)
        await w.fs.unlink(ROOT, "a")
        await write(w, handle, b"b" * 5 * PART, offset=5 * PART)
        assert bytes(await w.fs.read(handle, 0, 1)) == b"a"
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await settled()
        assert list(w.parts.manager.primary.list()) == []
        assert (w.transport.aborted, len(w.transport.opened)) == (["a"], 1)
        assert w.parts.journal.parts() == []


async def test_W6_a_file_synced_and_written_on_is_sent_again_as_a_whole(tmp_path):
    async with world(tmp_path, objects=True) as w:
        data = os.urandom(8 * PART)
        handle = await create(w, "a")
        await write(w, handle, data[: 4 * PART])
        await w.fs.fsync(handle)
        assert on_primary(w, "a") == data[: 4 * PART]
        await write(w, handle, data[4 * PART :], offset=4 * PART)
        await w.fs.flush(handle)
        assert on_primary(w, "a") == data
        assert (w.transport.completed, w.transport.uploads) == (1, 1)
        await w.fs.release(handle)
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == data


async def test_W6_a_writer_faster_than_the_store_waits_and_goes_on_when_the_stream_breaks(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "PARTS_AHEAD", 3)
    async with world(tmp_path, objects=True) as w:
        answer = trio.Event()

        async def slow(what: str, *_: object) -> None:
            if what == "send_part":
                await answer.wait()
                raise StoreUnavailableError("down", store="data")

        w.transport.before = slow
        handle = await create(w, "a")
        written = 0

        async def writer() -> None:
            nonlocal written
            for number in range(20):
                await w.fs.write(handle, number * PART, bytes(PART))
                written += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(writer)
            await settled()
            assert written == 3  # the fourth is staged and waits
            answer.set()
        assert written == 20
        await w.fs.flush(handle)
        assert on_primary(w, "a") == bytes(20 * PART)
        await w.fs.release(handle)


async def test_parts_of_all_files_together_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "PARTS_UNDER_WAY", 2)
    async with world(tmp_path, objects=True) as w:
        under_way = most = 0

        async def count(what: str, *_: object) -> None:
            nonlocal under_way, most
            if what == "send_part":
                under_way += 1
                most = max(most, under_way)
                await trio.sleep(0.001)
                under_way -= 1

        w.transport.before = count
        handles = [await create(w, f"f{number}") for number in range(3)]
        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(write, w, handle, bytes(6 * PART))
        for handle in handles:
            await w.fs.flush(handle)
            await w.fs.release(handle)
        assert most == 2
        assert w.transport.completed == 3


async def test_W4_a_mount_that_was_killed_while_streaming_is_put_right(tmp_path, monkeypatch):
    """The journal and the staging directory as a killed process leaves them, for the two moments that matter."""
    async with world(tmp_path, objects=True) as w:
        closed, open_ = os.urandom(5 * PART), os.urandom(5 * PART)
        closing, writing = await create(w, "closed"), await create(w, "open")
        await write(w, closing, closed)
        await write(w, writing, open_)
        await settled()

        async def die(what: str, *_: object) -> None:
            if what == "complete_parts":
                await trio.sleep_forever()

        w.transport.before = die
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.flush, closing)
            await settled()
            assert len(w.parts.journal.parts()) == 2
            aborted = []
            monkeypatch.setattr(
                w.parts.manager.primary, "abort_upload", lambda key, token: aborted.append((key, token))
            )
            for module in ("journal.journal", "vfs.recovery"):
                monkeypatch.setattr(f"mscfs.{module}.is_alive", lambda token: False)
            result = recover(w.parts.manager, w.parts.journal, w.parts.area.directory.parent)
            nursery.cancel_scope.cancel()
        assert sorted(aborted) == [("closed", "token-1"), ("open", "token-2")]
        assert w.parts.journal.parts() == []
        assert (result.uploaded, result.kept) == (1, 1)
        assert on_primary(w, "closed") == closed
        assert not is_on_primary(w, "open")  # nobody said that it was complete
        (left,) = w.parts.journal.uploads()
        assert (left.key, left.staging.read_bytes()) == ("open", open_)
        assert "not closed" in left.problem
        assert process_token()


def test_ten_thousand_parts_hold_the_largest_object(monkeypatch):
    monkeypatch.setattr(streams, "PART_SIZE", 8 << 20)
    sizes = [streams.part_size(number) for number in range(1, 10_001)]
    assert sizes[0] == sizes[999] == 8 << 20
    assert sum(sizes) > 5 << 40
    assert max(sizes) <= 5 << 30
