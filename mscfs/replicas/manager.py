"""The replica manager: one provider made of a primary and its replicas.

Reads come from the first healthy replica, by `read_priority`, that holds the wanted version, then from the primary, and
go on with the next source when one fails (R3, R4, R5). What was missing or stale on the way becomes a wish (R6).
Writes, copies and deletes go to the primary; the wishes to replicate are on disk before they return (W1, W2).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

from mscfs.errors import NotFoundError, StorageError, StoreUnavailableError, VersionMismatchError
from mscfs.journal import Journal, Wish, WishKind
from mscfs.providers.base import MultipartUpload, ObjectReader, Space, StorageProvider
from mscfs.providers.base import Source as Content
from mscfs.replicas.freshness import as_primary, is_copy_of
from mscfs.replicas.reader import FailoverReader
from mscfs.replicas.source import Replica, Source
from mscfs.replicas.upload import ReplicatedUpload
from mscfs.types import ByteRange, ObjectMetadata, Version

TRIES_PER_SOURCE = 3
"""How often one read turns to the same source: a single reset must not end a read that has only one source."""

ReadConsistency = Literal["primary", "replica"]
Answer = TypeVar("Answer")
WishSink = Callable[[Sequence[Wish]], None]

logger = logging.getLogger(__name__)


class ReplicaManager(StorageProvider):
    """See the module. Blocking and thread-safe; it has no threads of its own.

    `record_back_fill` receives the wishes that reads give rise to; by default they go to the journal. Worker processes
    pass a sink of their own and report to the daemon, which writes many at once.
    """

    def __init__(
        self,
        primary: Source,
        replicas: Sequence[Replica],
        journal: Journal | None,
        *,
        read_consistency: ReadConsistency = "primary",
        propagate_deletes: bool = False,
        record_back_fill: WishSink | None = None,
    ) -> None:
        if replicas and journal is None:
            raise ValueError("replicas need a journal")
        self.primary_source = primary
        self.replicas = tuple(replicas)
        self.journal = journal
        self.propagate_deletes = propagate_deletes
        self.profile = primary.profile
        self.identity = primary.provider.identity
        self.capabilities = primary.provider.capabilities
        self._consistency = read_consistency
        self._record_back_fill = record_back_fill or self._wish
        self.on_wish: Callable[[], None] = _nobody_waits
        """Called after wishes went to the journal: whoever carries them out wakes up."""

    @property
    def primary(self) -> StorageProvider:
        """The store all writes go to."""
        return self.primary_source.provider

    def replica(self, profile: str) -> Replica:
        """The replica of that profile name; KeyError when there is none (the configuration changed)."""
        for replica in self.replicas:
            if replica.profile == profile:
                return replica
        raise KeyError(profile)

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> FailoverReader:
        """Open an object on the nearest source that holds the wanted version.

        With `expected` no request goes to the primary unless it has to serve. Without it the primary is asked for
        its present version first, so that a replica is never believed beyond its freshness; when the primary is down,
        the first healthy replica's copy is what is read.
        """
        wanted = expected or self._present_version(key)
        return self.open_version(key, byte_range, wanted)

    def open_version(
        self,
        key: str,
        byte_range: ByteRange | None,
        wanted: Version | None,
        *,
        without: str = "",
    ) -> FailoverReader:
        """Open exactly `wanted` (None: whatever the first source holds), never from the source named `without`."""
        missing: list[str] = []
        stale: list[str] = []
        failures: Counter[str] = Counter()
        if without:
            failures[without] = TRIES_PER_SOURCE

        def open_next(rest: ByteRange, failed: Source, error: StorageError) -> tuple[Source, ObjectReader]:
            failures[failed.profile] += 1
            source, reader = self._open_first(key, rest, version, failures, [], [], error)
            return source, reader

        source, reader = self._open_first(key, byte_range, wanted, failures, missing, stale, None)
        metadata = reader.metadata
        if isinstance(source, Replica):
            metadata = as_primary(metadata, source.profile)
        version = wanted or metadata.version
        if wanted is not None and metadata.version != wanted:
            # A fresh copy by another tool: to the caller it is the primary's version all the same.
            metadata = _with_version(metadata, wanted)
        if not without:
            self._back_fill(key, missing + stale, metadata.content_length)
        return FailoverReader(source, reader, metadata, open_next=open_next, missing=tuple(missing), stale=tuple(stale))

    def _open_first(
        self,
        key: str,
        byte_range: ByteRange | None,
        wanted: Version | None,
        failures: Counter[str],
        missing: list[str],
        stale: list[str],
        error: StorageError | None,
    ) -> tuple[Source, ObjectReader]:
        for source in self._in_order(failures):
            try:
                reader = self._open_on(source, key, byte_range, wanted)
            except NotFoundError as failure:
                source.health.succeeded()
                missing.append(source.profile)
                error = _worse(error, failure)
            except VersionMismatchError as failure:
                source.health.succeeded()
                stale.append(source.profile)
                error = _worse(error, failure)
            except StorageError as failure:
                source.health.failed(failure)
                source.statistics.add(errors=1)
                failures[source.profile] += 1
                error = _worse(error, failure)
            else:
                source.health.succeeded()
                return source, reader
        raise error or StoreUnavailableError("no store may be asked now", store=self.profile, key=key)

    def _in_order(self, failures: Counter[str]) -> Iterator[Source]:
        """Replicas by priority, then the primary; those that failed in this read later, the unhealthy last."""
        candidates: list[Source] = [*self.replicas, self.primary_source]
        candidates.sort(key=lambda source: failures[source.profile])
        skipped = []
        for source in candidates:
            if failures[source.profile] >= TRIES_PER_SOURCE:
                continue
            if source is self.primary_source or source.health.may_try():
                yield source
            else:
                skipped.append(source)
        # Nobody else had it: better a store that was bad a moment ago than an error.
        yield from skipped

    def _open_on(self, source: Source, key: str, byte_range: ByteRange | None, wanted: Version | None) -> ObjectReader:
        if not isinstance(source, Replica):
            return source.provider.get(key, byte_range, expected=wanted)
        reader = source.provider.get(key, byte_range)
        if wanted is not None and not is_copy_of(reader.metadata, wanted, profile=source.profile):
            reader.close()
            raise VersionMismatchError("holds another version", store=source.profile, key=key)
        return reader

    def _present_version(self, key: str) -> Version | None:
        if self._consistency == "replica" or not self.replicas:
            return None
        try:
            return self._ask_primary(key).version
        except StorageError as error:
            if not error.transient:
                raise
            return None

    def _ask_primary(self, key: str) -> ObjectMetadata:
        if self.replicas and not self.primary_source.health.may_try():
            # Somebody else can answer: do not let every read wait for a store that was down a moment ago.
            reason = self.primary_source.health.last_error
            raise StoreUnavailableError(f"not asked again yet: {reason}", store=self.profile, key=key)
        try:
            metadata = self.primary.head(key)
        except StorageError as error:
            self.primary_source.health.failed(error)
            raise
        self.primary_source.health.succeeded()
        return metadata

    def head(self, key: str) -> ObjectMetadata:
        """The primary's word; when it is down, the first healthy replica's (R8)."""
        if self._consistency == "replica":
            for replica in self.replicas:
                try:
                    return as_primary(replica.provider.head(key), replica.profile)
                except StorageError as error:
                    replica.health.failed(error)
        try:
            return self._ask_primary(key)
        except StorageError as error:
            if not error.transient:
                raise
            return self._from_replicas(error, lambda replica: as_primary(replica.provider.head(key), replica.profile))

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        """The primary's listing; when it is down before the first entry, the first healthy replica's (R8)."""
        return self._listing(lambda provider: provider.list(prefix, start_after=start_after))

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        """As `list`, for one directory."""
        return self._listing(lambda provider: provider.list_directory(directory))

    def has_directory(self, directory: str) -> bool:
        """The primary's word; when it is down, the first healthy replica's."""
        try:
            return self.primary.has_directory(directory)
        except StorageError as error:
            if not error.transient:
                raise
            return self._from_replicas(error, lambda replica: replica.provider.has_directory(directory))

    def head_directory(self, directory: str) -> ObjectMetadata:
        """The primary's word; when it is down, the first healthy replica's."""
        try:
            return self.primary.head_directory(directory)
        except StorageError as error:
            if not error.transient:
                raise
            return self._from_replicas(error, lambda replica: replica.provider.head_directory(directory))

    def rename(
        self, source: str, target: str, *, expected: Version | None = None, if_absent: bool = False
    ) -> ObjectMetadata:
        """Rename on the primary, then record the wishes for both keys."""
        written = self.primary.rename(source, target, expected=expected, if_absent=if_absent)
        self._wish([*self.replication_wishes(target, written.content_length), *self.deletion_wishes(source)])
        return written

    def _listing(self, begin: Callable[[StorageProvider], Iterator[ObjectMetadata]]) -> Iterator[ObjectMetadata]:
        try:
            entries = begin(self.primary)
            first = next(entries, None)
        except StorageError as error:
            if not error.transient:
                raise
            self.primary_source.health.failed(error)
            yield from self._from_replicas(error, lambda replica: _begun(replica, begin))
            return
        self.primary_source.health.succeeded()
        if first is not None:
            yield first
            yield from entries

    def _from_replicas(self, error: StorageError, ask: Callable[[Replica], Answer]) -> Answer:
        for replica in self.replicas:
            if not replica.health.may_try():
                continue
            try:
                answer = ask(replica)
            except NotFoundError as failure:
                replica.health.succeeded()
                error = _worse(error, failure)
            except StorageError as failure:
                replica.health.failed(failure)
            else:
                replica.health.succeeded()
                return answer
        raise error

    # -- writing ------------------------------------------------------------------------------------------------

    def put(
        self,
        key: str,
        source: Content,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        """Write to the primary, then record the wishes to replicate."""
        written = self.primary.put(
            key, source, metadata=metadata, content_type=content_type, if_absent=if_absent, expected=expected
        )
        self._replicate(written)
        return written

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        """Begin an upload in parts to the primary."""
        upload = self.primary.start_upload(key, metadata=metadata, content_type=content_type)
        return ReplicatedUpload(upload, self._replicate)

    def copy(
        self, source: str, target: str, *, expected: Version | None = None, if_absent: bool = False
    ) -> ObjectMetadata:
        """Copy on the primary, then record the wishes to replicate the target."""
        written = self.primary.copy(source, target, expected=expected, if_absent=if_absent)
        self._replicate(written)
        return written

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        """Delete on the primary; on the replicas only with `propagate_deletes`, by wishes (W8)."""
        self.primary.delete(key, expected=expected)
        self._wish(self.deletion_wishes(key))

    def make_directory(self, directory: str) -> None:
        """Make it on the primary; the replicas follow."""
        self.primary.make_directory(directory)
        self._wish(self.replication_wishes(directory, 0))

    def remove_directory(self, directory: str) -> None:
        """Remove it on the primary; the replicas follow with `propagate_deletes`."""
        self.primary.remove_directory(directory)
        self._wish(self.deletion_wishes(directory))

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        """Replace user metadata on the primary; the replicas follow."""
        written = self.primary.set_metadata(key, metadata, expected=expected)
        self._replicate(written)
        return written

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        """Make it on the primary; the replicas follow."""
        written = self.primary.make_symlink(key, target)
        self._replicate(written)
        return written

    def set_posix_attributes(
        self,
        key: str,
        *,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        modified_ns: int | None = None,
    ) -> ObjectMetadata:
        """Keep attributes on the primary. A new mtime is a new version there, so the replicas follow."""
        written = self.primary.set_posix_attributes(key, mode=mode, uid=uid, gid=gid, modified_ns=modified_ns)
        if not written.is_directory:
            self._replicate(written)
        return written

    def probe(self) -> None:
        """Probe the primary."""
        self.primary.probe()

    def space(self) -> Space | None:
        """The primary's room."""
        return self.primary.space()

    def close(self) -> None:
        """Close all stores and the journal."""
        for source in (self.primary_source, *self.replicas):
            source.provider.close()
        if self.journal is not None:
            self.journal.close()

    # -- wishes -------------------------------------------------------------------------------------------------

    def replication_wishes(self, key: str, size: int, kind: WishKind = "replicate") -> Sequence[Wish]:
        """One wish for each replica that may be written to."""
        return [Wish(replica.profile, key, kind, size) for replica in self.replicas if not replica.read_only]

    def deletion_wishes(self, key: str) -> Sequence[Wish]:
        """The wishes a deleted key gives rise to: none unless deletes are propagated."""
        return self.replication_wishes(key, 0, "delete") if self.propagate_deletes else []

    def back_fill_wishes(self, key: str, profiles: Iterable[str], size: int) -> Sequence[Wish]:
        """The wishes for replicas that a read found missing or stale: healthy ones that may be written to (R6)."""
        names = set(profiles)
        return [
            Wish(replica.profile, key, "back-fill", size)
            for replica in self.replicas
            if replica.profile in names and not replica.read_only and replica.health.healthy
        ]

    def _back_fill(self, key: str, profiles: Sequence[str], size: int) -> None:
        wishes = self.back_fill_wishes(key, profiles, size)
        if not wishes:
            return
        try:
            self._record_back_fill(wishes)
        except StorageError as error:
            # A full disk here is no reason to refuse a read: the next one makes the wish again.
            logger.warning("a back-fill could not be recorded: %s", error)

    def _replicate(self, written: ObjectMetadata) -> None:
        self._wish(self.replication_wishes(written.key, written.content_length))

    def _wish(self, wishes: Sequence[Wish]) -> None:
        if wishes and self.journal is not None:
            self.journal.wish(wishes)
            self.on_wish()


def _nobody_waits() -> None:
    """The wishes stay in the journal until somebody looks."""


def _begun(replica: Replica, begin: Callable[[StorageProvider], Iterator[ObjectMetadata]]) -> Iterator[ObjectMetadata]:
    """A replica's listing, asked for its first entry so that a store that is down fails here."""
    entries = begin(replica.provider)
    first = next(entries, None)

    def all_entries() -> Iterator[ObjectMetadata]:
        if first is not None:
            yield as_primary(first, replica.profile)
            for entry in entries:
                yield as_primary(entry, replica.profile)

    return all_entries()


def _with_version(metadata: ObjectMetadata, version: Version) -> ObjectMetadata:
    return replace(metadata, tag=version.tag, modified_ns=version.modified_ns, content_hash=version.content_hash)


def _worse(known: StorageError | None, new: StorageError) -> StorageError:
    """Which error to show when every source failed: a store in trouble before "another version" before "not there"."""
    if known is None:
        return new

    def weight(error: StorageError) -> int:
        if isinstance(error, NotFoundError):
            return 0
        return 1 if isinstance(error, VersionMismatchError) else 2

    return new if weight(new) >= weight(known) else known
