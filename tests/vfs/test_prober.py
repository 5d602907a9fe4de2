"""Probes of stores: R3, R8, L6."""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from mscfs.errors import StoreTimeoutError
from mscfs.vfs.prober import LOOK, TOLD_AFTER
from tests.vfs.inline import World, world
from tests.vfs.outages import switch


async def test_L6_a_store_that_failed_in_a_worker_is_found_down_and_comes_back(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        near = w.parts.manager.replicas[0]
        shutil.rmtree(w.store("near"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.prober.run)
            await trio.testing.wait_all_tasks_blocked()
            assert (near.health.healthy, near.statistics.errors) == (True, 0)
            w.parts.prober.suspect("near")
            await trio.testing.wait_all_tasks_blocked()
            assert (near.health.healthy, near.statistics.errors) == (False, 1), "each probe that fails is counted"
            w.store("near").mkdir()
            # The breaker's own clock is real: its first pause is a second.
            near.health._clock = lambda: 1e9
            await trio.sleep(5)
            assert near.health.healthy
            nursery.cancel_scope.cancel()


async def test_R9_copies_that_wait_do_not_keep_the_prober_from_a_replica_that_is_down(tmp_path, autojump_clock):
    """The replicator looks at its wishes first, and again and again."""
    async with world(tmp_path) as w:
        near = w.parts.manager.replicas[0]
        near.health.failed(StoreTimeoutError("silent", store="near"))
        # The breaker's own clock is real: here its pause is over.
        near.health._clock = lambda: 1e9
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.replicator.run)
            await trio.sleep(1)
            assert not near.health.healthy
            nursery.start_soon(w.parts.prober.run)
            await trio.sleep(5)
            assert near.health.healthy
            nursery.cancel_scope.cancel()


async def test_a_replica_that_stays_down_is_told_once_and_that_it_is_back(tmp_path, autojump_clock, caplog):
    caplog.set_level(logging.INFO, "mscfs.vfs.prober")
    async with world(tmp_path) as w:
        near = w.parts.manager.replicas[0]
        near.health._clock = trio.current_time  # as time goes by here
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.prober.run)
            near.health.failed(StoreTimeoutError("silent", store="near"))
            await trio.sleep(TOLD_AFTER - 1)
            assert near.health.healthy
            assert caplog.messages == []
            shutil.rmtree(w.store("near"))
            w.parts.prober.suspect("near")
            await trio.sleep(TOLD_AFTER * 5)
            (told,) = caplog.messages
            assert told.startswith("the replica near is down, it is asked again and again: near: ")
            w.store("near").mkdir()
            await trio.sleep(10)
            assert caplog.messages == [told, "the replica near is back"]
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def probing(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, objects=True) as w, trio.open_nursery() as nursery:
        nursery.start_soon(w.parts.prober.run)
        yield w
        nursery.cancel_scope.cancel()


async def test_R8_whoever_looks_during_an_outage_sees_it_at_once(tmp_path, autojump_clock):
    async with probing(tmp_path) as w:
        assert not await w.parts.prober.look()
        health = w.parts.manager.primary_source.health
        switch(w, on=False)
        await trio.sleep(60)
        assert health.healthy, "nobody has asked anything since"
        began = trio.current_time()
        assert not await w.parts.prober.look()
        assert not health.healthy
        assert trio.current_time() - began < 1


async def test_R8_a_store_that_keeps_a_look_waiting_is_told_as_silent(tmp_path, autojump_clock):
    async with probing(tmp_path) as w:
        prober, primary = w.parts.prober, w.parts.manager.primary_source
        waiting = trio.Event()

        async def run_blocking(call: Any, provider: Any, *rest: Any) -> Any:
            if provider is primary.provider:
                await waiting.wait()
            return call(provider, *rest)

        prober._run_blocking = run_blocking
        for _ in range(5):
            began = trio.current_time()
            assert set(await prober.look()) == {"data"}
            assert trio.current_time() - began <= LOOK
        assert len(prober._under_way["data"]) == 1, "and is asked once"
        waiting.set()
        assert not await prober.look()


async def test_R8_who_looks_again_and_again_costs_the_stores_little(tmp_path, autojump_clock):
    async with probing(tmp_path) as w:
        store, asked = w.parts.manager.primary_source.provider, 0
        probe = store.inner.probe

        def count() -> None:
            nonlocal asked
            asked += 1
            probe()

        store.inner.probe = count
        for _ in range(100):
            assert not await w.parts.prober.look()
            await trio.sleep(0.05)
        assert 1 <= asked <= 6


async def test_R9_a_replica_that_comes_back_while_a_probe_of_it_hangs_is_not_waited_for(tmp_path, autojump_clock):
    async with probing(tmp_path) as w:
        prober, near = w.parts.prober, w.parts.manager.replicas[0]
        near.health._clock = trio.current_time
        asked: list[float] = []
        is_back = False

        async def run_blocking(call: Any, provider: Any, *rest: Any) -> Any:
            if provider is near.provider:
                asked.append(trio.current_time())
                if not is_back:
                    await trio.sleep(30)
                    raise StoreTimeoutError("silent", store="near")
            return call(provider, *rest)

        prober._run_blocking = run_blocking
        near.health.failed(StoreTimeoutError("silent", store="near"))
        await trio.sleep(2)
        assert len(asked) == 1
        is_back = True
        await trio.sleep(5)
        assert near.health.healthy
        await trio.sleep(60)
        assert near.health.healthy, "what the probe that hung came to is no news"
        assert len(asked) == 2
