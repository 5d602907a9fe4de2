"""The calls without processes: for tests of what stands above, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from mscfs.workers.calls import Calls, OnChunk, OnPage
from mscfs.workers.protocol import ChunkData, PageDone, Part, Request, Result
from mscfs.workers.tasks import Tasks

Answer = TypeVar("Answer")


class RunBlocking(Protocol):
    """Runs a blocking call off the trio thread, or inline."""

    def __call__(self, call: Callable[..., Answer], /, *arguments: object) -> Awaitable[Answer]:
        """Await the result of `call(*arguments)`."""


class InlinePool(Calls):
    """Runs the blocking core through `run_blocking`. Parts are announced when their call has ended, well or not."""

    def __init__(self, tasks: Tasks, run_blocking: RunBlocking) -> None:
        super().__init__()
        self._tasks = tasks
        self._run_blocking = run_blocking

    async def _perform(
        self, request: Request, *, on_chunk: OnChunk | None = None, on_page: OnPage | None = None
    ) -> Result:
        parts: list[Part] = []
        try:
            return await self._run_blocking(self._tasks.perform, request, parts.append, lambda: False)
        finally:
            for part in parts:
                if isinstance(part, PageDone):
                    if on_page is not None:
                        on_page(part.page)
                elif on_chunk is not None:
                    on_chunk(part.index, part.data if isinstance(part, ChunkData) else None)
