"""Group commit: what many closes at once tell the journal costs one transaction, and one wait for the disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import trio

from mscfs.errors import StorageError, StoreUnavailableError
from mscfs.journal import FinishedUpload, Journal
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Waiting:
    """An upload whose end is not written yet."""

    finished: FinishedUpload
    written: trio.Event = field(default_factory=trio.Event)
    error: StorageError | None = None


class Commits:
    """Writes the ends of uploads in the order they come, all that came while a transaction ran in the next one.

    The task that writes belongs to `nursery`, so that a caller who gives up takes nobody else's along.
    """

    def __init__(self, journal: Journal, nursery: trio.Nursery, run_blocking: RunBlocking) -> None:
        self._journal = journal
        self._nursery = nursery
        self._run_blocking = run_blocking
        self._waiting: list[_Waiting] = []
        self._is_writing = False

    async def write(self, finished: FinishedUpload) -> None:
        """Return when it is in the journal, on disk if it has to be. Raises StorageError."""
        waiting = self._add(finished)
        await waiting.written.wait()
        if waiting.error is not None:
            raise waiting.error

    def write_soon(self, finished: FinishedUpload) -> None:
        """Write what nobody relies on."""
        self._add(finished)

    def _add(self, finished: FinishedUpload) -> _Waiting:
        waiting = _Waiting(finished)
        self._waiting.append(waiting)
        if not self._is_writing:
            self._is_writing = True
            self._nursery.start_soon(self._write)
        return waiting

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._write_batch(batch)
        finally:
            self._is_writing = False

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        try:
            await self._run_blocking(self._journal.record, [waiting.finished for waiting in batch])
        except StorageError as error:
            for waiting in batch:
                waiting.error = error
        except Exception as error:
            log.exception("a bug in the journal")
            for waiting in batch:
                waiting.error = StorageError(f"internal error: {type(error).__name__}")
        except trio.Cancelled:
            # The mount ends: whether it came to the disk nobody knows, and nobody may be told that it did (W2).
            for waiting in batch:
                waiting.error = StoreUnavailableError("the mount ended before the journal was written")
            raise
        finally:
            for waiting in batch:
                waiting.written.set()
