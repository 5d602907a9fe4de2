"""Reads and writes in a mount: contract R1, R5, R6, R7, W1, W3, W5, W6, without a kernel."""

from __future__ import annotations

import errno
import os

import pytest
import trio
import trio.testing

from mscfs.errors import StoreUnavailableError
from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.staging_log import LOG
from tests.vfs.inline import world
from tests.vfs.test_names import ME, put, read_file, write_file

MIB = 1 << 20


async def open_file(w, name: str, flags: int = os.O_RDONLY) -> int:
    found = await w.fs.lookup(ROOT, name)
    handle, _ = await w.fs.open(found.number, flags)
    return handle


async def test_R1_an_open_handle_never_mixes_two_versions(tmp_path):
    async with world(tmp_path, metadata_ttl=0, replicas=False, chunk_size=65536) as w:
        old, new = b"o" * 3_000_000, b"n" * 3_000_000  # too large to be fetched whole at open
        put(w.store("primary") / "a", old)
        handle = await open_file(w, "a")
        assert bytes(await w.fs.read(handle, 0, 65536)) == old[:65536]
        put(w.store("primary") / "a", new)
        with pytest.raises(OSError, match="no store holds") as error:
            await w.fs.read(handle, 131_072, 65536)
        assert error.value.errno == errno.ESTALE
        fresh = await open_file(w, "a")
        assert bytes(await w.fs.read(fresh, 131_072, 65536)) == new[:65536]
        # The old handle and the new one have inodes, and so page caches, of their own.
        assert w.fs.handles.file(handle).inode is not w.fs.handles.file(fresh).inode
        await w.fs.release(handle)
        await w.fs.release(fresh)


async def test_R1_a_replica_of_the_old_version_keeps_serving_the_handle(tmp_path):
    async with world(tmp_path, metadata_ttl=0, chunk_size=65536) as w:
        old = os.urandom(300_000)
        put(w.store("primary") / "a", old)
        await w.transport.step("far", "a", delete=False)
        handle = await open_file(w, "a")
        put(w.store("primary") / "a", b"n" * 300_000)
        got = b"".join([bytes(await w.fs.read(handle, offset, 65536)) for offset in range(0, 300_000, 65536)])
        assert got == old
        await w.fs.release(handle)


async def test_R6_a_miss_becomes_a_wish_for_each_replica(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"data")
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"data"
        await w.parts.replicator.write_gathered()
        assert {(c.replica, c.key, c.kind) for c in w.parts.journal.claim(10)} == {
            ("near", "a", "back-fill"),
            ("far", "a", "back-fill"),
        }


async def test_R6_the_replicator_fills_and_the_next_read_is_served_near(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"data")
        await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.replicator.run)
            assert await w.parts.replicator.drain(10) == 0
            nursery.cancel_scope.cancel()
        for name in ("near", "far"):
            assert (w.store(name) / "a").read_bytes() == b"data"
        before = w.parts.manager.replicas[0].statistics.hits
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"data"
        assert w.parts.manager.replicas[0].statistics.hits > before


async def test_R7_a_small_read_moves_about_one_chunk(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        with (w.store("primary") / "huge").open("wb") as file:
            file.truncate(100 << 30)
        handle = await open_file(w, "huge")
        assert bytes(await w.fs.read(handle, 50 << 30, 4096)) == bytes(4096)
        assert w.transport.bytes_fetched == MIB
        await w.fs.release(handle)


async def test_sequential_reads_fetch_ahead_and_random_ones_do_not(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        put(w.store("primary") / "a", bytes(64 * MIB))
        handle = await open_file(w, "a")
        for offset in (40 * MIB, 3 * MIB, 60 * MIB, 20 * MIB):
            await w.fs.read(handle, offset, 4096)
        assert w.transport.bytes_fetched == 4 * MIB
        await w.fs.release(handle)
        handle = await open_file(w, "a")
        fetched = w.transport.bytes_fetched
        for offset in range(0, 2 * MIB, 131_072):
            await w.fs.read(handle, offset, 131_072)
        await trio.testing.wait_all_tasks_blocked()
        assert w.transport.bytes_fetched - fetched > 2 * MIB
        await w.fs.release(handle)


async def test_a_small_file_is_one_get_at_open_and_none_when_the_kernel_kept_its_pages(tmp_path):
    async with world(tmp_path, replicas=False, chunk_size=65536, metadata_ttl=60) as w:
        content = os.urandom(300_000)
        put(w.store("primary") / "a", content)
        found = await w.fs.lookup(ROOT, "a")
        handle, keeps = await w.fs.open(found.number, os.O_RDONLY)
        await trio.testing.wait_all_tasks_blocked()
        assert (keeps, w.transport.fetches) == (False, 1)
        assert bytes(await w.fs.read(handle, 100_000, 131_072)) == content[100_000:231_072]
        await w.fs.release(handle)
        handle, keeps = await w.fs.open(found.number, os.O_RDONLY)
        await trio.testing.wait_all_tasks_blocked()
        assert (keeps, w.transport.fetches) == (True, 1)
        await w.fs.release(handle)
        assert w.parts.fetcher.buffers.arena.used == 0


async def test_one_fetch_serves_all_who_wait(tmp_path):
    async with world(tmp_path, replicas=False) as w:
        put(w.store("primary") / "a", b"x" * 2000)
        first, second = await open_file(w, "a"), await open_file(w, "a")
        async with trio.open_nursery() as nursery:
            for handle in (first, second, first):
                nursery.start_soon(w.fs.read, handle, 0, 1000)
        assert w.transport.fetches == 1


async def test_R5_a_read_that_nobody_can_serve_ends_with_eio_at_the_deadline(tmp_path, autojump_clock):
    async with world(tmp_path, replicas=False, read_deadline=30) as w:
        put(w.store("primary") / "a", b"x")

        async def hang(*what: object) -> None:
            await trio.sleep_forever()

        w.transport.before = hang
        handle = await open_file(w, "a")
        began = trio.current_time()
        with pytest.raises(OSError, match="no store delivered") as error:
            await w.fs.read(handle, 0, 1)
        assert error.value.errno == errno.EIO
        assert trio.current_time() - began <= 30.5


async def test_W1_close_returns_when_the_primary_holds_the_bytes(tmp_path):
    async with world(tmp_path) as w:
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"data")
        assert not (w.store("primary") / "a").exists()
        await w.fs.flush(handle)
        assert (w.store("primary") / "a").read_bytes() == b"data"
        assert {c.replica for c in w.parts.journal.claim(10)} == {"near", "far"}  # W2: on disk before close returns
        await w.fs.flush(handle)
        assert w.transport.uploads == 1  # a dup'ed descriptor flushes twice
        await w.fs.release(handle)


async def test_W1_the_store_s_reason_reaches_close(tmp_path):
    async with world(tmp_path) as w:

        async def refuse(what: str, *rest: object) -> None:
            if what == "upload":
                raise StoreUnavailableError("the store is down", store="data")

        w.transport.before = refuse
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"precious")
        with pytest.raises(OSError, match="down") as error:
            await w.fs.flush(handle)
        assert error.value.errno == errno.EIO
        await w.fs.release(handle)
        (kept,) = w.parts.journal.uploads()  # W4: nothing is dropped
        assert kept.staging.read_bytes() == b"precious"


async def test_W3_a_reader_elsewhere_sees_old_or_new(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"old content")
        found = await w.fs.lookup(ROOT, "a")
        handle, _ = await w.fs.open(found.number, os.O_RDWR)
        for offset in range(0, 100, 10):
            await w.fs.write(handle, offset, b"new bytes!")
            assert (w.store("primary") / "a").read_bytes() == b"old content"
        await w.fs.flush(handle)
        assert (w.store("primary") / "a").read_bytes() == b"new bytes!" * 10
        await w.fs.release(handle)


async def test_W5_writing_in_place_onto_a_changed_object_is_estale(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"version one")
        found = await w.fs.lookup(ROOT, "a")
        handle, _ = await w.fs.open(found.number, os.O_RDWR)
        await w.fs.write(handle, 0, b"mine")
        put(w.store("primary") / "a", b"somebody else's")
        with pytest.raises(OSError) as error:
            await w.fs.flush(handle)
        assert error.value.errno == errno.ESTALE
        assert (w.store("primary") / "a").read_bytes() == b"somebody else's"
        await w.fs.release(handle)
        (kept,) = w.parts.journal.uploads()
        assert kept.problem
        assert kept.staging.read_bytes() == b"mineion one"


async def test_W5_a_file_replaced_as_a_whole_is_last_writer_wins(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"version one")
        found = await w.fs.lookup(ROOT, "a")
        handle, _ = await w.fs.open(found.number, os.O_WRONLY)
        await w.fs.set_attributes(found.number, Change(size=0), by_handle=True)  # what O_TRUNC becomes
        await w.fs.write(handle, 0, b"mine")
        put(w.store("primary") / "a", b"somebody else's")
        await w.fs.flush(handle)
        assert (w.store("primary") / "a").read_bytes() == b"mine"
        await w.fs.release(handle)


async def test_W5_exclusive_creation_is_decided_at_open(tmp_path):
    async with world(tmp_path, metadata_ttl=60) as w:
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "lock")
        put(w.store("primary") / "lock", b"theirs")
        with pytest.raises(FileExistsError):
            await w.fs.create(ROOT, "lock", 0o644, os.O_WRONLY | os.O_EXCL, ME)
        handle, _, _ = await w.fs.create(ROOT, "mine", 0o644, os.O_WRONLY | os.O_EXCL, ME)
        assert (w.store("primary") / "mine").read_bytes() == b""
        await w.fs.write(handle, 0, b"pid 1")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert (w.store("primary") / "mine").read_bytes() == b"pid 1"


async def test_W5_a_name_that_was_taken_by_a_doubled_request_is_ours_and_nothing_of_it_stays(tmp_path, monkeypatch):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        primary = w.parts.manager.primary
        real = primary.inner.put

        def doubled(key, source, **named):
            if named["if_absent"]:
                real(key, source, **named)
            return real(key, source, **named)

        monkeypatch.setattr(primary.inner, "put", doubled)
        handle, _, _ = await w.fs.create(ROOT, "mine", 0o644, os.O_WRONLY | os.O_EXCL, ME)
        with pytest.raises(FileExistsError):
            await w.fs.create(ROOT, "mine", 0o644, os.O_WRONLY | os.O_EXCL, ME)
        await w.fs.write(handle, 0, b"pid 1")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert primary.get("mine").read_all() == b"pid 1"
        assert not primary.head("mine").metadata


async def test_W5_an_open_with_o_trunc_replaces_the_file(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"version one")
        handle = await open_file(w, "a", os.O_WRONLY | os.O_TRUNC)
        assert (await w.fs.lookup(ROOT, "a")).size == 0
        await w.fs.write(handle, 0, b"two")
        assert (w.store("primary") / "a").read_bytes() == b"version one"
        await w.fs.flush(handle)
        assert (w.store("primary") / "a").read_bytes() == b"two"
        await w.fs.release(handle)


@pytest.mark.parametrize("size", [0, 5, 11, 30])
async def test_W6_truncate_by_path_up_and_down(tmp_path, size):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a", b"hello world")
        found = await w.fs.lookup(ROOT, "a")
        changed = await w.fs.set_attributes(found.number, Change(size=size))
        assert changed.size == size
        assert (w.store("primary") / "a").read_bytes() == b"hello world"[:size].ljust(size, b"\0")


async def test_W1_a_truncate_by_path_is_on_the_primary_whoever_has_the_file_open(tmp_path):
    async with world(tmp_path, objects=True) as w:
        primary = w.parts.manager.primary
        await write_file(w.fs, ROOT, "a", b"hello world")
        number = (await w.fs.lookup(ROOT, "a")).number
        reader = await open_file(w, "a")
        writer = await open_file(w, "a", os.O_RDWR)
        await w.fs.write(writer, 0, b"J")
        await w.fs.set_attributes(number, Change(size=5))
        assert primary.get("a").read_all() == b"Jello"
        await w.fs.set_attributes(number, Change(size=4), by_handle=True)
        assert primary.get("a").read_all() == b"Jello"  # this one comes home with its close()
        await w.fs.flush(writer)
        await w.fs.set_attributes(number, Change(size=3))  # between close() and the kernel's release
        assert primary.get("a").read_all() == b"Jel"
        for handle in (writer, reader):
            await w.fs.release(handle)
        assert w.parts.area.files == 0


@pytest.mark.parametrize("fails", [False, True])
async def test_W1_a_truncate_by_path_during_the_last_close_waits_for_its_own_upload(tmp_path, fails):
    """The close must neither answer for it nor leave its staging file behind."""
    async with world(tmp_path, objects=True) as w:
        primary = w.parts.manager.primary
        await write_file(w.fs, ROOT, "a", b"hello world")
        number = (await w.fs.lookup(ROOT, "a")).number
        handle = await open_file(w, "a", os.O_RDWR)
        await w.fs.write(handle, 0, b"J")
        reached, go_on, uploads = trio.Event(), trio.Event(), []

        async def hold(what, *_):
            if what == "upload":
                uploads.append(what)
                if len(uploads) == 1:
                    reached.set()
                    await go_on.wait()
                elif fails:
                    raise StoreUnavailableError("down", store="data")

        w.transport.before = hold
        outcome = []

        async def truncate():
            try:
                await w.fs.set_attributes(number, Change(size=2))
            except OSError as error:
                outcome.append(error)
            else:
                outcome.append(primary.get("a").read_all())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.release, handle)
            await reached.wait()
            nursery.start_soon(truncate)
            for _ in range(20):
                await trio.lowlevel.checkpoint()
            go_on.set()
        if fails:
            assert isinstance(outcome[0], StoreUnavailableError)
            assert primary.get("a").read_all() == b"Jello world"
            assert w.parts.journal.uploads()
        else:
            assert outcome == [b"Je"]
            assert w.parts.area.files == 0


async def test_W6_append_sparse_and_two_handles(tmp_path):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"12345")
        one, two = await open_file(w, "a", os.O_RDWR), await open_file(w, "a", os.O_RDWR)
        await w.fs.write(one, 5, b"678")
        await w.fs.write(two, 20, b"end")
        assert bytes(await w.fs.read(one, 0, 100)) == b"12345678" + bytes(12) + b"end"
        await w.fs.flush(one)
        await w.fs.release(one)
        await w.fs.write(two, 0, b"A")
        await w.fs.flush(two)
        await w.fs.release(two)
        assert (w.store("primary") / "a").read_bytes() == b"A2345678" + bytes(12) + b"end"


async def test_W6_no_room_for_staging_is_enospc_at_write(tmp_path):
    async with world(tmp_path, staging_limit=10_000) as w:
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        assert await w.fs.write(handle, 0, bytes(8000)) == 8000
        with pytest.raises(OSError, match="staging limit") as error:
            await w.fs.write(handle, 8000, bytes(8000))
        assert error.value.errno == errno.ENOSPC
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert (w.store("primary") / "a").stat().st_size == 8000


async def test_writers_wait_while_their_file_is_uploaded(tmp_path):
    async with world(tmp_path) as w:
        started, go_on = trio.Event(), trio.Event()

        async def hold(what: str, *rest: object) -> None:
            if what == "upload":
                started.set()
                await go_on.wait()

        w.transport.before = hold
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"1111")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.flush, handle)
            await started.wait()
            nursery.start_soon(w.fs.write, handle, 2, b"22")
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        assert (w.store("primary") / "a").read_bytes() == b"1111"
        await w.fs.flush(handle)
        assert (w.store("primary") / "a").read_bytes() == b"1122"
        await w.fs.release(handle)


async def test_closed_files_leave_no_staging_behind(tmp_path):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        handle = await open_file(w, "a", os.O_RDWR)
        await w.fs.write(handle, 0, b"y")
        await w.fs.unlink(ROOT, "a")
        await w.fs.write(handle, 1, b"z")
        assert bytes(await w.fs.read(handle, 0, 10)) == b"yz"
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert [path.name for path in w.parts.area.directory.iterdir()] == [LOG]
        assert not (w.store("primary") / "a").exists()
        assert w.parts.journal.uploads() == []
