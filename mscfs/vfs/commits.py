"""Group commit: what many closes at once tell the journal costs one transaction, and one wait for the disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import trio

from mscfs.errors import StorageError
from mscfs.journal import BegunUpload, FinishedUpload, Journal
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

Entry = BegunUpload | FinishedUpload


@dataclass(slots=True, eq=False)
class _Waiting:
    """An entry that is not written yet."""

    entry: Entry
    written: trio.Event = field(default_factory=trio.Event)
    row: int = 0
    error: StorageError | None = None


class Commits:
    """Writes entries in the order they come, all that came while the last transaction ran in the next one.

    The task that writes belongs to `nursery`, so that a caller who gives up takes nobody else's entry along.
    """

    def __init__(self, journal: Journal, nursery: trio.Nursery, run_blocking: RunBlocking) -> None:
        self._journal = journal
        self._nursery = nursery
        self._run_blocking = run_blocking
        self._waiting: list[_Waiting] = []
        self._is_writing = False

    async def write(self, entry: Entry) -> int:
        """Return the row of an entry when it is in the journal, on disk if it has to be. Raises StorageError."""
        waiting = self._add(entry)
        await waiting.written.wait()
        if waiting.error is not None:
            raise waiting.error
        return waiting.row

    def write_soon(self, entry: Entry) -> None:
        """Write an entry that nobody relies on."""
        self._add(entry)

    def _add(self, entry: Entry) -> _Waiting:
        waiting = _Waiting(entry)
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
            rows = await self._run_blocking(self._journal.record, [waiting.entry for waiting in batch])
            for waiting, row in zip(batch, rows, strict=True):
                waiting.row = row
        except StorageError as error:
            for waiting in batch:
                waiting.error = error
        except Exception as error:
            log.exception("a bug in the journal")
            for waiting in batch:
                waiting.error = StorageError(f"internal error: {type(error).__name__}")
        finally:
            for waiting in batch:
                waiting.written.set()
