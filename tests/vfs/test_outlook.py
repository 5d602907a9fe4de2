"""How the stores are: what workers tell, and what they are told (R9)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio
import trio.testing

from mscfs.errors import (
    AccessDeniedError,
    IntegrityError,
    NotFoundError,
    StoreTimeoutError,
    StoreUnavailableError,
)
from mscfs.providers.file import FileProvider
from mscfs.replicas.health import Health
from mscfs.replicas.latency import ENOUGH, Waits
from mscfs.replicas.source import Replica, Source
from mscfs.types import Version
from mscfs.vfs.outlook import LONGEST_PAUSE, Outlook
from mscfs.vfs.prober import INTERVAL, Prober
from mscfs.workers.protocol import FetchSummary
from tests.doubles import Clock, Scripted
from tests.replicas.stores import memory
from tests.vfs.inline import inline, world


def stores(*, watches=True):
    """A primary, far away, and two replicas."""
    clock = Clock()
    primary = Source("primary", Scripted(memory("primary")), health=Health(clock=clock))
    near, other = (
        Replica(name, Scripted(memory(name)), health=Health(clock=clock, refusals_count=True))
        for name in ("near", "other")
    )
    told, down = [], []
    sources = (primary, near, other)
    outlook = Outlook(sources, told.append, watches=watches, on_down=down.append)
    return SimpleNamespace(
        outlook=outlook, primary=primary, near=near, other=other, told=told, down=down, clock=clock, sources=sources
    )


def read(s, profile, seconds, times=16):
    for _ in range(times):
        s.outlook.read("k", FetchSummary(profile, 1000, first=seconds, seconds=2 * seconds))


async def settle():
    await trio.testing.wait_all_tasks_blocked()


async def test_R9_workers_are_told_at_first_and_when_it_changes_what_is_slow():
    s = stores()
    assert s.told[-1].down == ()
    assert s.told[-1].waits == dict.fromkeys(("primary", "near", "other"), Waits())
    read(s, "near", 0.2)
    assert s.told[-1].waits["near"].first == 0.2
    count = len(s.told)
    read(s, "near", 0.21)
    assert len(s.told) == count, "no material change"
    read(s, "near", 0.4)
    assert s.told[-1].waits["near"].first == 0.4


async def test_R9_without_hedging_or_replicas_nothing_is_slow():
    s = stores(watches=False)
    read(s, "near", 0.2)
    assert all(each.waits == {} for each in s.told)
    alone = []
    Outlook((s.primary,), alone.append, watches=True, on_down=lambda _: None)
    assert alone[0].waits == {}


async def test_R5_without_hedging_a_directory_that_keeps_a_read_waiting_is_told_of_all_the_same(tmp_path):
    near = Replica("near", FileProvider(profile="near", options={"base_path": str(tmp_path)}))
    for others in ([], [stores().primary]):
        told = []
        Outlook([*others, near], told.append, watches=False, on_down=lambda _: None)
        assert list(told[-1].waits) == (["near"] if others else [])


async def test_R9_what_one_worker_meets_all_are_told():
    s = stores()
    s.outlook.failed("near", StoreTimeoutError("silent", store="near"))
    assert s.told[-1].down == ("near",)
    assert s.down == ["near"]
    await settle()
    assert s.down == ["near"]


async def test_R9_a_worker_that_gave_a_store_up_alone_is_told_that_it_is_well():
    s = stores()
    count = len(s.told)
    s.outlook.failed("near", StoreUnavailableError("reset", store="near"))
    assert len(s.told) == count + 1
    assert s.told[-1].down == ()
    s.outlook.failed("nobody", StoreUnavailableError("reset"))


async def test_R9_also_what_the_daemon_itself_finds_out():
    s = stores()
    await trio.to_thread.run_sync(s.near.failed, StoreTimeoutError("silent", store="near"))
    await settle()
    assert (s.told[-1].down, s.down) == (("near",), ["near"])
    s.near.health.succeeded()
    await settle()
    assert s.told[-1].down == ()


async def test_plain_answers_change_nothing():
    s = stores()
    for _ in range(10):
        s.outlook.failed("near", NotFoundError("no"))
    s.outlook.read("k", FetchSummary("nobody", 1, first=9.0, seconds=9.0))
    s.outlook.read("k", FetchSummary("near", 1))
    assert s.told[-1].down == ()


async def test_R9_a_replica_that_answers_far_slower_than_its_peers_is_left_alone():
    s = stores()
    read(s, "primary", 0.06)
    read(s, "near", 0.25)
    assert s.near.health.healthy
    read(s, "near", 1.5, times=64)
    assert not s.near.health.healthy
    assert "takes 1.50 s to answer, and primary 0.06 s" in s.near.health.last_error
    await settle()
    assert s.told[-1].down == ("near",)
    assert s.told[-1].waits["near"] == Waits(), "what was usual is so no more"


async def test_R9_a_primary_is_never_left_alone_for_being_far():
    s = stores()
    read(s, "near", 0.001)
    read(s, "primary", 9.0)
    assert s.primary.health.healthy


async def test_R9_the_mount_probes_so_that_no_reader_tries(autojump_clock):
    s = stores()
    prober = Prober(s.primary, (s.near, s.other), inline, s.outlook)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(prober.run)
        s.near.provider.on("probe", StoreTimeoutError("silent", store="near"), times=2)
        s.outlook.failed("near", StoreTimeoutError("silent", store="near"))
        seen = []
        for _ in range(30):
            s.clock.now += INTERVAL
            await trio.sleep(INTERVAL)
            seen.append(s.near.health.healthy)
        nursery.cancel_scope.cancel()
    assert s.near.provider.called("probe") == 3
    assert seen[-1]
    assert s.told[-1].down == ()
    assert s.other.provider.calls == s.primary.provider.calls == []


async def test_R9_a_store_that_is_back_is_found_so_within_seconds_however_long_it_was_away():
    s = stores()
    for _ in range(20):
        s.clock.now += 100
        s.outlook.failed("near", StoreTimeoutError("silent", store="near"))
    s.clock.now += LONGEST_PAUSE - 0.1
    assert not s.near.health.may_try()
    s.clock.now += 0.2
    assert s.near.health.may_try()


async def test_R9_a_replica_that_answers_probes_but_delivers_nothing_stays_down(autojump_clock):
    s = stores()
    s.near.provider.put("k", b"content")
    read(s, "near", 0.01)
    silent = StoreTimeoutError("silent", store="near")
    s.near.provider.on("get", silent, at=0)
    s.outlook.failed("near", silent)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Prober(s.primary, (s.near, s.other), inline, s.outlook).run)
        for _ in range(20):
            s.clock.now += INTERVAL
            await trio.sleep(INTERVAL)
            assert not s.near.health.healthy
        s.near.provider.recover()
        s.near.provider.inner.delete("k")  # what it lacks by now it need not deliver
        for _ in range(int(LONGEST_PAUSE / INTERVAL) + 2):
            s.clock.now += INTERVAL
            await trio.sleep(INTERVAL)
        nursery.cancel_scope.cancel()
    assert s.near.health.healthy


@pytest.mark.parametrize("seconds", [2.0, 0.07])
async def test_R9_a_slow_replica_is_back_when_a_probe_of_it_is_not_far_slower_than_one_of_its_rival(
    autojump_clock, monkeypatch, seconds
):
    s = stores()
    read(s, "primary", 0.06)
    read(s, "near", 1.0)
    assert s.outlook.rival(s.near) is s.primary
    took = {"near": seconds, "primary": 0.05}
    monkeypatch.setattr("mscfs.vfs.prober._timed_probe", lambda provider, _: took[provider.profile])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Prober(s.primary, (s.near, s.other), inline, s.outlook).run)
        for _ in range(5):
            s.clock.now += INTERVAL
            await trio.sleep(INTERVAL)
        assert s.near.health.healthy == (seconds < 1)
        took["near"] = 0.05
        for _ in range(10):
            s.clock.now += INTERVAL
            await trio.sleep(INTERVAL)
        nursery.cancel_scope.cancel()
    assert s.near.health.healthy
    assert s.outlook.rival(s.near) is None


async def test_R9_a_slow_replica_is_back_when_its_rival_is_away(autojump_clock):
    s = stores()
    read(s, "primary", 0.06)
    read(s, "near", 1.0)
    s.primary.provider.go_down()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Prober(s.primary, (s.near, s.other), inline, s.outlook).run)
        s.clock.now += 2 * INTERVAL
        await trio.sleep(2 * INTERVAL)
        nursery.cancel_scope.cancel()
    assert s.near.health.healthy


async def test_R9_peers_of_a_slow_replica_are_asked_how_they_are(autojump_clock):
    s = stores()
    assert s.outlook.unknown == ()
    read(s, "near", 0.5)
    assert s.outlook.unknown == [s.primary, s.other]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Prober(s.primary, (s.near, s.other), inline, s.outlook).run)
        await trio.sleep(20 * INTERVAL)
        nursery.cancel_scope.cancel()
    assert s.primary.provider.called("probe") == s.other.provider.called("probe") == ENOUGH
    assert s.near.provider.calls == []
    read(s, "near", 0.5)
    assert not s.near.health.healthy


async def test_the_health_of_a_store_may_change_after_the_mount():
    s = await trio.to_thread.run_sync(lambda: trio.run(_made))
    s.near.failed(StoreTimeoutError("silent", store="near"))
    assert not s.near.health.healthy


async def _made():
    return stores()


@pytest.mark.parametrize("late", [True, False])
async def test_R9_a_late_answer_does_not_bring_a_store_back(tmp_path, late):
    async with world(tmp_path) as w:
        near = w.parts.manager.replica("near")
        if late:
            near.health.open("slow")
        else:
            near.health.failed(StoreUnavailableError("reset"))
        w.parts.fetcher._on_summary(w.parts.fetcher.pin("k", Version(1, "one")), FetchSummary("near", 1))
        assert near.health.healthy != late
        assert near.health._failures == 0


async def test_each_failure_that_a_worker_tells_is_counted_once_and_a_bad_answer_ends_no_pause():
    s = stores()
    s.outlook.failed("near", StoreTimeoutError("silent", store="near"))
    s.outlook.failed("near", IntegrityError("another length", store="near"))
    assert (s.near.statistics.errors, s.near.health.healthy) == (2, False)
    s.outlook.failed("primary", AccessDeniedError("expired", store="primary"))
    assert (s.primary.statistics.errors, s.primary.health.healthy) == (1, True)
    assert s.other.statistics.errors == 0
