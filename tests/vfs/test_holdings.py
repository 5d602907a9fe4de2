"""What replicas are known to lack: they are not asked for it, and no read depends on that being right."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from mscfs.errors import NotFoundError, StoreUnavailableError
from mscfs.providers.base import Capabilities
from mscfs.providers.page import PAGE_SIZE, PageBuilder, to_entry
from mscfs.replicas.source import Replica
from mscfs.types import ObjectMetadata, from_ns
from mscfs.vfs import holdings
from mscfs.vfs.holdings import FEWEST_PAGES, MISSES, Holdings
from mscfs.vfs.inodes import ROOT
from mscfs.workers.protocol import FetchSummary
from tests.doubles import Clock, Scripted
from tests.replicas.stores import memory
from tests.vfs.inline import world

TTL = 60.0


def page_of(names):
    builder = PageBuilder()
    for name in names:
        builder.add(to_entry(ObjectMetadata(name, 1, from_ns(0)), name.encode(), links=False))
    return builder.build()


class Lister:
    """Lists a replica when its test says so."""

    def __init__(self):
        self.names = []
        self.failure = None
        self.listed = []
        self.pages = 0
        self.leave = trio.Event()
        self.leave.set()

    async def __call__(self, directory, on_page, *, store):
        self.listed.append((store, directory))
        for begin in range(0, len(self.names), PAGE_SIZE):
            await trio.lowlevel.checkpoint()
            self.pages += 1
            on_page(page_of(self.names[begin : begin + PAGE_SIZE]))
        await self.leave.wait()
        if self.failure is not None:
            raise self.failure
        return ()


@pytest.fixture
async def known(nursery):
    """Holdings of the replicas `near`, in memory, and `disk`, a directory."""
    disk = memory("disk")
    disk.capabilities = Capabilities(real_directories=True)
    near = Replica("near", memory("near"))
    lister, clock, suspects = Lister(), Clock(), []
    made = Holdings([near, Replica("disk", disk)], lister, nursery, ttl=TTL, clock=clock, suspect=suspects.append)

    async def miss(*names, profile="near"):
        for name in names:
            made.told(name, FetchSummary("primary", 1, missing=(profile,)))
        await trio.testing.wait_all_tasks_blocked()

    return SimpleNamespace(holdings=made, lister=lister, clock=clock, suspects=suspects, near=near, miss=miss)


FIRST = [f"d/{number}" for number in range(MISSES)]


async def test_a_name_that_was_missing_is_lacking_until_the_ttl(known):
    assert known.holdings.lacking("d/0") == ()
    await known.miss("d/0")
    assert known.holdings.lacking("d/0") == ("near",)
    assert known.holdings.lacking("d/1") == ()
    assert known.holdings.lacking("0") == known.holdings.lacking("e/0") == ()
    known.clock.now += TTL
    assert known.holdings.lacking("d/0") == ()
    assert known.lister.listed == []


async def test_some_misses_are_worth_one_listing_which_answers_for_all_names(known):
    known.lister.names = ["held", "o", "ünï"]
    await known.miss(*FIRST)
    assert known.lister.listed == [("near", "d/")]
    assert known.holdings.lacking("d/held") == known.holdings.lacking("d/ünï") == ()
    assert known.holdings.lacking("d/other") == ("near",)
    assert known.holdings.lacking("d/o/p") == ()
    await known.miss("d/new", "d/newer")
    assert len(known.lister.listed) == 1


async def test_the_root_is_a_directory_too(known):
    known.lister.names = ["held"]
    await known.miss("a", "b", "c")
    assert known.lister.listed == [("near", "")]
    assert known.holdings.lacking("d") == ("near",)
    assert known.holdings.lacking("held") == ()


async def test_a_listing_that_is_too_old_is_renewed_by_the_next_miss(known):
    await known.miss(*FIRST)
    known.clock.now += TTL
    assert known.holdings.lacking("d/other") == ()
    known.lister.names = ["other"]
    await known.miss("d/0")
    assert len(known.lister.listed) == 2
    assert known.holdings.lacking("d/other") == ()
    assert known.holdings.lacking("d/more") == ("near",)


async def test_a_listing_is_as_old_as_its_beginning(known):
    known.lister.leave = trio.Event()
    await known.miss(*FIRST)
    known.clock.now += TTL - 1
    known.lister.leave.set()
    await trio.testing.wait_all_tasks_blocked()
    assert known.holdings.lacking("d/other") == ("near",)
    known.clock.now += 1
    assert known.holdings.lacking("d/other") == ()


async def test_a_copy_made_here_is_known_at_once(known):
    await known.miss(*FIRST)
    known.holdings.settled("near", "d/0", held=True)
    assert known.holdings.lacking("d/0") == ()
    await known.miss("d/0")  # by a read that asked before
    assert known.holdings.lacking("d/0") == ()
    known.holdings.settled("near", "d/0", held=False)
    assert known.holdings.lacking("d/0") == ("near",)


async def test_a_copy_made_while_the_listing_was_under_way_is_not_lost_with_it(known):
    known.lister.leave = trio.Event()
    await known.miss(*FIRST)
    known.clock.now += 1
    known.holdings.settled("near", "d/0", held=True)
    known.clock.now += 1
    known.lister.leave.set()
    await trio.testing.wait_all_tasks_blocked()
    assert known.holdings.lacking("d/0") == ()
    assert known.holdings.lacking("d/1") == ("near",)


async def test_what_was_missing_before_the_listing_is_told_by_the_listing(known):
    await known.miss(*FIRST[:-1])
    known.clock.now += 1
    known.lister.names = ["0"]
    await known.miss(FIRST[-1])
    assert known.holdings.lacking("d/0") == ()
    assert known.holdings.lacking("d/1") == ("near",)


async def test_a_listed_name_that_is_gone_is_asked_for_once(known):
    known.lister.names = ["gone"]
    await known.miss(*FIRST)
    assert known.holdings.lacking("d/gone") == ()
    known.clock.now += 1
    await known.miss("d/gone")
    assert known.holdings.lacking("d/gone") == ("near",)


async def test_a_replica_that_served_although_it_was_said_to_lack_it_is_used_again(known):
    await known.miss(*FIRST)
    known.holdings.told("d/other", FetchSummary("near", 1))
    assert known.holdings.lacking("d/other") == ()


async def test_reads_that_skipped_a_replica_teach_nothing_new(known):
    await known.miss("d/0")
    known.clock.now += TTL - 1
    known.holdings.told("d/0", FetchSummary("primary", 1, skipped=("near",)))
    known.clock.now += 1
    assert known.holdings.lacking("d/0") == ()


async def test_directories_on_disk_and_unhealthy_replicas_are_not_listed(known):
    await known.miss(*FIRST, profile="disk")
    assert known.holdings.lacking("d/0") == ()
    for _ in range(3):
        known.near.failed(StoreUnavailableError("reset"))
    await known.miss(*FIRST)
    assert known.lister.listed == []


async def test_a_huge_directory_is_given_up_and_tried_again_after_twice_as_many_misses(known):
    known.lister.names = [f"{number:06}" for number in range(20 * PAGE_SIZE)]
    await known.miss(*FIRST)
    assert known.lister.pages == FEWEST_PAGES + 1
    assert known.holdings.lacking("d/other") == ()
    await known.miss(*FIRST[1:])
    assert len(known.lister.listed) == 1
    await known.miss("d/0")
    assert len(known.lister.listed) == 2
    for _ in range(5):
        await known.miss(*FIRST, *FIRST)
    assert known.holdings.lacking("d/other") == ("near",), "it pays by now"


async def test_a_listing_that_takes_longer_than_it_is_believed_is_given_up(known):
    known.lister.names = [f"{number:06}" for number in range(5 * PAGE_SIZE)]
    known.lister.leave = trio.Event()
    real = known.lister.__call__

    async def slow(directory, on_page, *, store):
        def late(page):
            known.clock.now += TTL / 2
            on_page(page)

        return await real(directory, late, store=store)

    known.holdings._list_replica = slow
    await known.miss(*FIRST)
    assert known.lister.pages == 2


async def test_a_failed_listing_leaves_the_replica_suspected_and_asked(known):
    known.lister.failure = StoreUnavailableError("down", store="near")
    await known.miss(*FIRST)
    assert known.suspects == ["near"]
    assert known.holdings.lacking("d/other") == ()
    known.lister.failure = None
    await known.miss("d/4")
    assert known.holdings.lacking("d/other") == ("near",)


async def test_L4_what_is_remembered_is_bounded(known, monkeypatch):
    monkeypatch.setattr(holdings, "LARGEST", 500)
    for number in range(1000):
        await known.miss(f"{number}/a")
    assert known.holdings.lacking("999/a") == ("near",)
    assert known.holdings.lacking("0/a") == ()
    assert len(known.holdings._directories) <= 100
    assert known.holdings._weight == sum(each.weight for each in known.holdings._directories.values())


# -- on a file system ---------------------------------------------------------------------------------------------

NAMES = [f"{number:03}" for number in range(40)]


def scripted(w, name):
    """The store of a replica as one that counts."""
    provider = w.parts.manager.replica(name).provider
    provider.inner = Scripted(provider.inner)
    return provider.inner


def fill(w, *profiles):
    for name in NAMES:
        w.parts.manager.primary.put(f"d/{name}", name.encode())
        for profile in profiles:
            w.parts.manager.replica(profile).provider.put(f"d/{name}", name.encode())


async def read(w, name):
    directory = await w.fs.lookup(ROOT, "d")
    found = await w.fs.lookup(directory.number, name)
    handle, _ = await w.fs.open(found.number, os.O_RDONLY)
    data = bytes(await w.fs.read(handle, 0, 4096))
    await w.fs.release(handle)
    w.fs.forget(found.number, 1)
    w.fs.forget(directory.number, 1)
    await trio.testing.wait_all_tasks_blocked()
    assert data == name.encode()


def wishes(w):
    return {(wish.replica, wish.key) for wish in w.parts.replicator._gathered.values()}


async def test_R6_a_replica_is_not_asked_for_what_it_is_known_to_lack_and_is_filled_all_the_same(tmp_path):
    async with world(tmp_path, objects=True, sibling_read_ahead=False) as w:
        fill(w, "far")
        near = scripted(w, "near")
        for name in NAMES:
            await read(w, name)
        assert near.called("get") == MISSES
        assert near.calls.count(("list_directory", "d/")) == 1
        assert wishes(w) == {("near", f"d/{name}") for name in NAMES}


async def test_R6_a_back_filled_object_is_read_from_its_replica_at_once(tmp_path):
    async with world(tmp_path, objects=True, sibling_read_ahead=False, page_cache=False) as w:
        fill(w, "far")
        near = scripted(w, "near")
        for name in NAMES:
            await read(w, name)
        async with trio.open_nursery() as replicating:
            replicating.start_soon(w.parts.replicator.run)
            assert await w.parts.replicator.drain(30) == 0
            replicating.cancel_scope.cancel()
        near.calls.clear()
        far = scripted(w, "far")
        for name in NAMES:
            await read(w, name)
        assert near.called("get") == len(NAMES)
        assert far.called("get") == 0


async def test_R5_a_copy_that_somebody_else_made_is_found_when_nobody_else_delivers(tmp_path):
    async with world(tmp_path, objects=True, sibling_read_ahead=False, page_cache=False) as w:
        fill(w)
        near = scripted(w, "near")
        for name in NAMES:
            await read(w, name)
        w.parts.manager.replica("near").provider.put("d/039", b"039")
        w.parts.manager.primary_source.provider.inner = down = Scripted(w.parts.manager.primary.inner)
        down.on("get", StoreUnavailableError("reset", store="data"))
        near.calls.clear()
        await read(w, "039")
        assert near.calls == [("get", "d/039")]


async def test_R4_a_copy_that_is_gone_or_stale_although_listed_is_no_trouble(tmp_path):
    async with world(tmp_path, objects=True, sibling_read_ahead=False) as w:
        fill(w, "far", "near")
        near = scripted(w, "near")
        for name in NAMES[:4]:
            near.inner.delete(f"d/{name}")
        for name in NAMES[:3]:
            await read(w, name)
        assert near.calls.count(("list_directory", "d/")) == 1
        near.inner.delete("d/004")
        near.inner.put("d/005", b"old")
        for name in NAMES[3:]:
            await read(w, name)
        assert wishes(w) == {("near", f"d/{name}") for name in NAMES[:6]}
        assert ("get", "d/003") not in near.calls
        with pytest.raises(NotFoundError):
            near.inner.head("d/004")
