"""Probes of stores: R3, R8, L6."""

from __future__ import annotations

import shutil

import trio

from mscfs.errors import StoreTimeoutError
from tests.vfs.inline import world


async def test_L6_a_store_that_failed_in_a_worker_is_found_down_and_comes_back(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        near = w.parts.manager.replicas[0]
        shutil.rmtree(w.store("near"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.prober.run)
            await trio.testing.wait_all_tasks_blocked()
            assert near.health.healthy
            w.parts.prober.suspect("near")
            await trio.testing.wait_all_tasks_blocked()
            assert not near.health.healthy
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
