"""The memory that daemon and workers share: runs never overlap, and come back."""

from __future__ import annotations

import mmap
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mscfs.cache.arena import UNIT, Arena, SharedMemory


@pytest.fixture
def memory():
    memory = SharedMemory(16 * UNIT)
    yield memory
    memory.close()


@pytest.fixture
def arena(memory):
    return Arena(memory)


def pages(memory):
    """Bytes of the memory that take room in the system."""
    return os.fstat(memory.descriptor).st_blocks * 512


def test_another_mapping_of_the_descriptor_sees_the_same_bytes(memory):
    other = SharedMemory(memory.size, os.dup(memory.descriptor))
    other.view[UNIT : UNIT + 5] = b"hello"
    assert memory.view[UNIT : UNIT + 5] == b"hello"
    other.close()
    assert memory.view[UNIT : UNIT + 5] == b"hello"


def test_the_memory_is_of_its_size_has_no_name_and_is_not_inherited_by_chance(memory):
    status = os.fstat(memory.descriptor)
    assert (status.st_size, status.st_nlink, len(memory.view)) == (16 * UNIT, 0, 16 * UNIT)
    assert not os.get_inheritable(memory.descriptor)


def test_a_slice_outlives_the_memory():
    memory = SharedMemory(UNIT)
    memory.view[:5] = b"hello"
    part = memory.view[:5]
    memory.close()
    assert part == b"hello"


def test_closing_the_memory_closes_its_descriptor():
    memory = SharedMemory(UNIT)
    memory.close()
    with pytest.raises(OSError):
        os.fstat(memory.descriptor)
    with pytest.raises(ValueError):
        memory.view[0]


def test_L4_nothing_is_handed_out_beyond_the_size(arena):
    assert arena.size == 16 * UNIT
    assert arena.allocate(17 * UNIT) is None
    offsets = [arena.allocate(4 * UNIT) for _ in range(5)]
    assert offsets == [0, 4 * UNIT, 8 * UNIT, 12 * UNIT, None]
    assert arena.used == arena.size


def test_a_run_is_rounded_up_to_units(arena):
    assert arena.allocate(1) == 0
    assert arena.allocate(UNIT + 1) == UNIT
    assert arena.used == 3 * UNIT
    arena.free(0, 1)
    arena.free(UNIT, UNIT + 1)
    assert arena.used == 0


def test_a_rest_that_is_no_unit_is_never_handed_out():
    memory = SharedMemory(2 * UNIT + mmap.PAGESIZE)
    arena = Arena(memory)
    assert (arena.size, arena.allocate(2 * UNIT), arena.allocate(1)) == (2 * UNIT, 0, None)
    memory.close()


def test_a_run_must_be_in_one_piece(arena):
    runs = [arena.allocate(UNIT) for _ in range(16)]
    for offset in runs[::2]:
        arena.free(offset, UNIT)
    assert arena.used == 8 * UNIT
    assert arena.allocate(2 * UNIT) is None
    arena.free(runs[1], UNIT)
    assert arena.allocate(3 * UNIT) == 0


def test_memory_that_was_used_before_is_handed_out_first(arena):
    first = arena.allocate(3 * UNIT)
    arena.free(first, 3 * UNIT)
    assert arena.allocate(3 * UNIT) == first
    assert arena.resident == 3 * UNIT


def test_what_is_freed_twice_is_a_bug_that_shows(arena):
    one, two = arena.allocate(2 * UNIT), arena.allocate(2 * UNIT)
    arena.free(one, 2 * UNIT)
    with pytest.raises(AssertionError, match="freed twice"):
        arena.free(one, 2 * UNIT)
    with pytest.raises(AssertionError, match="freed twice"):
        arena.free(one + UNIT, 2 * UNIT)  # in part
    assert arena.used == 2 * UNIT
    arena.free(two, 2 * UNIT)


def test_L4_idle_memory_goes_back_to_the_system_and_used_memory_stays(arena, memory):
    kept, dropped, fresh = (arena.allocate(2 * UNIT) for _ in range(3))
    memory.view[: 6 * UNIT] = b"x" * 6 * UNIT
    assert pages(memory) == arena.resident == 6 * UNIT
    arena.free(dropped, 2 * UNIT)
    assert arena.give_back() == 0  # it was in use a moment ago
    arena.free(fresh, 2 * UNIT)
    assert arena.give_back() == 2 * UNIT
    assert pages(memory) == arena.resident == 4 * UNIT
    assert memory.view[kept : kept + 2 * UNIT] == b"x" * 2 * UNIT
    assert memory.view[dropped : dropped + 2 * UNIT] == bytes(2 * UNIT)
    assert memory.view[fresh : fresh + 2 * UNIT] == b"x" * 2 * UNIT
    assert arena.give_back() == 2 * UNIT
    assert arena.give_back() == 0
    assert arena.allocate(2 * UNIT) == dropped


def test_memory_that_is_used_again_and_again_stays(arena):
    for _ in range(5):
        offset = arena.allocate(UNIT)
        arena.free(offset, UNIT)
        assert arena.give_back() == 0
    assert arena.give_back() == UNIT


class ArenaModel(RuleBasedStateMachine):
    """Random use against a list of the runs that are handed out, with a byte of its own in each of their pages."""

    units = 24

    def __init__(self):
        super().__init__()
        self.memory = SharedMemory(self.units * UNIT)
        self.arena = Arena(self.memory)
        self.runs = []
        self.number = 0
        self.idle_since = dict.fromkeys(range(self.units), 0)
        """Calls of give_back since each unit was last in use, as far as they count."""
        self.touched = set()

    def teardown(self):
        self.memory.close()

    @staticmethod
    def units_of(offset, size):
        return range(offset // UNIT, offset // UNIT + -(-size // UNIT))

    def in_use(self):
        return {unit for offset, size, _ in self.runs for unit in self.units_of(offset, size)}

    @rule(size=st.integers(1, 26 * UNIT) | st.integers(1, 4).map(lambda n: n * UNIT))
    def allocate(self, size):
        wanted, used = -(-size // UNIT), self.in_use()
        fits = any(used.isdisjoint(range(start, start + wanted)) for start in range(self.units - wanted + 1))
        offset = self.arena.allocate(size)
        assert (offset is not None) == fits
        if offset is None:
            return
        assert offset % UNIT == 0
        assert 0 <= offset <= offset + size <= self.memory.size
        assert used.isdisjoint(self.units_of(offset, size))
        self.number = self.number % 255 + 1
        for unit in self.units_of(offset, size):
            self.memory.view[unit * UNIT] = self.number
            self.idle_since[unit] = 0
            self.touched.add(unit)
        self.runs.append((offset, size, self.number))

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def free(self, data):
        offset, size, _ = self.runs.pop(data.draw(st.integers(0, len(self.runs) - 1)))
        self.arena.free(offset, size)

    @rule()
    def give_back(self):
        used = self.in_use()
        returned = self.arena.give_back()
        expected = {unit for unit in self.touched - used if self.idle_since[unit] >= 1}
        assert returned == len(expected) * UNIT
        self.touched -= expected
        for unit in range(self.units):
            self.idle_since[unit] = 0 if unit in used else self.idle_since[unit] + 1
        for unit in expected:
            assert self.memory.view[unit * UNIT] == 0

    @invariant()
    def every_run_holds_what_was_written(self):
        for offset, size, number in self.runs:
            assert all(self.memory.view[unit * UNIT] == number for unit in self.units_of(offset, size))

    @invariant()
    def the_numbers_agree(self):
        assert self.arena.used == len(self.in_use()) * UNIT
        assert self.arena.resident == len(self.touched) * UNIT


ArenaModel.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestL4ArenaAgainstAModel = ArenaModel.TestCase


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.randoms())
@settings(max_examples=100)
def test_L4_after_everything_is_freed_in_any_order_everything_can_be_had_in_one_piece(sizes, random):
    memory = SharedMemory(16 * UNIT)
    arena = Arena(memory)
    runs = [(offset, size * UNIT) for size in sizes if (offset := arena.allocate(size * UNIT)) is not None]
    random.shuffle(runs)
    for offset, size in runs:
        arena.free(offset, size)
    assert arena.allocate(16 * UNIT) == 0
    memory.close()


def test_L4_the_reserve_is_handed_out_to_those_alone_who_ask_for_it():
    memory = SharedMemory(8 * UNIT)
    arena = Arena(memory, reserve=2 * UNIT)
    assert arena.size == 8 * UNIT
    runs = [arena.allocate(UNIT) for _ in range(6)]
    assert arena.allocate(UNIT) is None
    assert arena.allocate(3 * UNIT, reserved=True) is None
    offset = arena.allocate(2 * UNIT, reserved=True)
    assert offset == 6 * UNIT
    assert (arena.is_reserved(offset), arena.is_reserved(runs[-1])) == (True, False)
    assert (arena.used, arena.allocate(UNIT, reserved=True)) == (arena.size, None)
    arena.free(offset, 2 * UNIT)
    assert arena.allocate(UNIT) is None
    for run in runs:
        arena.free(run, UNIT)
    assert arena.allocate(7 * UNIT) is None, "no run reaches into the reserve"
    memory.close()
