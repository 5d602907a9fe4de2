"""The replica manager: one provider made of a primary and its replicas.

Reads come from the first healthy replica, by `read_priority`, that holds the wanted version, then from the primary, and
go on with the next source when one fails (R3, R4, R5). What was missing or stale on the way becomes a wish (R6).
Writes, copies and deletes go to the primary; the wishes to replicate are on disk before they return (W1, W2).
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

from mscfs.errors import NotFoundError, StorageError, StoreUnavailableError
from mscfs.journal import Journal, Wish, WishKind
from mscfs.providers.base import MultipartUpload, Space, StorageProvider
from mscfs.providers.base import Source as Content
from mscfs.replicas.freshness import as_primary, with_version
from mscfs.replicas.reader import FailoverReader
from mscfs.replicas.search import Observer, Search, Sources
from mscfs.replicas.source import Replica, Source
from mscfs.replicas.upload import ReplicatedUpload
from mscfs.types import ByteRange, ObjectMetadata, Version

ROUNDS = 5
"""How often a read begins anew because the object was replaced after the primary had told its version."""
CONFIRMATIONS_KEPT = 4096

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
        self._record_back_fill = record_back_fill or self.wish
        self._confirmed = functools.lru_cache(CONFIRMATIONS_KEPT)(self._confirm)
        self._sources = Sources(primary, self.replicas, self.is_behind, self._is_current)
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
        if expected is not None:
            return self.open_version(key, byte_range, expected)
        for _ in range(ROUNDS):
            wanted, trouble = self._present_version(key)
            search = Search(self._sources, key, wanted)
            if trouble is not None:
                search.note(self.primary_source, trouble)
            try:
                return self._open(search, key, byte_range)
            except StorageError:
                # The primary moved on since it was asked: what the others said is about a version nobody wants now.
                if wanted is None or self.profile not in {*search.stale, *search.missing}:
                    raise
        raise StoreUnavailableError("the object keeps changing", store=self.profile, key=key)

    def open_version(
        self,
        key: str,
        byte_range: ByteRange | None,
        wanted: Version,
        *,
        without: Collection[str] = (),
        lacking: Collection[str] = (),
        observer: Observer | None = None,
    ) -> FailoverReader:
        """Open exactly the version `wanted`, never from the sources named `without`; nothing is back-filled then.

        Replicas that are said to be `lacking` it are asked last, and back-filled if they are not asked at all.
        """
        search = Search(self._sources, key, wanted, without=without, lacking=lacking, observer=observer)
        return self._open(search, key, byte_range, back_fill=not without)

    def _open(
        self, search: Search, key: str, byte_range: ByteRange | None, *, back_fill: bool = True
    ) -> FailoverReader:
        source, reader = search.open(byte_range)
        metadata = reader.metadata
        if isinstance(source, Replica):
            metadata = as_primary(metadata, source.profile)
        if search.wanted is None:
            search.wanted = metadata.version
        elif metadata.version != search.wanted:
            # To the caller a fresh copy is the primary's version, whoever made the copy.
            metadata = with_version(metadata, search.wanted)

        def record() -> None:
            if back_fill:
                self._back_fill(key, [*search.missing, *search.skipped, *search.stale], metadata.content_length)

        record()
        return FailoverReader(search, source, reader, metadata, after_failover=record)

    def _present_version(self, key: str) -> tuple[Version | None, StorageError | None]:
        """The primary's version, or why it cannot be told; neither where it does not matter."""
        if self._consistency == "replica" or not self.replicas:
            return None, None
        try:
            return self.present(key).version, None
        except StorageError as error:
            if not error.transient:
                raise
            return None, error

    def present(self, key: str) -> ObjectMetadata:
        """The primary's word, and nobody else's. A primary known to be down is not asked by everybody at once."""
        return self._of_primary(lambda primary: primary.head(key), key)

    def _of_primary(self, ask: Callable[[StorageProvider], Answer], key: str = "") -> Answer:
        if self.replicas and not self.primary_source.health.may_try():
            # Somebody else can answer: do not let every caller wait for a store that was down a moment ago.
            reason = self.primary_source.health.last_error
            raise StoreUnavailableError(
                f"not asked again yet{': ' if reason else ''}{reason}", store=self.profile, key=key
            )
        try:
            answer = ask(self.primary)
        except StorageError as error:
            self.primary_source.failed(error)
            raise
        self.primary_source.health.succeeded()
        return answer

    def told(self, key: str) -> ObjectMetadata:
        """As `head`, but what becomes of an outage of the primary is the caller's to decide."""
        if self._consistency == "replica":
            with contextlib.suppress(StorageError):
                return self._head_on_replicas(key)
        return self.present(key)

    def told_directory(self, directory: str) -> ObjectMetadata:
        """The same for `head_directory`."""
        return self._of_primary(lambda primary: primary.head_directory(directory), directory)

    def head(self, key: str) -> ObjectMetadata:
        """The primary's word; when it is down, that of the first healthy replica not known to be behind (R8)."""
        try:
            return self.told(key)
        except StorageError as error:
            if not error.transient:
                raise
            return self._head_on_replicas(key, error)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        """The primary's listing; when it is down before the first entry, the first healthy replica's (R8)."""
        return self._listing(lambda provider: provider.list(prefix, start_after=start_after))

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        """As `list`, for one directory."""
        return self._listing(lambda provider: provider.list_directory(directory))

    @property
    def sources(self) -> Sequence[Source]:
        """All stores, the primary first."""
        return (self.primary_source, *self.replicas)

    def suspects(self) -> Sequence[str]:
        """The profiles whose stores did not answer lately."""
        return [source.profile for source in self.sources if not source.health.healthy]

    def has_directory(self, directory: str) -> bool:
        """The primary's word; when it is down, the first healthy replica's."""
        return self._of_anyone(directory, lambda provider: provider.has_directory(directory))

    def head_directory(self, directory: str) -> ObjectMetadata:
        """The primary's word; when it is down, the first healthy replica's."""
        return self._of_anyone(directory, lambda provider: provider.head_directory(directory))

    def _of_anyone(self, directory: str, ask: Callable[[StorageProvider], Answer]) -> Answer:
        try:
            return self._of_primary(ask, directory)
        except StorageError as error:
            if not error.transient:
                raise
            return self._of_replicas(
                lambda replica: ask(replica.provider), error, but_not=self.is_deleted, key=directory
            )

    def _listing(self, begin: Callable[[StorageProvider], Iterator[ObjectMetadata]]) -> Iterator[ObjectMetadata]:
        try:
            first, rest = self._of_primary(lambda primary: _begun(begin(primary)))
        except StorageError as error:
            if not error.transient:
                raise
            yield from self._of_replicas(lambda replica: self.listing_on(replica, begin), error)
            return
        yield from first
        try:
            yield from rest
        except StorageError as error:
            self.primary_source.failed(error)
            raise

    def listing_on(
        self, replica: Replica, begin: Callable[[StorageProvider], Iterator[ObjectMetadata]]
    ) -> Iterator[ObjectMetadata]:
        """A replica's listing as it stands for the primary's. The first request is made at once: StorageError."""
        first, rest = _begun(begin(replica.provider))
        return (
            as_primary(entry, replica.profile)
            for entry in itertools.chain(first, rest)
            if not self.is_deleted(replica.profile, entry.key)
        )

    def _head_on_replicas(self, key: str, error: StorageError | None = None) -> ObjectMetadata:
        return self._of_replicas(
            lambda replica: as_primary(replica.provider.head(key), replica.profile),
            error or NotFoundError("no replica has it", store=self.profile, key=key),
            but_not=self.is_behind,
            key=key,
        )

    def _of_replicas(
        self,
        ask: Callable[[Replica], Answer],
        error: StorageError,
        *,
        but_not: Callable[[str, str], bool] | None = None,
        key: str = "",
    ) -> Answer:
        """The first replica's answer, left out those of which `but_not` is true for the key.

        `error` is raised when none has an answer: what the replicas lack may exist all the same.
        """
        for replica in self.replicas:
            if (but_not is not None and but_not(replica.profile, key)) or not replica.health.may_try():
                continue
            try:
                answer = ask(replica)
            except StorageError as failure:
                replica.failed(failure)
            else:
                replica.health.succeeded()
                return answer
        raise error

    # -- what is known of copies ----------------------------------------------------------------------------------

    def is_behind(self, profile: str, key: str) -> bool:
        """Whether a replica's copy must not be believed while the primary does not speak for it.

        With `read_consistency: replica` it may be old, but not deleted (W8).
        """
        if self._consistency == "replica":
            return self.is_deleted(profile, key)
        return self.journal is not None and self.journal.is_behind(profile, key)

    def is_deleted(self, profile: str, key: str) -> bool:
        """Whether a replica keeps a copy of what was deleted here."""
        return self.journal is not None and self.journal.is_deleted(profile, key)

    def _is_current(self, key: str, version: Version, profile: str, tag: str) -> bool:
        """Whether the primary, asked after the copy `tag` was seen on a replica, still holds `version`."""
        try:
            return self._confirmed(key, version, profile, tag)
        except StorageError as error:
            # Nobody can say: the copy counts as R4 has it.
            return error.transient

    def _confirm(self, key: str, version: Version, profile: str, tag: str) -> bool:
        return self.present(key).version == version

    # -- writing ------------------------------------------------------------------------------------------------

    def check_new_key(self, key: str) -> None:
        """Of the primary."""
        self.primary.check_new_key(key)

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

    def abort_upload(self, key: str, token: str) -> None:
        """Throw away the parts of an upload to the primary."""
        self.primary.abort_upload(key, token)

    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        """Copy on the primary, then record the wishes to replicate the target."""
        written = self.primary.copy(source, target, metadata=metadata, expected=expected, if_absent=if_absent)
        self._replicate(written)
        return written

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        """Delete on the primary; on the replicas only with `propagate_deletes`, by wishes (W8)."""
        self.primary.delete(key, expected=expected)
        self.wish(self.deletion_wishes(key))

    def head_marker(self, directory: str) -> ObjectMetadata:
        """The primary's word, and nobody else's."""
        return self._of_primary(lambda primary: primary.head_marker(directory), directory)

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """Make it on the primary; the replicas follow."""
        self.primary.make_directory(directory, metadata=metadata)
        self.wish(self.replication_wishes(directory, 0))

    def remove_directory(self, directory: str) -> None:
        """Remove it on the primary; the replicas follow with `propagate_deletes`."""
        self.primary.remove_directory(directory)
        self.wish(self.deletion_wishes(directory))

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
        expected: Version | None = None,
    ) -> ObjectMetadata:
        """Keep attributes on the primary. A new mtime is a new version there, so the replicas follow."""
        if self._consistency == "replica":
            expected = None  # what a replica tells need be no version that the primary ever had
        written = self.primary.set_posix_attributes(
            key, mode=mode, uid=uid, gid=gid, modified_ns=modified_ns, expected=expected
        )
        if not written.is_directory:
            self._replicate(written)
        return written

    def xattrs(self, key: str) -> Mapping[str, bytes]:
        """The primary's word: replicas have none of them."""
        return self._of_primary(lambda primary: primary.xattrs(key), key)

    def set_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        """Set them on the primary."""
        self.primary.set_xattrs(key, xattrs)

    def check_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        """Whether the primary could keep them with a file that is still to be stored."""
        self.primary.check_xattrs(key, xattrs)

    def decides_conditions(self) -> bool:
        """Of the primary."""
        return self.primary.decides_conditions()

    def prepare(self) -> None:
        """Prepare all stores, those that are read first."""
        for source in (*self.replicas, self.primary_source):
            source.provider.prepare()

    def probe(self) -> None:
        """Probe the primary."""
        self.primary.probe()

    def space(self) -> Space | None:
        """The primary's room."""
        return self._of_primary(lambda primary: primary.space())

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
        """The wishes a deleted key gives rise to: copies go with `propagate_deletes`, else they are hidden (W8)."""
        return [
            Wish(replica.profile, key, "delete" if self.propagate_deletes and not replica.read_only else "hide")
            for replica in self.replicas
        ]

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
        self.wish(self.replication_wishes(written.key, written.content_length))

    def wish(self, wishes: Sequence[Wish]) -> None:
        """Put wishes into the journal, and wake up whoever carries them out."""
        if wishes and self.journal is not None:
            self.journal.wish(wishes)
            self.on_wish()


def _nobody_waits() -> None:
    """The wishes stay in the journal until somebody looks."""


def _begun(
    entries: Iterator[Answer],
) -> tuple[Sequence[Answer], Iterator[Answer]]:
    """A listing asked for its first entry, so that a store that is down fails here."""
    return list(itertools.islice(entries, 1)), entries
