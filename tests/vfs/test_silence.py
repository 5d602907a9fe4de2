"""Directories that have fallen silent: R8, R5."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio

from mscfs.errors import StoreTimeoutError
from mscfs.vfs.questions import Questions
from mscfs.vfs.silence import SILENT
from tests.vfs.inline import World, world

SOON = SILENT + 4
"""Seconds: with what is waited before the store is probed, and between two looks."""


@dataclass
class Hung:
    """Calls in threads, of which those for one provider wait until it `answers`."""

    provider: Any
    answers: trio.Event = field(default_factory=trio.Event)

    async def run_blocking(self, call: Any, provider: Any, *rest: Any) -> Any:
        if provider is self.provider:
            await self.answers.wait()
        return call(provider, *rest)


@asynccontextmanager
async def looking(tmp_path: Path, *, objects: bool = False) -> AsyncIterator[World]:
    async with world(tmp_path, objects=objects) as w, trio.open_nursery() as nursery:
        nursery.start_soon(w.parts.prober.run)
        nursery.start_soon(w.parts.silence.run)
        yield w
        nursery.cancel_scope.cancel()


def hang(w: World, source: Any) -> Hung:
    hung = Hung(source.provider)
    w.parts.prober._run_blocking = hung.run_blocking
    return hung


async def test_R8_who_waits_for_a_silent_directory_is_told_and_it_is_down_until_it_answers(tmp_path, autojump_clock):
    async with looking(tmp_path) as w:
        primary, began = w.parts.manager.primary_source, trio.current_time()
        hung = hang(w, primary)
        with pytest.raises(StoreTimeoutError, match="does not answer") as error, w.parts.silence.watching("data"):
            await trio.sleep_forever()
        assert error.value.store == "data"
        assert trio.current_time() - began <= SOON
        assert not primary.health.healthy
        hung.answers.set()
        await trio.sleep(1)
        assert primary.health.healthy


async def test_R8_a_question_to_a_silent_directory_ends(tmp_path, autojump_clock):
    async with looking(tmp_path) as w:
        manager, began = w.parts.manager, trio.current_time()
        hang(w, manager.primary_source)

        async def never(*_: Any) -> Any:
            await trio.sleep_forever()

        questions = Questions(manager, never, w.parts.silence)
        with pytest.raises(StoreTimeoutError):
            await questions.primary("a")
        assert trio.current_time() - began <= SOON
        assert questions.is_down


async def test_R5_a_directory_that_keeps_reads_waiting_is_found_silent_also_without_hedging(tmp_path, autojump_clock):
    async with looking(tmp_path) as w:
        near = w.parts.manager.replica("near")
        hang(w, near)
        w.parts.hedging.suspect("near")
        await trio.sleep(SOON)
        assert not near.health.healthy


async def test_what_takes_long_at_a_directory_that_answers_is_left_alone(tmp_path, autojump_clock):
    async with looking(tmp_path) as w:
        with w.parts.silence.watching("data"):
            await trio.sleep(10 * SOON)
        assert w.parts.manager.primary_source.health.healthy


async def test_only_calls_that_may_wait_for_the_silent_one_end(tmp_path, autojump_clock):
    async with looking(tmp_path) as w:
        hang(w, w.parts.manager.replica("near"))
        with w.parts.silence.watching("data"), pytest.raises(StoreTimeoutError), w.parts.silence.watching(""):
            await trio.sleep_forever()
        with w.parts.silence.watching("data"):
            await trio.sleep(SOON)
        assert not w.parts.manager.replica("near").health.healthy
        assert w.parts.manager.primary_source.health.healthy


async def test_other_stores_end_their_calls_by_themselves(tmp_path, autojump_clock):
    async with looking(tmp_path, objects=True) as w:
        hang(w, w.parts.manager.primary_source)
        with w.parts.silence.watching("data"), w.parts.silence.watching(""):
            await trio.sleep(10 * SOON)
