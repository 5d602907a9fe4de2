"""A provider that repeats what failed for a passing reason.

Repeating must not lie. A condition (`if_absent`, `expected`) that fails at the second try may have been met at the
first, whose answer was lost: then what is stored is compared with what was sent. So it is when `expected` fails at
once: something on the way may have sent the request twice. An empty object that was to be new is known by its claim
(`CLAIM_KEY` in `metadata`), at once too. Sources that cannot be read twice are sent once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from mscfs.config.values import RetryConfig
from mscfs.errors import (
    AlreadyExistsError,
    NotFoundError,
    StorageError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import MultipartUpload, ObjectReader, Source, Space, StorageProvider
from mscfs.providers.checksum import Checksum, matches
from mscfs.providers.page import Page
from mscfs.providers.sources import read_pieces, read_slice
from mscfs.types import CLAIM_KEY, ByteRange, ObjectMetadata, Version

logger = logging.getLogger(__name__)

_LONGEST_PAUSE = 3600.0
"""Seconds, however many attempts double it."""

Answer = TypeVar("Answer")
Sleep = Callable[[float], None]


class RetryingProvider(StorageProvider):
    """`inner`, with failed calls repeated as `retry` says: pauses grow, half of each is chance.

    With `retry_reads` false only changes are repeated: whoever has another store to turn to does not want to wait.
    A read that met a time-out is not repeated in any case, nor is anything when the bucket or base directory is
    missing. `sleep` takes seconds.
    """

    def __init__(
        self, inner: StorageProvider, retry: RetryConfig, *, retry_reads: bool = True, sleep: Sleep = time.sleep
    ) -> None:
        self.inner = inner
        self.profile = inner.profile
        self.identity = inner.identity
        self.capabilities = inner.capabilities
        self._retry = retry
        self._retry_reads = retry_reads
        self._sleep = sleep

    # -- reading ------------------------------------------------------------------------------------------------

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        answer = self.read(lambda: self.inner.get(key, byte_range, expected=expected))
        return _RetryingReader(self, key, answer) if self._retry_reads else answer

    def head(self, key: str) -> ObjectMetadata:
        return self.read(lambda: self.inner.head(key))

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        pauses = self._pauses()
        while True:
            try:
                for entry in self.inner.list(prefix, start_after=start_after):
                    start_after = entry.key
                    pauses = self._pauses()
                    yield entry
            except StorageError as error:
                self._wait_or_raise(error, pauses, reading=True)
            else:
                return

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        # Its entries have no order to go on from: only what failed before the first one is begun again.
        first, rest = self.read(lambda: _begin(self.inner.list_directory(directory)))
        if first is not None:
            yield first
            yield from rest

    def list_pages(self, directory: str = "") -> Iterator[Page]:
        first, rest = self.read(lambda: _begin(self.inner.list_pages(directory)))
        if first is not None:
            yield first
            yield from rest

    def has_directory(self, directory: str) -> bool:
        return self.read(lambda: self.inner.has_directory(directory))

    def head_directory(self, directory: str) -> ObjectMetadata:
        return self.read(lambda: self.inner.head_directory(directory))

    def decides_conditions(self) -> bool:
        return self.read(self.inner.decides_conditions)

    def prepare(self) -> None:
        self.inner.prepare()

    def probe(self) -> None:
        """Never repeated: the question is how the store is now."""
        self.inner.probe()

    def space(self) -> Space | None:
        return self.read(self.inner.space)

    # -- writing ------------------------------------------------------------------------------------------------

    def check_new_key(self, key: str) -> None:
        self.inner.check_new_key(key)

    def put(
        self,
        key: str,
        source: Source,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        def put() -> ObjectMetadata:
            return self.inner.put(
                key, source, metadata=metadata, content_type=content_type, if_absent=if_absent, expected=expected
            )

        claim = (metadata or {}).get(CLAIM_KEY)

        def stored() -> ObjectMetadata | None:
            if claim is not None:
                return self._find_claimed(key, claim)
            sent = Checksum.of(read_pieces(source, store=self.profile, key=key))
            return self.find_stored(key, [sent], metadata or {}, new=if_absent)

        if isinstance(source, ObjectReader):
            return put()
        return self.change(put, stored, at_once=expected is not None or claim is not None)

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        upload = self.change(lambda: self.inner.start_upload(key, metadata=metadata, content_type=content_type))
        return _RetryingUpload(self, upload, key, metadata or {})

    def abort_upload(self, key: str, token: str) -> None:
        self.change(lambda: self.inner.abort_upload(key, token))

    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        def stored() -> ObjectMetadata | None:
            with self.get(source, expected=expected) as content:
                sent = Checksum.of(content)
            kept = content.metadata.metadata if metadata is None else metadata
            return self.find_stored(target, [sent], kept or {}, new=True)

        return self.change(
            lambda: self.inner.copy(source, target, metadata=metadata, expected=expected, if_absent=if_absent),
            stored if if_absent else None,
        )

    def rename(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        """A store's own rename is not repeated (afterwards there is no source); a copy and a delete are, each."""
        if type(self.inner).rename is StorageProvider.rename:
            return super().rename(source, target, metadata=metadata, expected=expected, if_absent=if_absent)
        return self.inner.rename(source, target, metadata=metadata, expected=expected, if_absent=if_absent)

    def rename_directory(self, source: str, target: str) -> None:
        """Not repeated: afterwards there is no source."""
        self.inner.rename_directory(source, target)

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        self.change(lambda: self.inner.delete(key, expected=expected))

    def head_marker(self, directory: str) -> ObjectMetadata:
        return self.read(lambda: self.inner.head_marker(directory))

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        self.change(lambda: self.inner.make_directory(directory, metadata=metadata))

    def remove_directory(self, directory: str) -> None:
        self.change(lambda: self.inner.remove_directory(directory))

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        def stored() -> ObjectMetadata | None:
            present = self.head(key)
            same_size = expected is None or present.content_length == expected.size
            return present if same_size and present.metadata == metadata else None

        return self.change(lambda: self.inner.set_metadata(key, metadata, expected=expected), stored)

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        return self.change(lambda: self.inner.make_symlink(key, target))

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
        return self.change(
            lambda: self.inner.set_posix_attributes(
                key, mode=mode, uid=uid, gid=gid, modified_ns=modified_ns, expected=expected
            )
        )

    def xattrs(self, key: str) -> Mapping[str, bytes]:
        return self.read(lambda: self.inner.xattrs(key))

    def set_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        self.change(lambda: self.inner.set_xattrs(key, xattrs))

    def check_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        self.read(lambda: self.inner.check_xattrs(key, xattrs))

    def close(self) -> None:
        self.inner.close()

    # -- repeating ----------------------------------------------------------------------------------------------

    def read(self, call: Callable[[], Answer]) -> Answer:
        """The answer of a call that changes nothing."""
        pauses = self._pauses()
        while True:
            try:
                return call()
            except StorageError as error:
                self._wait_or_raise(error, pauses, reading=True)

    def change(
        self,
        call: Callable[[], Answer],
        find: Callable[[], Answer | None] | None = None,
        doubted: tuple[type[StorageError], ...] = (AlreadyExistsError, VersionMismatchError),
        *,
        at_once: bool = False,
    ) -> Answer:
        """The answer of a call that changes something.

        Where a repetition, or `at_once` the first try, meets an error of the kinds `doubted`, the answer is what, by
        `find`, a try before did.
        """
        pauses = self._pauses()
        repeated = at_once
        while True:
            try:
                return call()
            except StorageError as error:
                if repeated and find is not None and isinstance(error, doubted) and not error.transient:
                    found = find()
                    if found is not None:
                        return found
                self._wait_or_raise(error, pauses, reading=False)
                repeated = True

    def find_stored(
        self, key: str, sent: Iterable[Checksum], metadata: Mapping[str, str], *, new: bool
    ) -> ObjectMetadata | None:
        """The object, when it holds what was sent; None when it does not.

        StoreUnavailableError when it was to be `new` and is empty: then two who wanted to be the first cannot be told
        apart, and neither may believe that it is.
        """
        try:
            with self.get(key) as content:
                present = content.metadata
                parts = list(sent)
                same_size = present.content_length == sum(part.size for part in parts)
                # Most stores know no case in names.
                given = {name.lower(): value for name, value in metadata.items()}
                kept = all(given.get(name.lower()) == value for name, value in (present.metadata or {}).items())
                if not same_size or not kept or not matches(content, parts):
                    return None
        except NotFoundError:
            return None
        if new and not present.content_length:
            message = "the store did not say whether it was us who created this empty object"
            raise StoreUnavailableError(message, store=self.profile, key=key)
        return present

    def _find_claimed(self, key: str, claim: str) -> ObjectMetadata | None:
        """The object, when it is the empty one that bears this claim."""
        try:
            present = self.head(key)
        except NotFoundError:
            return None
        return present if not present.content_length and (present.metadata or {}).get(CLAIM_KEY) == claim else None

    def _pauses(self) -> Iterator[float]:
        pause = self._retry.delay
        for _ in range(self._retry.attempts - 1):
            pause = min(pause, _LONGEST_PAUSE)
            yield pause * random.uniform(0.5, 1)  # noqa: S311 - chance that spreads load, not a secret
            pause *= self._retry.backoff_multiplier

    def _wait_or_raise(self, error: StorageError, pauses: Iterator[float], *, reading: bool) -> None:
        """Called while `error` is handled."""
        if not error.transient or isinstance(error, StoreMissingError):
            raise error
        if reading and (not self._retry_reads or isinstance(error, StoreTimeoutError)):
            raise error
        pause = next(pauses, None)
        if pause is None:
            raise error
        logger.debug("trying again in %.1f s: %s", pause, error)
        self._sleep(pause)


class _RetryingReader(ObjectReader):
    """An answer that is asked for again, in the same version, when it fails before its first bytes.

    Later failures are the reader's: it may know another store to go on with.
    """

    def __init__(self, provider: RetryingProvider, key: str, answer: ObjectReader) -> None:
        super().__init__(answer.metadata, answer.byte_range, source=answer.source)
        self._provider = provider
        self._key = key
        self._answer: ObjectReader | None = answer

    def _pieces(self) -> Iterator[bytes | memoryview]:
        first, rest = self._provider.read(self._begin)
        if first is not None:
            yield first
            yield from rest

    def close(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.close()

    def _begin(self) -> tuple[bytes | memoryview | None, Iterator[bytes | memoryview]]:
        if self._answer is None:
            self._answer = self._provider.inner.get(self._key, self.byte_range, expected=self.metadata.version)
        try:
            return _begin(iter(self._answer))
        except StorageError:
            self.close()
            raise


class _RetryingUpload(MultipartUpload):
    def __init__(
        self, provider: RetryingProvider, upload: MultipartUpload, key: str, metadata: Mapping[str, str]
    ) -> None:
        self._provider = provider
        self._upload = upload
        self._key = key
        self._metadata = metadata
        self.token = upload.token
        self._sent: dict[int, Callable[[], Checksum]] = {}

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        checksum = Checksum.of([data])
        self._sent[number] = lambda: checksum
        self._provider.change(lambda: self._upload.put_part(number, data))

    def put_slice(self, number: int, path: Path, part: ByteRange) -> None:
        # The file is read again in the rare case that somebody asks what was sent.
        self._sent[number] = lambda: Checksum.of(read_slice(path, part, store=self._provider.profile, key=self._key))
        self._provider.change(lambda: self._upload.put_slice(number, path, part))

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        def find() -> ObjectMetadata | None:
            sent = [self._sent[number]() for number in sorted(self._sent)]
            found = self._provider.find_stored(self._key, sent, self._metadata, new=if_absent)
            if found is not None:
                self._clean_up()
            return found

        # Of an upload that is complete a store says that it knows none: any error but a passing one is doubtful.
        return self._provider.change(
            lambda: self._upload.complete(if_absent=if_absent, expected=expected), find, doubted=(StorageError,)
        )

    def abort(self) -> None:
        self._provider.change(self._upload.abort)

    def _clean_up(self) -> None:
        """The object is there, and nobody will ask again for what the upload that failed may have left."""
        try:
            self.abort()
        except StorageError as error:
            logger.warning("%s: parts of %s stay behind: %s", self._provider.profile, self._key, error.message)


def _begin(items: Iterator[Answer]) -> tuple[Answer | None, Iterator[Answer]]:
    """The first item, asked for now, and the others."""
    return next(items, None), items
