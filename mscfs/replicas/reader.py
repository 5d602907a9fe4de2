"""A read that goes on with the next store when one fails (contract R5)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from mscfs.errors import StorageError, StoreUnavailableError
from mscfs.providers.base import ObjectReader
from mscfs.replicas.search import Search, close_quietly
from mscfs.replicas.source import Source
from mscfs.types import ByteRange, ObjectMetadata


class FailoverReader(ObjectReader):
    """The bytes of one version, from whichever source delivers them; `source` names the present one.

    When a source fails in the middle, `search` finds another for the rest, of the same version. `after_failover` is
    called then: more replicas may have been found missing or stale.
    """

    def __init__(
        self,
        search: Search,
        source: Source,
        reader: ObjectReader,
        metadata: ObjectMetadata,
        *,
        after_failover: Callable[[], None],
    ) -> None:
        super().__init__(metadata, reader.byte_range, source=source.profile)
        self._search = search
        self._current = source
        self._reader = reader
        self._after_failover = after_failover
        self._settled = False

    @property
    def missing(self) -> Sequence[str]:
        """The replicas that were asked and did not have the object."""
        return tuple(self._search.missing)

    @property
    def skipped(self) -> Sequence[str]:
        """The replicas that are said to lack the object and were not asked."""
        return tuple(self._search.skipped)

    @property
    def stale(self) -> Sequence[str]:
        """The replicas that were asked and held another version."""
        return tuple(self._search.stale)

    @property
    def errors(self) -> Mapping[str, int]:
        """How often each source failed during this read."""
        return dict(self._search.errors)

    def _pieces(self) -> Iterator[bytes | memoryview]:
        delivered = 0
        while True:
            begun = delivered
            last: bytes | memoryview = b""
            failure: StorageError | None = None
            try:
                for piece in self._reader:
                    if delivered + len(piece) == self.byte_range.size:
                        # Given away when the source has nothing to add: that the answer was wrong, say.
                        last = piece
                        continue
                    delivered += len(piece)
                    yield piece
            except StorageError as error:
                failure = error
            finally:
                # Counted also when the reader of this read loses interest.
                moved = delivered + len(last) - begun
                self._current.statistics.add(hits=failure is None or moved > 0, bytes_read=moved)
            if failure is None:
                self._settle()
                if last:
                    yield last
                return
            self._settled = True
            self._search.blame(self._current, failure)
            self._search.note(self._current, failure, delivered=moved)
            close_quietly(self._reader)
            if isinstance(failure, StoreUnavailableError) and delivered + len(last) == self.byte_range.size:
                yield last  # the connection broke behind the last byte: nothing is lacking
                return
            if delivered:
                self._search.confirm()
            rest = ByteRange(self.byte_range.offset + delivered, self.byte_range.size - delivered)
            self._current, self._reader = self._search.open(rest)
            self._settled = False
            self.source = self._current.profile
            self._after_failover()

    def close(self) -> None:
        """Close the answer that is being read. One that was given up unread speaks for its store all the same."""
        close_quietly(self._reader)
        self._settle()

    def _settle(self) -> None:
        # Not when it was opened: a store that opens everything and delivers nothing must not pass for healthy.
        if not self._settled:
            self._settled = True
            self._current.health.succeeded()
