"""Which buffer makes room for which: contract L4."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from mscfs.cache.arena import UNIT, Arena, SharedMemory
from mscfs.types import Version
from mscfs.vfs import buffers as module
from mscfs.vfs.buffers import AHEAD_SHARE, BufferPool
from mscfs.vfs.pinned import PinnedObject

UNITS = 8


class Handle:
    """Stands for a started fetch."""

    def __init__(self):
        self.cancelled = False

    def promote(self):
        pass

    def cancel(self):
        self.cancelled = True


class Pool:
    """A pool of eight units whose fetches begin in a list and end when a test says so."""

    def __init__(self):
        self.memory = SharedMemory(UNITS * UNIT)
        self.begun = []
        self.pool = BufferPool(Arena(self.memory), self._begin)

    def _begin(self, buffer, foreground):
        assert buffer.offset is not None
        buffer.fetch = Handle()
        self.begun.append(buffer)

    @property
    def used(self):
        return self.pool.arena.used // UNIT

    def add(self, key, first=0, count=1, *, foreground=True):
        return self.pool.add(target(key), first, count, foreground=foreground)

    def here(self, key, first=0, count=1):
        """A buffer that is complete and not read yet."""
        buffer = self.add(key, first, count)
        self.pool.ended(buffer, None)
        return buffer

    def read(self, buffer, end=None):
        """Read a buffer, to its end unless told otherwise."""
        return self.pool.slice(buffer, buffer.begin, buffer.end if end is None else end)

    def find(self, key, index=0):
        return self.pool.find(target(key).digest, index)


def target(key, chunks=100):
    version = Version(chunks * UNIT, "one")
    return PinnedObject("test", key, version, UNIT)


@pytest.fixture
def p():
    pool = Pool()
    yield pool
    pool.memory.close()


@pytest.fixture
def keeps_nothing_read(monkeypatch):
    """What was read to its end is bounded by one unit."""
    monkeypatch.setattr(module, "CONSUMED_AT_LEAST", UNIT)
    monkeypatch.setattr(module, "CONSUMED_SHARE", UNITS)


def test_a_buffer_is_found_by_each_of_its_chunks_while_it_is_on_its_way(p):
    buffer = p.add("a", 3, 2)
    assert [p.find("a", index) for index in range(2, 6)] == [None, buffer, buffer, None]
    assert (buffer.begin, buffer.end, buffer.size) == (3 * UNIT, 5 * UNIT, 2 * UNIT)
    assert p.begun == [buffer]
    assert len(p.pool) == 1


def test_the_last_buffer_of_an_object_ends_with_it(p):
    pinned = PinnedObject("test", "a", Version(UNIT + 10, "one"), UNIT)
    assert p.pool.add(pinned, 1, 5, foreground=True).size == 10


def test_L4_the_budget_is_never_exceeded_and_the_rest_waits_in_order(p):
    waiting = [p.add(f"{number}", count=3) for number in range(5)]
    assert [buffer.offset is not None for buffer in waiting] == [True, True, False, False, False]
    assert (p.used, p.pool.hungry) == (6, 3)
    assert p.find("4") is waiting[4]
    small = p.add("small", count=1)  # there would be room, but others came first
    assert (small.offset, p.pool.hungry) == (None, 4)
    p.pool.ended(waiting[1], None)
    assert p.begun == waiting[:3]
    p.pool.ended(waiting[0], None)
    assert p.begun == waiting[:4]
    p.pool.ended(waiting[2], None)
    p.pool.ended(waiting[3], None)
    assert p.begun == [*waiting, small]
    assert p.used <= UNITS


async def test_L4_what_is_under_way_or_pinned_is_never_taken(p):
    under_way = p.add("under way", count=4)
    pinned = p.here("pinned", count=4)
    pinned.pins += 1
    hungry = p.add("hungry", count=4)
    p.pool.feed()
    assert hungry.offset is None
    assert p.find("pinned") is pinned
    where = pinned.offset
    p.pool.unpin(pinned)
    p.pool.feed()
    assert (hungry.offset, pinned.offset) == (where, None)
    assert p.find("pinned") is None
    assert p.find("under way") is under_way


def test_L4_read_ahead_is_refused_when_memory_is_short_and_leaves_room_for_those_who_wait(p):
    room = int(UNITS * AHEAD_SHARE)
    granted = [p.add("a", index, foreground=False) for index in range(UNITS)]
    assert [buffer is not None for buffer in granted] == [True] * room + [False] * (UNITS - room)
    assert p.find("a", room) is None
    assert all(p.add("b", index).offset is not None for index in range(UNITS - room))


def test_L4_read_ahead_is_refused_while_anybody_waits(p):
    for key in "ab":
        p.add(key, count=5)
    assert p.pool.hungry == 1
    assert p.add("c", foreground=False) is None


def test_read_ahead_takes_what_was_read_and_never_what_was_not(p):
    unread = [p.here("unread", index) for index in range(3)]
    read = [p.here("read", index) for index in range(3)]
    for buffer in read:
        p.read(buffer)
    assert p.used == 6
    assert p.add("new", 0, 3, foreground=False) is not None
    assert p.used == 6
    assert p.add("new", 3, foreground=False) is None
    assert [p.find("unread", index) for index in range(3)] == unread
    assert p.find("read", 0) is p.find("read", 2) is None


def test_who_waits_takes_what_was_read_first_and_then_what_was_used_longest_ago(p):
    old, looked_at, new = (p.here(key, count=2) for key in ("old", "looked at", "new"))
    read = p.here("read", count=2)
    p.read(read)
    p.read(looked_at, end=looked_at.begin + 10)  # not to its end
    expected = {"read": read, "old": old, "new": new, "looked at": looked_at}
    for number, gone in enumerate(list(expected)):
        p.add(f"wanted {number}", count=2)
        del expected[gone]
        assert {key: p.find(key) for key in ("read", "old", "new", "looked at")} == {
            "read": None, "old": None, "new": None, "looked at": None
        } | expected  # fmt: skip


def test_pinned_ones_are_passed_over_when_room_is_made(p):
    first, second = p.here("first", count=4), p.here("second", count=4)
    first.pins += 1
    assert p.add("wanted", count=4).offset is not None
    assert p.find("first") is first
    assert p.find("second") is None
    assert second.offset is None


def test_L4_what_was_read_is_kept_up_to_a_bound(p, keeps_nothing_read):
    read = [p.here("a", index) for index in range(3)]
    for buffer in read:
        p.read(buffer)
    assert [p.find("a", index) for index in range(3)] == [None, None, read[2]]
    assert p.used == 1


def test_what_is_read_again_is_kept_before_what_was_not(p, keeps_nothing_read, monkeypatch):
    monkeypatch.setattr(module, "CONSUMED_AT_LEAST", 2 * UNIT)
    one, two = p.here("a", 0), p.here("a", 1)
    for buffer in (one, two, one):
        p.read(buffer)
    p.read(p.here("a", 2))
    assert p.find("a", 0) is one
    assert p.find("a", 1) is None


def test_a_buffer_read_to_its_end_before_its_fetch_was_over_goes_as_one_that_was_read(p, keeps_nothing_read):
    buffer = p.add("a")
    buffer.arrived = buffer.size
    p.read(buffer)
    assert p.find("a") is buffer
    p.pool.ended(buffer, None)
    p.read(p.here("b"))
    assert p.find("a") is None
    assert p.used == 1


def test_a_slice_is_of_the_bytes_of_its_buffer(p):
    p.here("before")
    buffer = p.here("a", 5, 2)
    p.memory.view[buffer.offset : buffer.offset + 2 * UNIT] = bytes(range(256)) * (2 * UNIT // 256)
    assert p.pool.slice(buffer, 5 * UNIT + 250, 5 * UNIT + 260) == bytes([250, 251, 252, 253, 254, 255, 0, 1, 2, 3])


def test_who_waits_is_woken_when_its_bytes_are_there_and_not_before(p):
    buffer = p.add("a", 2)
    events = {size: trio.Event() for size in (10, 20, UNIT)}
    buffer.waiting = [(buffer.begin + size, event) for size, event in events.items()]
    buffer.arrived = 15
    buffer.wake()
    assert [event.is_set() for event in events.values()] == [True, False, False]
    buffer.arrived = 20
    buffer.wake()
    assert [event.is_set() for event in events.values()] == [True, True, False]
    p.pool.ended(buffer, None)
    assert all(event.is_set() for event in events.values())
    assert buffer.waiting == []


def test_R5_an_error_wakes_all_who_wait_and_the_next_read_finds_nothing(p):
    buffer = p.add("a")
    event = trio.Event()
    buffer.waiting = [(buffer.end, event)]
    buffer.pins += 1
    error = OSError()
    p.pool.ended(buffer, error)
    assert event.is_set()
    assert buffer.error is error
    assert p.find("a") is None
    assert p.used == 1  # somebody looks at it still
    p.pool.unpin(buffer)
    assert p.used == 0


def test_a_new_buffer_takes_the_place_of_one_that_failed(p):
    failed = p.add("a")
    failed.pins += 1
    p.pool.ended(failed, OSError())
    again = p.add("a")
    p.pool.unpin(failed)
    assert p.find("a") is again
    p.pool.ended(again, None)
    assert p.find("a") is again
    assert p.used == 1


def test_discarding_an_object_frees_what_is_here_and_leaves_others_alone(p):
    p.here("a", 0)
    p.read(p.here("a", 1))
    other = p.here("b")
    p.pool.discard_object(target("a").digest)
    assert p.find("a", 0) is p.find("a", 1) is None
    assert p.find("b") is other
    assert p.used == 1
    p.pool.discard_object(target("a").digest)
    p.pool.discard_object("never heard of")


def test_L4_discarding_what_is_under_way_cancels_it_and_frees_it_only_at_the_end(p):
    buffer = p.add("a", count=UNITS)
    p.pool.discard_object(target("a").digest)
    assert buffer.fetch.cancelled
    assert p.find("a") is None
    hungry = p.add("b")
    assert (p.used, hungry.offset) == (UNITS, None)
    p.pool.ended(buffer, OSError())
    assert hungry.offset is not None
    assert p.used == 1


def test_L4_a_discarded_fetch_that_succeeds_all_the_same_is_freed_too(p):
    buffer = p.add("a")
    p.pool.discard_object(target("a").digest)
    p.pool.ended(buffer, None)
    assert p.used == 0
    assert p.find("a") is None


async def test_discarding_what_waits_for_memory_takes_it_out_of_the_queue(p):
    under_way = p.add("a", count=UNITS)
    p.add("b")
    p.pool.discard_object(target("b").digest)
    assert p.pool.hungry == 0
    p.pool.ended(under_way, OSError())
    assert p.begun == [under_way]
    assert p.used == 0


def test_what_somebody_waits_for_is_not_discarded(p):
    buffer = p.add("a")
    buffer.pins += 1
    p.pool.discard_object(target("a").digest)
    assert not buffer.fetch.cancelled
    p.pool.ended(buffer, None)
    assert p.find("a") is buffer
    p.pool.unpin(buffer)
    assert p.used == 1


async def test_L4_memory_that_comes_free_while_others_wait_is_handed_on_without_a_further_fetch_ending(p):
    """When the last fetch ends its readers still hold the memory; what waits must not wait for another event."""
    held = [p.here(f"{number}", count=4) for number in range(2)]
    for buffer in held:
        buffer.pins += 1
    hungry = p.add("hungry", count=4)
    assert hungry.offset is None
    p.pool.unpin(held[0])
    assert hungry.offset is None  # who unpinned may hold a slice until it gives way
    await trio.testing.wait_all_tasks_blocked()
    assert hungry.offset is not None
    another = p.add("another", count=4)
    assert another.offset is None
    p.pool.discard_object(target("1").digest)  # pinned: stays
    await trio.testing.wait_all_tasks_blocked()
    assert another.offset is None
    p.pool.unpin(held[1])
    await trio.testing.wait_all_tasks_blocked()
    assert another.offset is not None


async def test_L4_closing_a_file_feeds_those_who_wait(p):
    under_way = p.add("under way", count=4)
    unread = p.here("pinned", count=4)
    unread.pins += 1
    hungry = p.add("hungry", count=4)
    p.pool.ended(under_way, OSError())
    assert hungry.offset is not None
    second = p.add("second", count=2)
    p.pool.unpin(unread)
    p.pool.discard_object(target("pinned").digest)
    await trio.testing.wait_all_tasks_blocked()
    assert second.offset is not None
