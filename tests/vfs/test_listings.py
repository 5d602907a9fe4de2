"""Listings: streamed to readers, begun before anybody asks, given up; what they spare and what they must not hide."""

from __future__ import annotations

import gc
import os
import stat

import pytest
import trio

from mscfs.errors import StoreUnavailableError
from mscfs.vfs import listings
from mscfs.vfs.entries import Entries
from mscfs.vfs.foresight import AHEAD, ASKED
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.listings import Listing
from tests.vfs.inline import world
from tests.vfs.test_names import ME, names, read_directory, read_file, write_file


def fill(w, prefix: str, count: int) -> None:
    for number in range(count):
        w.parts.manager.primary.put(f"{prefix}{number:05}", b"x")


def forbid_questions(w) -> None:
    """From now on no single name may be asked for."""

    async def ask(key):
        raise AssertionError(f"asked for {key!r}")

    w.parts.namespace._questions.primary = ask


class Gate:
    """Holds up the transport at what `match` names until `open`."""

    def __init__(self, w, *match: str) -> None:
        self.match = match
        self.reached = trio.Event()
        self.open = trio.Event()
        w.transport.before = self

    async def __call__(self, *what: object) -> None:
        if what[: len(self.match)] == self.match:
            self.reached.set()
            await self.open.wait()


async def settled() -> None:
    for _ in range(100):
        await trio.lowlevel.checkpoint()


async def test_the_first_entries_are_answered_while_the_second_page_is_held_back(tmp_path):
    async with world(tmp_path, objects=True) as w:
        fill(w, "", 2500)
        gate = Gate(w, "page")
        handle = w.fs.open_directory(ROOT)
        rows = await w.fs.read_directory(handle, 0)
        assert rows.entries.names[rows.slots[0]] == b"00000"
        rows = await w.fs.read_directory(handle, 999)
        assert len(rows.slots) == 1
        with trio.move_on_after(0.01) as waited:
            await w.fs.read_directory(handle, 1000)
        assert waited.cancelled_caught
        gate.open.set()
        rows = await w.fs.read_directory(handle, 1000)
        assert rows.entries.names[rows.slots[0]] == b"01000"
        w.fs.close_directory(handle)
        assert len(await names(w.fs)) == 2500
        assert w.transport.listings == 1


async def test_a_listed_name_needs_no_question_and_no_inode(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 100)
        handle = w.fs.open_directory(ROOT)
        await w.fs.read_directory(handle, 0)
        forbid_questions(w)
        found = await w.fs.lookup(ROOT, "00042")
        assert (found.size, stat.S_ISREG(found.mode), found.timeout) == (1, True, pytest.approx(60, abs=5))
        assert w.fs.attributes(found.number).mtime_ns == found.mtime_ns
        assert (await w.fs.lookup(ROOT, "00042")).number == found.number
        assert len(w.parts.namespace.table) == 1
        assert await read_file(w.fs, found.number) == b"x"
        assert len(w.parts.namespace.table) == 1, "a closed file goes back to the columns"
        w.fs.forget(found.number, 2)


async def test_L4_names_asked_for_one_by_one_keep_no_inodes_once_they_are_believed_no_longer(
    tmp_path, autojump_clock, monkeypatch
):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        table = w.parts.namespace.table
        fill(w, "", 5)
        await names(w.fs)
        monkeypatch.setattr(w.parts.namespace._foresight, "asked", lambda _: None)  # too large to be listed unasked
        await trio.sleep(61)
        w.parts.manager.primary.put("00001", b"another version")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.namespace.sweep)
            number = (await w.fs.lookup(ROOT, "00001")).number
            handle, _ = await w.fs.open(number, os.O_RDONLY)
            await trio.sleep(121)
            assert len(table) == 2, "it is open"
            await w.fs.release(handle)
            assert len(table) == 2, "more is known of it than from the listing"
            await trio.sleep(121)
            assert len(table) == 1
            nursery.cancel_scope.cancel()
        assert (await w.fs.lookup(ROOT, "00001")).number == number
        assert await read_file(w.fs, number) == b"another version"


async def test_R2_absence_is_believed_for_the_ttl_of_a_listing(tmp_path, autojump_clock):
    async with world(tmp_path, metadata_ttl=60) as w:
        assert await names(w.fs) == []
        assert w.fs.absence(ROOT) == 60
        (w.store("primary") / "new").write_bytes(b"1")
        await trio.sleep(59)
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "new")
        assert w.fs.absence(ROOT) == 1
        await trio.sleep(1)
        assert w.fs.absence(ROOT) == 0
        assert (await w.fs.lookup(ROOT, "new")).size == 1


async def test_R2_with_ttl_0_absence_is_never_believed(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        assert await names(w.fs) == []
        assert w.fs.absence(ROOT) == 0


async def test_R2_a_name_made_here_is_there_at_once_whatever_a_listing_said(tmp_path):
    async with world(tmp_path, metadata_ttl=60) as w:
        assert await names(w.fs) == []
        await write_file(w.fs, ROOT, "new", b"12")
        assert (await w.fs.lookup(ROOT, "new")).size == 2
        assert await names(w.fs) == ["new"]


async def test_R2_a_listing_that_began_before_a_change_here_does_not_undo_it(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 2)
        gate = Gate(w, "page")
        handle = w.fs.open_directory(ROOT)
        await w.fs.read_directory(handle, 0)
        await write_file(w.fs, ROOT, "00000", b"longer")
        await write_file(w.fs, ROOT, "made", b"here")
        await w.fs.unlink(ROOT, "00001")
        for name in ("00000", "made"):
            w.fs.forget((await w.fs.lookup(ROOT, name)).number, 2)
        gate.open.set()
        await settled()
        assert await names(w.fs) == ["00000", "made"]
        assert (await w.fs.lookup(ROOT, "00000")).size == 6
        assert (await w.fs.lookup(ROOT, "made")).size == 4


async def test_an_unlisted_directory_is_listed_after_some_lookups(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "d/", 50)
        d = (await w.fs.lookup(ROOT, "d")).number
        for number in range(ASKED):
            assert w.transport.listings == 0
            await w.fs.lookup(d, f"{number:05}")
        await settled()
        assert w.transport.listings == 1
        forbid_questions(w)
        for number in range(ASKED, 50):
            await w.fs.lookup(d, f"{number:05}")
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(d, "missing")
        assert w.transport.listings == 1


async def test_a_huge_directory_is_not_listed_for_three_files(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "UNWANTED_PAGES", 2)
    monkeypatch.setattr("mscfs.vfs.foresight.UNWANTED_PAGES", 2)
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "d/", 5000)
        monkeypatch.setattr("mscfs.vfs.foresight.Foresight._pages", lambda *_: 1)
        d = (await w.fs.lookup(ROOT, "d")).number
        await w.fs.lookup(d, "00000")
        await settled()
        directory = w.parts.namespace.table[d]
        assert directory.listing is None
        assert directory.entries.live < 5000
        assert (await w.fs.lookup(d, "04999")).size == 1, "what was not told of is asked for"
        assert len(await names(w.fs, d)) == 5000, "a reader gets all of it"


@pytest.mark.parametrize("how", ["unlink", "rename"])
async def test_R2_what_a_new_file_hid_comes_to_light_when_it_goes(tmp_path, autojump_clock, how):
    """Another host made a file of that name meanwhile, and a listing has told of it."""
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        assert await names(w.fs) == []
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        w.parts.manager.primary.put("a", b"somebody else's")
        await trio.sleep(61)
        assert await names(w.fs) == ["a"]
        assert (await w.fs.lookup(ROOT, "a")).size == 0
        if how == "unlink":
            await w.fs.unlink(ROOT, "a")
        else:
            await w.fs.rename(ROOT, "a", ROOT, "b", 0)
        assert (await w.fs.lookup(ROOT, "a")).size == len("somebody else's")
        assert await names(w.fs) == (["a"] if how == "unlink" else ["a", "b"])
        await w.fs.release(handle)


async def test_R2_an_expired_listing_is_renewed_instead_of_asking_for_each_name(tmp_path, autojump_clock):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 20)
        await names(w.fs)
        found = [await w.fs.lookup(ROOT, f"{number:05}") for number in range(20)]
        await trio.sleep(61)
        w.parts.manager.primary.put("00007", b"another version")
        w.parts.manager.primary.delete("00008")
        forbid_questions(w)
        for number, known in enumerate(found):
            if number == 7:
                assert (await w.fs.lookup(ROOT, "00007")).size == len("another version")
            elif number == 8:
                with pytest.raises(FileNotFoundError):
                    await w.fs.lookup(ROOT, "00008")
            else:
                assert await read_file(w.fs, known.number) == b"x"
        assert w.transport.listings == 2


async def test_R2_an_open_of_a_file_that_a_renewed_listing_shows_changed_is_stale(tmp_path, autojump_clock):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 2)
        await names(w.fs)
        found = await w.fs.lookup(ROOT, "00000")
        await trio.sleep(61)
        w.parts.manager.primary.put("00000", b"another version")
        with pytest.raises(OSError, match="changed"):
            await w.fs.open(found.number, os.O_RDONLY)
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "00000")).number) == b"another version"


async def test_directories_opened_in_order_are_listed_ahead(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        for number in range(10):
            fill(w, f"{number}/", 3)
        handle = w.fs.open_directory(ROOT)
        rows = await w.fs.read_directory(handle, 0)
        numbers = []
        for slot in rows.slots:
            rows.entries.refer(slot)
            numbers.append(rows.entries.number(slot))
        await names(w.fs, numbers[0])
        assert w.transport.listings == 2
        await names(w.fs, numbers[1])
        await settled()
        assert w.transport.listings == 3 + AHEAD
        gate = Gate(w, "list", f"{1 + AHEAD}/")
        assert len(await names(w.fs, numbers[1 + AHEAD])) == 3, "it was there before it was asked for"
        gate.open.set()


async def test_directories_opened_at_random_are_not_listed_ahead(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        for number in range(10):
            fill(w, f"{number}/", 3)
        for number in (3, 8, 1, 6):
            await names(w.fs, (await w.fs.lookup(ROOT, f"{number}")).number)
        await settled()
        assert w.transport.listings <= 4 + 1  # and the root's, for the lookups in it


async def test_a_listing_that_fails_in_the_middle_is_an_error_and_the_next_begins_anew(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 1500)

        async def fail(*what):
            if what[0] == "page":
                raise StoreUnavailableError("gone", store="data")

        w.transport.before = fail
        handle = w.fs.open_directory(ROOT)
        assert len((await w.fs.read_directory(handle, 900)).slots) == 100
        with pytest.raises(StoreUnavailableError):
            await w.fs.read_directory(handle, 1000)
        w.transport.before = None
        assert len(await names(w.fs)) == 1500


async def test_names_that_come_once_more_are_shown_once(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 5)
        real = w.transport.list_directory

        async def again(directory, on_page):
            await real(directory, on_page)
            return await real(directory, on_page)  # as after the death of a worker

        w.transport.list_directory = again
        assert await names(w.fs) == [f"{number:05}" for number in range(5)]
        assert w.parts.namespace.shadowed_names == 0


async def test_N2_a_directory_wins_over_an_object_of_an_earlier_page(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        primary = w.parts.manager.primary
        primary.put("a", b"object")
        for number in range(1100):
            primary.put(f"a-{number:05}", b"x")
        primary.put("a/b", b"below")
        found = dict(await read_directory(w.fs))
        assert found["a"] == stat.S_IFDIR
        assert len(found) == 1101
        assert stat.S_ISDIR((await w.fs.lookup(ROOT, "a")).mode)
        assert w.parts.namespace.shadowed_names == 1


async def test_a_directory_made_here_is_known_to_be_empty(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        made = await w.fs.make_directory(ROOT, "new", 0o755, ME)
        forbid_questions(w)
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(made.number, "a")
        await write_file(w.fs, made.number, "a", b"1")
        assert await names(w.fs, made.number) == ["a"]
        assert w.transport.listings == 0


async def test_N4_numbers_stay_while_the_kernel_holds_them_over_listings(tmp_path, autojump_clock):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 5)
        await names(w.fs)
        before = {name: (await w.fs.lookup(ROOT, name)).number for name in ("00001", "00003")}
        await trio.sleep(61)
        w.parts.manager.primary.put("00000a", b"in between")
        w.parts.manager.primary.put("00003", b"another version")
        assert len(await names(w.fs)) == 6
        assert {name: (await w.fs.lookup(ROOT, name)).number for name in before} == before


async def test_L4_directories_that_the_kernel_forgets_leave_nothing_for_the_collector(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        for number in range(20):
            fill(w, f"{number}/", 3)
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                for number in range(20):
                    found = (await w.fs.lookup(ROOT, f"{number}")).number
                    handle = w.fs.open_directory(found)
                    assert len((await w.fs.read_directory(handle, 0)).slots) == 3
                    w.fs.close_directory(handle)
                    w.fs.forget(found, 1)
            await settled()
            left = [known.directory.key for known in gc.get_objects() if type(known) in {Entries, Listing}]
            assert {key for key in left if key} == set()
        finally:
            gc.enable()


async def test_a_file_opened_and_closed_gives_its_inode_back_and_keeps_its_pages(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 3)
        await names(w.fs)
        numbers = [(await w.fs.lookup(ROOT, f"{number:05}")).number for number in range(3)]
        for number in numbers:
            await read_file(w.fs, number)
        assert len(w.parts.namespace.table) == 1
        handle, keep = await w.fs.open(numbers[0], os.O_RDONLY)
        assert keep, "the page cache holds this version"
        await w.fs.release(handle)
