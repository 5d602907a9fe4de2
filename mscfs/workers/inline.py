"""The calls without processes: for tests of what stands above, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from mscfs.workers.calls import Calls, OnChunk
from mscfs.workers.protocol import ChunkData, ChunkReply, Request, Result
from mscfs.workers.tasks import Tasks

Answer = TypeVar("Answer")


class RunBlocking(Protocol):
    """Runs a blocking call off the trio thread, or inline."""

    def __call__(self, call: Callable[..., Answer], /, *arguments: object) -> Awaitable[Answer]:
        """Await the result of `call(*arguments)`."""


class InlinePool(Calls):
    """Runs the blocking core through `run_blocking`. Chunks are announced when their fetch has ended, well or not."""

    def __init__(self, tasks: Tasks, run_blocking: RunBlocking) -> None:
        super().__init__()
        self._tasks = tasks
        self._run_blocking = run_blocking

    async def _perform(self, request: Request, on_chunk: OnChunk | None = None) -> Result:
        chunks: list[ChunkReply] = []
        try:
            return await self._run_blocking(self._tasks.perform, request, chunks.append, lambda: False)
        finally:
            for chunk in chunks:
                if on_chunk is not None:
                    on_chunk(chunk.index, chunk.data if isinstance(chunk, ChunkData) else None)
