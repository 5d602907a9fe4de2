"""The search of one read for a source: which store is asked next, and whose answer is taken (R3, R4, R5)."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from mscfs.errors import (
    IntegrityError,
    NotFoundError,
    StorageError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import ObjectReader
from mscfs.replicas.freshness import evidence_of, is_pinned_to_replica, is_same_as
from mscfs.replicas.source import Replica, Source
from mscfs.types import ByteRange, ObjectMetadata, Version

TRIES_PER_SOURCE = 3
"""How often one read turns to the same source: a single reset must not end a read that has only one source."""
TIMEOUT_WEIGHT = 2
"""A time-out counts as so many tries: each costs the reader seconds."""
FORGIVEN_AFTER = 8 << 20
"""So many bytes delivered since its last failure wipe a source's failures out: long reads meet many resets."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The stores of one profile, and what is asked before a replica's word is taken."""

    primary: Source
    replicas: tuple[Replica, ...]
    is_behind: Callable[[str, str], bool]
    """Given a replica's profile and a key: must its copy not be believed while the primary does not say so?"""
    is_current: Callable[[str, Version, str, str], bool]
    """Given a key, a version, a replica's profile and the tag of its copy: does the primary still hold the version?"""


class Observer(Protocol):
    """Who wants to know which store a read waits for."""

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for the read any more."""

    def asking(self, store: str) -> None:
        """A store is asked now."""

    def answered(self) -> None:
        """Its answer begins."""


class Search:
    """The sources one read has tried. `wanted` None: the first copy that is found; from then on exactly that one.

    `lacking` are replicas that are said to lack the object: they are asked when no other source delivers.
    """

    def __init__(
        self,
        sources: Sources,
        key: str,
        wanted: Version | None,
        *,
        without: Collection[str] = (),
        lacking: Collection[str] = (),
        observer: Observer | None = None,
    ) -> None:
        self._sources = sources
        self._key = key
        self._without = without
        self._observer = observer
        self._failures: Counter[str] = Counter()
        self._verdict: tuple[int, StorageError] | None = None
        self._unproven: tuple[str, str] | None = None
        """Profile and tag of the copy that is read, where nothing but its age speaks for it."""
        self.wanted = wanted
        self.missing: list[str] = []
        self.stale: list[str] = []
        self.skipped = list(lacking)
        """Replicas that lack the object, as far as is known, and were not asked."""
        self.errors: Counter[str] = Counter()

    def open(self, byte_range: ByteRange | None) -> tuple[Source, ObjectReader]:
        """Open the range on the next source that delivers the wanted version.

        When none is left: a transient error if any store was in trouble, for it may hold the version; else
        VersionMismatchError or NotFoundError.
        """
        for source in self._in_order():
            if source.profile in self.skipped:
                self.skipped.remove(source.profile)
            try:
                return source, self._open_on(source, byte_range)
            except StorageError as error:
                self.blame(source, error)
                self.note(source, error)
                if source is self._sources.primary and self.wanted is None and isinstance(error, NotFoundError):
                    raise  # there is no such object, whatever a replica still holds
        if self._verdict is None:
            raise StoreUnavailableError("no store may be asked now", store=self._sources.primary.profile, key=self._key)
        raise self._verdict[1]

    def confirm(self) -> None:
        """What was delivered so far is going to be continued by another source: both must be of one version (R1).

        Raises VersionMismatchError when the primary holds another one by now, for the copy may be of that.
        """
        if self.wanted is None or self._unproven is None:
            return
        profile, tag = self._unproven
        if not self._sources.is_current(self._key, self.wanted, profile, tag):
            raise VersionMismatchError("what was read of it may be another version", store=profile, key=self._key)

    def blame(self, source: Source, error: StorageError) -> None:
        """A store failed. When nobody waits for this read any more that is long ago: the store may be well by now.

        The read ends then, and asks no other store.
        """
        if self._observer is not None and self._observer.is_abandoned:
            raise error
        source.failed(error)

    def note(self, source: Source, error: StorageError, *, delivered: int = 0) -> None:
        """A source did not deliver, or broke off after `delivered` bytes."""
        rank = self._rank(source, error)
        if self._verdict is None or rank >= self._verdict[0]:
            self._verdict = rank, error
        if isinstance(error, NotFoundError):
            self.missing.append(source.profile)
        elif isinstance(error, VersionMismatchError):
            self.stale.append(source.profile)
        else:
            if delivered >= FORGIVEN_AFTER:
                self._failures[source.profile] = 0
            self._failures[source.profile] += TIMEOUT_WEIGHT if isinstance(error, StoreTimeoutError) else 1
            self.errors[source.profile] += 1

    def _rank(self, source: Source, error: StorageError) -> int:
        if error.transient:
            return 3
        if source is self._sources.primary:
            return 2
        return 0 if isinstance(error, NotFoundError) else 1

    def _in_order(self) -> Iterator[Source]:
        """Replicas by priority, then the primary, then those said to lack it; the unhealthy last.

        Sources that failed in this read come later.
        """
        candidates: list[Source] = [*self._sources.replicas, self._sources.primary]
        candidates.sort(key=lambda source: (source.profile in self.skipped, self._failures[source.profile]))
        unhealthy: list[Source] = []
        for source in candidates:
            name = source.profile
            answered = name in self.missing or name in self.stale
            if name in self._without or answered or self._failures[name] >= TRIES_PER_SOURCE:
                continue
            if source is self._sources.primary:
                if source.health.pausing:
                    unhealthy.insert(0, source)
                else:
                    yield source
            elif source.health.may_try():
                yield source
            else:
                unhealthy.append(source)
        # Nobody else had it: better a store that was bad a moment ago than an error.
        yield from unhealthy

    def _open_on(self, source: Source, byte_range: ByteRange | None) -> ObjectReader:
        asks_primary = source is self._sources.primary
        self._unproven = None
        exactly = None if self.wanted is None or is_pinned_to_replica(self.wanted) else self.wanted
        if self._observer is not None:
            self._observer.asking(source.profile)
        reader = source.provider.get(self._key, byte_range, expected=exactly if asks_primary else None)
        if self._observer is not None:
            self._observer.answered()
        try:
            if asks_primary and exactly is None:
                self._check(source, self._is_same_on_primary(reader))
            elif not asks_primary:
                self._check(source, self._is_acceptable(source, reader))
            _check_range(reader, byte_range, self.wanted)
        except BaseException:
            close_quietly(reader)
            raise
        return reader

    def _check(self, source: Source, is_wanted: bool) -> None:
        if not is_wanted:
            raise VersionMismatchError("holds another version", store=source.profile, key=self._key)

    def _is_acceptable(self, replica: Source, reader: ObjectReader) -> bool:
        wanted = self.wanted
        if (wanted is None or is_pinned_to_replica(wanted)) and self._sources.is_behind(replica.profile, self._key):
            return False
        if wanted is None:
            return True
        copy = _complete(replica, reader.metadata)
        evidence = evidence_of(copy, wanted, profile=replica.profile)
        if evidence == "age":
            if reader.byte_range.size < wanted.size:
                # Other parts may come, or have come, from another source: both must be of one version for certain.
                return self._sources.is_current(self._key, wanted, replica.profile, copy.tag)
            self._unproven = replica.profile, copy.tag
        return evidence != "none"

    def _is_same_on_primary(self, reader: ObjectReader) -> bool:
        return self.wanted is None or is_same_as(self.wanted, reader.metadata.version)


def close_quietly(reader: ObjectReader) -> None:
    """Close an answer that is of no use any more: its trouble is nobody's."""
    with contextlib.suppress(StorageError):
        reader.close()


def _check_range(reader: ObjectReader, byte_range: ByteRange | None, wanted: Version | None) -> None:
    length = reader.metadata.content_length
    if wanted is not None and length != wanted.size:
        # The tag is that of the version: it is the length that lies.
        raise IntegrityError("another length than this version has", store=reader.source, key=reader.metadata.key)
    asked = ByteRange(0, length) if byte_range is None else byte_range.clip(length)
    if reader.byte_range != asked:
        raise IntegrityError("another range than asked for", store=reader.source, key=reader.metadata.key)


def _complete(source: Source, copy: ObjectMetadata) -> ObjectMetadata:
    """The metadata of an answer, with one HEAD more where the answer could not carry the stamp."""
    if copy.metadata is not None:
        return copy
    complete = source.provider.head(copy.key)
    if complete.version != copy.version:
        raise VersionMismatchError("the object has just changed", store=source.profile, key=copy.key)
    return complete
