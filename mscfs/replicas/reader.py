"""A read that goes on with the next store when one fails (contract R5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mscfs.errors import StorageError
from mscfs.providers.base import ObjectReader
from mscfs.replicas.source import Source
from mscfs.types import ByteRange, ObjectMetadata

OpenNext = Callable[[ByteRange, Source, StorageError], tuple[Source, ObjectReader]]
"""Called with the rest of the range, the source that failed and its error; raises when no source is left."""


class FailoverReader(ObjectReader):
    """The bytes of one version, from whichever source delivers them.

    `missing` and `stale` name the replicas that were asked and did not have the version. When a source fails in the
    middle, `open_next` is asked for the rest of the range, of the same version.
    """

    def __init__(
        self,
        source: Source,
        reader: ObjectReader,
        metadata: ObjectMetadata,
        *,
        open_next: OpenNext,
        missing: tuple[str, ...],
        stale: tuple[str, ...],
    ) -> None:
        super().__init__(metadata, reader.byte_range, source=source.profile)
        self.missing = missing
        self.stale = stale
        self._current = source
        self._reader = reader
        self._open_next = open_next

    def _pieces(self) -> Iterator[bytes | memoryview]:
        delivered = 0
        while True:
            begun = delivered
            failure: StorageError | None = None
            try:
                for piece in self._reader:
                    delivered += len(piece)
                    yield piece
            except StorageError as error:
                failure = error
            finally:
                # Counted also when the reader of this read loses interest.
                self._current.statistics.add(hits=1, bytes_read=delivered - begun)
            if failure is None:
                self._current.health.succeeded()
                return
            self._current.statistics.add(errors=1)
            self._current.health.failed(failure)
            self._reader.close()
            rest = ByteRange(self.byte_range.offset + delivered, self.byte_range.size - delivered)
            self._current, self._reader = self._open_next(rest, self._current, failure)
            self.source = self._current.profile

    def close(self) -> None:
        """Close the answer that is being read."""
        self._reader.close()
