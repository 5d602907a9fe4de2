"""The eager way of taking requests: nobody is starved, nobody is lost, and pyfuse3 is as expected."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pyfuse3
import pytest
import trio
import trio.testing

from mscfs.fuse import loop
from mscfs.fuse.loop import EAGER, EagerWait, TurnLock


async def test_the_lock_is_held_by_one_task_at_a_time():
    lock, inside, order = TurnLock(), 0, []

    async def take(number: int) -> None:
        nonlocal inside
        for _ in range(3):
            async with lock:
                inside += 1
                assert inside == 1
                order.append(number)
                await trio.lowlevel.checkpoint()
                inside -= 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(take, number)
    assert sorted(order) == sorted([*range(5)] * 3)


async def test_a_holder_that_does_not_wait_takes_it_again_and_one_that_waits_gives_others_their_turn():
    lock, order = TurnLock(), []

    async def other() -> None:
        async with lock:
            order.append("other")

    async with trio.open_nursery() as nursery:
        async with lock:
            nursery.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            async with lock:
                order.append("holder")
        await trio.testing.wait_all_tasks_blocked()
    assert order == ["holder", "holder", "holder", "other"]


async def test_one_who_finds_it_taken_again_waits_on_and_is_not_lost():
    lock, taken = TurnLock(), []

    async def other() -> None:
        async with lock:
            taken.append("other")

    async with trio.open_nursery() as nursery:
        async with lock:
            nursery.start_soon(other)
            await trio.testing.wait_all_tasks_blocked()
        async with lock:
            await trio.testing.wait_all_tasks_blocked()  # it is woken now, and finds the lock held
            assert taken == []
    assert taken == ["other"]


async def test_a_cancelled_waiter_leaves_the_lock_to_the_next():
    lock, taken = TurnLock(), []

    async def wait(name: str, scope: trio.CancelScope) -> None:
        with scope:
            async with lock:
                taken.append(name)

    scopes = [trio.CancelScope(), trio.CancelScope()]
    async with trio.open_nursery() as nursery, lock:
        nursery.start_soon(wait, "first", scopes[0])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(wait, "second", scopes[1])
        await trio.testing.wait_all_tasks_blocked()
        scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
    assert taken == ["second"]


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    os.close(writing)


async def test_what_is_there_is_taken_at_once_but_others_get_their_turn(pipe):
    reading, writing = pipe
    os.write(writing, b"x")
    wait, turns = EagerWait(), 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(others)
        await trio.lowlevel.checkpoint()
        before = turns
        for _ in range(EAGER - 1):
            await wait(reading)
        assert turns == before  # nobody else ran
        for _ in range(1 + EAGER):  # two turns: those who are ready at the same moment run in any order
            await wait(reading)
        assert turns > before
        nursery.cancel_scope.cancel()


async def test_what_is_not_there_yet_is_waited_for(pipe):
    reading, writing = pipe
    wait, came = EagerWait(), []

    async def read() -> None:
        await wait(reading)
        came.append(os.read(reading, 1))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        assert came == []
        os.write(writing, b"x")
    assert came == [b"x"]


def test_the_installed_pyfuse3_is_built_as_expected(monkeypatch):
    monkeypatch.setattr(pyfuse3, "trio", trio)
    assert loop.install(pyfuse3)
    assert pyfuse3.trio.Lock is TurnLock
    assert isinstance(pyfuse3.trio.lowlevel.wait_readable, EagerWait)
    assert pyfuse3.trio.lowlevel.current_task is trio.lowlevel.current_task
    assert pyfuse3.trio.open_nursery is trio.open_nursery


def test_another_build_of_pyfuse3_is_left_alone():
    other = SimpleNamespace()
    assert not loop.install(other)
    assert vars(other) == {}
