"""The threads in which the daemon makes blocking calls."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import trio

Result = TypeVar("Result")


class Threads:
    """At most `limit` at once, without those that were left: nobody may have to wait for what waits for ever."""

    def __init__(self, limit: int) -> None:
        self.limiter = trio.CapacityLimiter(limit)

    async def run(self, call: Callable[..., Result], /, *arguments: object) -> Result:
        """The result of `call(*arguments)`. When cancelled, its thread is left to end by itself."""
        token, has_begun = trio.lowlevel.current_trio_token(), False
        parting = itertools.count()  # whoever takes 0 of it, leaver or thread, was first

        def work() -> Result:
            nonlocal has_begun
            has_begun = True
            try:
                return call(*arguments)
            finally:
                if next(parting):
                    with suppress(trio.RunFinishedError):
                        token.run_sync_soon(self._take_back)

        try:
            return await trio.to_thread.run_sync(work, limiter=self.limiter, abandon_on_cancel=True)
        except trio.Cancelled:
            if has_begun and not next(parting):
                self.limiter.total_tokens += 1
            raise

    def _take_back(self) -> None:
        self.limiter.total_tokens -= 1
