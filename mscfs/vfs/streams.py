"""Streaming: the parts of a file go to the primary while the program still writes it (contract W6).

A file written from its beginning without going back is sent from its staging file, part by part, by the worker
processes. `close()` then has little left to do. The first change of bytes that a part was made of ends the stream, as
does any trouble: the staging file is complete at all times, and is sent as a whole instead (W3).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import trio

from mscfs.errors import StorageError, VersionMismatchError
from mscfs.journal import Journal
from mscfs.types import ByteRange, ObjectMetadata, Version
from mscfs.vfs.kept import without_attributes
from mscfs.vfs.transport import RunBlocking, Transport

log = logging.getLogger(__name__)

PART_SIZE = 8 << 20
"""Bytes of the first parts. It doubles every `PARTS_OF_A_SIZE` parts, so that 10,000 parts hold the largest object."""
PARTS_OF_A_SIZE = 1000
LARGEST_PART = 2 << 30
"""S3 takes 5 GiB, Azure 4,000 MiB."""
FIRST_AT = 2 * PART_SIZE
"""So many bytes must be written before a stream begins: smaller files are one request."""
PARTS_UNDER_WAY = 8
"""Of all files together."""
PARTS_AHEAD = 8
"""So many parts of one file may wait or be under way; then its writer waits, or all would be left to `close()`."""

UserMetadata = Mapping[str, str] | None


class Streams:
    """What the streams of a mount share. Their tasks run in `nursery`; they raise nothing into it."""

    def __init__(
        self, transport: Transport, journal: Journal, nursery: trio.Nursery, run_blocking: RunBlocking
    ) -> None:
        self.transport = transport
        self.journal = journal
        self.nursery = nursery
        self.run_blocking = run_blocking
        self.limit = trio.CapacityLimiter(PARTS_UNDER_WAY)

    def begin(self, key: str, path: Path, metadata: Callable[[], Awaitable[UserMetadata]]) -> Stream:
        """Begin to send the file at `path`; `metadata` tells the user metadata that the object will have."""
        return Stream(self, key, path, metadata)


class Stream:
    """One file on its way. It ends with `complete` or `abandon`; both throw the parts away if there is no object."""

    def __init__(self, streams: Streams, key: str, path: Path, metadata: Callable[[], Awaitable[UserMetadata]]) -> None:
        self.end = 0
        """Bytes before it belong to parts that were begun: they must not change any more."""
        self._streams = streams
        self._key = key
        self._path = path
        self._number = 0
        self._under_way = 0
        self._is_over = False
        self._metadata: UserMetadata = None
        self._upload = 0
        self._token = ""
        self._row: int | None = None
        self._begun = trio.Event()
        self._progress = trio.lowlevel.ParkingLot()
        streams.nursery.start_soon(self._begin, metadata)

    def offer(self, size: int) -> None:
        """Bytes up to `size` are written: send all parts that are complete."""
        while not self._is_over and self.end + part_size(self._number + 1) <= size:
            self._hand_out(part_size(self._number + 1))

    async def wait_for_room(self) -> None:
        """Return when not too many parts wait: the writer is slowed down to what the store takes."""
        while self._under_way > PARTS_AHEAD and not self._is_over:
            await self._progress.park()

    async def complete(
        self, size: int, metadata: UserMetadata, *, key: str, expected: Version | None
    ) -> ObjectMetadata | None:
        """Send the rest of the file, which is of `size` bytes and does not change meanwhile; make the object appear.

        None when the stream broke, or was of another `key` or `metadata`: the file is to be sent as a whole; whether
        the object appeared may be in doubt. Raises VersionMismatchError as `put` does.
        """
        self.offer(size)
        if size > self.end and not self._is_over:
            self._hand_out(size - self.end)
        try:
            await self._begun.wait()
            while self._under_way and not self._is_over:
                await self._progress.park()
            # Attributes that were set meanwhile the caller brings after.
            is_other = without_attributes(metadata) != without_attributes(self._metadata)
            if self._is_over or key != self._key or is_other:
                return None
            written = await self._streams.transport.complete_parts(
                self._upload, key, if_absent=False, expected=expected
            )
        except VersionMismatchError:
            raise
        except StorageError as error:
            log.info("%s is sent again as a whole: its parts could not be joined: %s", self._key, error)
            # The store may be joining them all the same; that must not come over what is written from now on.
            self._is_over = True
            await self._throw_away()
            return None
        else:
            self._is_over = True
            await self._forget()
            return replace(written, metadata=self._metadata or {}) if written.metadata is None else written
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Give up; the parts are thrown away in the background. Harmless when it is over."""
        if not self._is_over:
            self._is_over = True
            self._progress.unpark_all()
            with suppress(RuntimeError):  # the mount has ended: the next one throws them away
                self._streams.nursery.start_soon(self._throw_away)

    def _hand_out(self, size: int) -> None:
        part = ByteRange(self.end, size)
        self.end += size
        self._number += 1
        self._under_way += 1
        self._streams.nursery.start_soon(self._send, self._number, part)

    @contextmanager
    def _or_whole(self) -> Iterator[None]:
        """Any trouble ends the stream; the file is sent as a whole when it is closed."""
        try:
            yield
        except StorageError as error:
            log.info("%s will be sent as a whole when it is closed: a part failed: %s", self._key, error)
            self.abandon()
        except Exception:
            log.exception("a bug in the stream of %s: it will be sent as a whole", self._key)
            self.abandon()

    async def _begin(self, metadata: Callable[[], Awaitable[UserMetadata]]) -> None:
        streams = self._streams
        try:
            with self._or_whole():
                self._metadata = await metadata()
                self._upload, self._token = await streams.transport.begin_parts(self._key, self._metadata)
                if self._token:
                    self._row = await streams.run_blocking(streams.journal.begin_parts, self._key, self._token)
        finally:
            self._begun.set()

    async def _send(self, number: int, part: ByteRange) -> None:
        try:
            await self._begun.wait()
            async with self._streams.limit:
                if not self._is_over:
                    with self._or_whole():
                        await self._streams.transport.send_part(self._upload, self._key, number, self._path, part)
        finally:
            self._under_way -= 1
            self._progress.unpark_all()

    async def _throw_away(self) -> None:
        await self._begun.wait()
        while self._under_way:
            await self._progress.park()
        try:
            if self._upload:
                await self._streams.transport.abort_parts(self._upload, self._key, self._token)
        except StorageError as error:
            log.info("parts of %s stay behind until the next mount: %s", self._key, error)
            return
        await self._forget()

    async def _forget(self) -> None:
        row, self._row = self._row, None
        if row is not None:
            try:
                await self._streams.run_blocking(self._streams.journal.finish_parts, row)
            except StorageError as error:
                # The next mount aborts what there is no more.
                log.warning("the journal still names parts of %s: %s", self._key, error)


def part_size(number: int) -> int:
    """Bytes of part `number`, counted from 1; the last part may be shorter."""
    return min(PART_SIZE << (number - 1) // PARTS_OF_A_SIZE, LARGEST_PART)
