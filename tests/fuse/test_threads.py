"""The daemon's threads."""

from __future__ import annotations

import threading

import trio

from mscfs.fuse.threads import Threads


async def test_L3_threads_that_were_left_hold_up_nobody():
    threads, gone_on = Threads(1), threading.Event()
    for count in range(1, 4):
        begun = threading.Event()

        def wait(begun: threading.Event = begun) -> None:
            begun.set()
            gone_on.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(threads.run, wait)
            await trio.to_thread.run_sync(begun.wait)
            nursery.cancel_scope.cancel()
        assert threads.limiter.borrowed_tokens == count
        assert await threads.run(lambda: "answer") == "answer"
    gone_on.set()
    with trio.fail_after(20):
        while threads.limiter.total_tokens > 1 or threads.limiter.borrowed_tokens:  # noqa: ASYNC110 - a limiter has none
            await trio.sleep(0.01)


async def test_L3_who_is_cancelled_before_its_turn_leaves_no_thread():
    threads, gone_on = Threads(1), threading.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(threads.run, gone_on.wait)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(0.01):
            await threads.run(gone_on.wait)
        assert threads.limiter.total_tokens == 1
        gone_on.set()
    assert threads.limiter.total_tokens == 1
