"""What workers do: the blocking core of fetches, downloads, uploads and steps."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from mscfs.cache.arena import SharedMemory
from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.errors import (
    AlreadyExistsError,
    IntegrityError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
    VersionMismatchError,
    from_oserror,
)
from mscfs.providers.base import ObjectReader, StorageProvider
from mscfs.providers.sources import holds_file
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.outage import pages_of_primary, pages_of_replica
from mscfs.replicas.step import bring_up_to_date
from mscfs.types import CLAIM_KEY, ByteRange, ObjectMetadata, Version
from mscfs.workers.parts import OpenUploads
from mscfs.workers.protocol import (
    AbortParts,
    Arrived,
    BeginParts,
    CompleteParts,
    Download,
    Fetch,
    FetchDone,
    FetchSummary,
    List,
    ListDone,
    PageDone,
    Part,
    Request,
    Result,
    SendPart,
    Slow,
    Step,
    StepDone,
    Stores,
    Trouble,
    Upload,
    UploadDone,
    pack_trouble,
    unpack_text,
)
from mscfs.workers.watch import Attempt, Watch

Piece = bytes | memoryview


class AbandonedError(Exception):
    """Nobody waits for this request any more."""


PROGRESS = 256 << 10
"""Bytes after which those who wait for a fetch are told: a message costs them far less than the wait."""


class Tasks:
    """Performs requests; any number of threads may. Memory for each: what the provider delivers at once."""

    def __init__(
        self,
        store: StorageProvider,
        cache: ChunkCache | None,
        memory: SharedMemory,
        *,
        namespace: str,
        chunk_size: int,
    ) -> None:
        self.watch = Watch()
        self._store = store
        self._cache = cache
        self._memory = memory
        self._namespace = namespace
        self._chunk_size = chunk_size
        self._primary = store.primary if isinstance(store, ReplicaManager) else store
        self._parts = OpenUploads(self._primary)

    def perform(self, request: Request, emit: Callable[[Part], None], is_abandoned: Callable[[], bool]) -> Result:
        """Do what is asked; `emit` is told of the bytes of a fetch as soon as they can be read, and of each page.

        Raises StorageError, and AbandonedError soon after `is_abandoned` (a fetch, download or listing only).
        """
        match request:
            case Fetch():
                return FetchDone(request.id, self._fetch(request, emit, is_abandoned))
            case Download():
                return FetchDone(request.id, self._download(request, is_abandoned))
            case Upload():
                written = put_file(
                    self._primary,
                    unpack_text(request.key),
                    Path(unpack_text(request.path)),
                    metadata=request.metadata,
                    content_type=request.content_type,
                    if_absent=request.if_absent,
                    expected=request.expected,
                    repeated=request.repeated,
                )
                return UploadDone(request.id, replace(written, key=""))
            case BeginParts() | SendPart() | CompleteParts() | AbortParts():
                return self._parts.perform(request)
            case List():
                return ListDone(request.id, list(self._list(request, emit, is_abandoned)))
            case Step():
                # Only a profile with replicas has wishes, and its store is their manager.
                manager = cast("ReplicaManager", self._store)
                return StepDone(
                    request.id,
                    bring_up_to_date(manager, request.profile, unpack_text(request.key), delete=request.delete),
                )

    def learn(self, stores: Stores) -> None:
        """What the daemon knows of the stores."""
        self.watch.learn(stores.waits)
        for source in self._store.sources if isinstance(self._store, ReplicaManager) else ():
            source.health.follow(down=source.profile in stores.down)

    def report(self, tell: Callable[[Trouble | Slow], None]) -> None:
        """Have `tell` called, by any thread, with each failure of a store and each fetch that has become slow."""
        self.watch.tell = lambda attempt: tell(Slow(attempt.id, attempt.store, tuple(attempt.tried)))
        for source in self._store.sources if isinstance(self._store, ReplicaManager) else ():
            source.on_failure = partial(_tell_trouble, tell, source.profile)

    def prepare(self) -> None:
        """Have the first request find everything loaded. Raises nothing."""
        self._store.prepare()

    def close(self) -> None:
        """Close the store and leave the cache."""
        self._store.close()
        if self._cache is not None:
            self._cache.close()

    def _fetch(self, request: Fetch, emit: Callable[[Part], None], is_abandoned: Callable[[], bool]) -> FetchSummary:
        key = unpack_text(request.key)
        whole = ByteRange(request.first * self._chunk_size, request.count * self._chunk_size)
        whole = whole.clip(request.version.size)
        room = self._memory.view[request.target : request.target + whole.size]
        at = told = request.present
        wanted = ByteRange(whole.offset + at, whole.size - at)
        attempt = self.watch.begin(request.id, wanted.size, is_abandoned)
        try:
            with self._open(key, wanted, request, attempt) as reader:
                for piece in _pieces(reader, wanted, is_abandoned):
                    room[at : at + len(piece)] = piece
                    at += len(piece)
                    attempt.left -= len(piece)
                    if at - told >= PROGRESS and at < whole.size:
                        emit(Arrived(request.id, at))
                        told = at
                summary = _summary(reader)
        finally:
            self.watch.end(attempt)
        if not summary.errors:
            summary = replace(summary, first=attempt.first, seconds=attempt.took)
        if self._cache is not None:
            if told < whole.size:
                emit(Arrived(request.id, whole.size))
            self._keep(self._cache, request, key, room)
        return summary

    def _open(self, key: str, wanted: ByteRange, request: Fetch, attempt: Attempt) -> ObjectReader:
        if isinstance(self._store, ReplicaManager):
            return self._store.open_version(
                key, wanted, request.version, without=request.without, lacking=request.lacking, observer=attempt
            )
        return self._store.get(key, wanted, expected=request.version)

    def _keep(self, cache: ChunkCache, request: Fetch, key: str, data: memoryview) -> None:
        """Put chunks into the cache; readers have them already. What it refuses is fetched again another time."""
        digest = object_digest(self._namespace, key, request.version, self._chunk_size)
        for number, begin in enumerate(range(0, len(data), self._chunk_size)):
            if not cache.insert(ChunkId(digest, request.first + number), data[begin : begin + self._chunk_size]):
                return

    def _download(self, request: Download, is_abandoned: Callable[[], bool]) -> FetchSummary:
        key, target = unpack_text(request.key), Path(unpack_text(request.target))
        with self._store.get(key, expected=request.version) as reader:
            pieces = _pieces(reader, ByteRange(0, request.version.size), is_abandoned)
            try:
                # Not created here: a caller that gave up has removed it, and nobody would remove it again.
                with os.fdopen(os.open(target, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC), "wb", buffering=0) as file:
                    for piece in pieces:
                        rest = memoryview(piece)
                        while rest:
                            rest = rest[file.write(rest) :]
            except OSError as error:
                raise from_oserror(error, key=key) from error
            return _summary(reader)

    def _list(self, request: List, emit: Callable[[Part], None], is_abandoned: Callable[[], bool]) -> Sequence[str]:
        pages = self._store.list_pages
        if isinstance(self._store, ReplicaManager):
            if request.store:
                pages = self._store.replica(request.store).provider.list_pages
            else:
                pages = partial(pages_of_replica if request.stand_in else pages_of_primary, self._store)
        for page in pages(unpack_text(request.key)):
            if is_abandoned():
                raise AbandonedError
            emit(PageDone(request.id, page))
        return self._store.suspects() if isinstance(self._store, ReplicaManager) else ()


def _tell_trouble(tell: Callable[[Trouble], None], profile: str, error: StorageError) -> None:
    tell(pack_trouble(profile, error))


def put_file(
    store: StorageProvider,
    key: str,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    content_type: str | None = None,
    if_absent: bool = False,
    expected: Version | None = None,
    repeated: bool = False,
) -> ObjectMetadata:
    """As `StorageProvider.put`. `repeated`: an attempt before may have succeeded, and is then no conflict."""
    try:
        return store.put(
            key, path, metadata=metadata, content_type=content_type, if_absent=if_absent, expected=expected
        )
    except (AlreadyExistsError, VersionMismatchError):
        # Whose a claim is the store's own retries have found out.
        written = _written_before(store, key, path) if repeated and CLAIM_KEY not in (metadata or {}) else None
        if written is None:
            raise
        if if_absent and not written.content_length:
            # Two who wanted to be the first cannot be told apart, and neither may believe that it is.
            message = "a worker process died before it was known whether it was us who created this empty object"
            raise StoreUnavailableError(message, store=store.profile, key=key) from None
        return written


def _pieces(reader: ObjectReader, wanted: ByteRange, is_abandoned: Callable[[], bool]) -> Iterator[Piece]:
    """The bytes of an answer that must be of the wanted length."""
    if reader.byte_range != wanted:
        raise IntegrityError(
            f"{wanted.size} bytes from {wanted.offset} were wanted, "
            f"{reader.byte_range.size} from {reader.byte_range.offset} came",
            store=reader.source,
            key=reader.metadata.key,
        )
    for piece in reader:
        if is_abandoned():
            raise AbandonedError
        yield piece


def _summary(reader: ObjectReader) -> FetchSummary:
    # A plain provider's answers know of no replicas.
    return FetchSummary(
        reader.source,
        reader.byte_range.size,
        missing=getattr(reader, "missing", ()),
        stale=getattr(reader, "stale", ()),
        skipped=getattr(reader, "skipped", ()),
        errors=getattr(reader, "errors", {}),
    )


def _written_before(store: StorageProvider, key: str, path: Path) -> ObjectMetadata | None:
    """The metadata of the object, if it is there and holds exactly the bytes of the file."""
    try:
        present = store.head(key)
        return present if holds_file(store, present, path) else None
    except (NotFoundError, VersionMismatchError):
        return None
