"""The native data plane: reads and small writes of the object stores through obstore.

The Rust client does a GET, HEAD or PUT for an eighth of the CPU time that the SDKs need, and outside the GIL
(`docs/adr/0001-obstore-is-the-data-plane.md`). `s3`, `gcs` and `azure` delegate here what `NativeClient` says it can
do, and keep their SDK for everything else: parts, copies, listings, keys the Rust client cannot express, and forked
children, in which an inherited Rust runtime hangs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from mscfs.config.values import MIB
from mscfs.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    IntegrityError,
    NotFoundError,
    StorageError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import ObjectReader, Source
from mscfs.providers.store_clock import StoreClock
from mscfs.types import ByteRange, ObjectMetadata, Version

PIECE = 256 << 10
"""Bytes handed on at once: few enough that they are still in the processor's cache when they are copied."""
LARGEST_PUT = MIB
"""Bytes. The read time-out runs while a body is sent, so a larger body on a slow line would be cut off."""

_ATTEMPTS = 10
_INEXPRESSIBLE = re.compile(r"[\x00-\x1f\x7f]|(^|/)\.{0,2}(/|$)")
"""Names that object_store's `Path` refuses or changes: control characters; empty, `.` and `..` as a segment."""

_HEADERS = {
    *("Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type"),
    *("Cache-Control", "Storage-Class"),
}
"""Attributes that are not user metadata, as obstore spells them in answers. It takes them in any case."""

_HEADERS_IN_LOWER_CASE = set(map(str.lower, _HEADERS))

_METADATA_NAME = re.compile(r"[A-Za-z0-9_-]+")
_METADATA_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")

_STATUS = re.compile(r"^ *status: (\d{3}),\n *body: (?:None|Some\(\n *\"(.*)\",\n *\)),$", re.MULTILINE)
_TIMEOUT = re.compile(r"^ *kind: Timeout,$", re.MULTILINE)
_CUT = re.compile(r"^ *error: IncompleteBody,$|^ *kind: UnexpectedEof,$", re.MULTILINE)
_DISTRUST = re.compile(r"^ *error: InvalidCertificate\($", re.MULTILINE)
_TRANSPORT = re.compile(r"HttpError \{$", re.MULTILINE)
_REDIRECT = re.compile(r"^ *inner: BareRedirect,$", re.MULTILINE)
_CALLBACK = re.compile(r"^ *source: PyErr \{$", re.MULTILINE)

FromStatus = Callable[[int, str], tuple[type[StorageError], str]]
"""What an HTTP status and the body of the answer mean, in the words of the store."""

Describe = Callable[[str, Mapping[str, Any], Mapping[str, str]], ObjectMetadata]
"""From a key (without prefix), obstore's `ObjectMeta` and its `Attributes`, an object's metadata."""

_runtime_process = 0
"""The process that obstore's only runtime belongs to. Its threads do not survive a fork: a call would never return."""


class NotUnderstoodError(StoreUnavailableError):
    """The store answered, and obstore could not make sense of it: the SDK may be able to."""


class _BehindTheEndError(IntegrityError):
    """Nothing of the object lies in the range (status 416)."""


class NativeClient:
    """One bucket or container, or what lies below `prefix` in it.

    `open_store` makes the obstore store on first use, from the callback it is to take credentials from; `credentials`
    is that callback, and raises StorageError. `pin` is the field of obstore's answers that holds a version's tag.
    Safe in threads; `serves` and `takes` are to be asked before any other method is called.
    """

    def __init__(
        self,
        *,
        profile: str,
        prefix: str,
        open_store: Callable[[Callable[[], Any] | None], Any],
        describe: Describe,
        from_status: FromStatus,
        credentials: Callable[[], Any] | None = None,
        pin: Literal["e_tag", "version"] = "e_tag",
    ) -> None:
        self._profile = profile
        self._prefix = prefix
        self._open_store = open_store
        self._describe = describe
        self._from_status = from_status
        self._credentials = credentials
        self._credentials_failure: StorageError | None = None
        self._pin = pin
        self._store: Any = None
        self._clock = StoreClock()

    def prepare(self) -> None:
        """Make the obstore store now instead of at the first call. Raises nothing."""
        with suppress(StorageError), self.errors(""):
            self._opened()

    def close(self) -> None:
        """Let go of the obstore store: it holds whoever gives it credentials, where no collector of Python's looks."""
        if _runtime_process == os.getpid():
            self._store = None

    def serves(self, key: str) -> bool:
        """Whether this process can use obstore, and obstore can name this key."""
        return _runtime_process in (0, os.getpid()) and not _INEXPRESSIBLE.search(self._prefix + key)

    def takes(self, key: str, source: Source, metadata: Mapping[str, str] | None) -> bool:
        """Whether `put` can store this."""
        return (
            isinstance(source, bytes | memoryview)
            and memoryview(source).nbytes <= LARGEST_PUT
            and self.serves(key)
            and all(map(_is_expressible, (metadata or {}).items()))
        )

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        """As `StorageProvider.get`, and NotUnderstoodError where the SDK should be asked instead."""
        for _ in range(_ATTEMPTS):
            if byte_range is None or byte_range.size:
                try:
                    return self._get(key, byte_range, expected)
                except _BehindTheEndError:
                    if byte_range is None:
                        raise
            described = self.head(key, expected=expected)
            # It may have been replaced by a longer one since.
            wanted = byte_range.clip(described.content_length)
            if not wanted.size:
                return _NativeReader(self, None, described, wanted)
        raise StoreUnavailableError("the object is replaced faster than it can be read", store=self._profile, key=key)

    def head(self, key: str, *, expected: Version | None = None) -> ObjectMetadata:
        """As `StorageProvider.head`, and NotUnderstoodError where the SDK should be asked instead.

        With `expected`, VersionMismatchError when it is another version.
        """
        result = self._request(key, {"head": True}, expected)
        return self._describe(key, result.meta, result.attributes)

    def put(
        self,
        key: str,
        body: bytes | memoryview,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        """As `StorageProvider.put`. Asks for the time of the new object only where the store's clock is not known."""
        import obstore  # noqa: PLC0415 - loaded when first used

        mode: Any = "create" if if_absent else "overwrite"
        if expected is not None:
            mode = {self._pin: self._pinned(expected)}
        attributes = {"Content-Type": content_type, **(metadata or {})}
        began = self._clock.monotonic()
        with self.errors(key, if_absent=if_absent, replacing=expected is not None):
            result = obstore.put(
                self._opened(), self._prefix + key, body, attributes=attributes, mode=mode, use_multipart=False
            )
        size, tag = memoryview(body).nbytes, (result[self._pin] or "").strip('"')
        moment = self._clock.now() if tag else None
        if moment is None:
            try:
                written = self.head(key, expected=Version(size, tag))
            except StorageError:
                # The object is stored, whoever replaced it or whatever failed since.
                moment = datetime.now(UTC)
            else:
                self._clock.learn(began, written.last_modified)
                return written
        meta = {"path": self._prefix + key, "size": size, "last_modified": moment, **result}
        return self._describe(key, meta, attributes)

    @contextmanager
    def errors(self, key: str, *, if_absent: bool = False, replacing: bool = False) -> Iterator[None]:
        """Turn what obstore raises into a StorageError that tells no secret.

        With `if_absent`, an unmet precondition means that the key exists; when `replacing`, so does a missing key.
        """
        try:
            yield
        except StorageError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            kind, message = self._translate(error)
            if if_absent and kind is VersionMismatchError:
                kind, message = AlreadyExistsError, "the object exists"
            if replacing and kind is NotFoundError:
                kind, message = VersionMismatchError, "the object has changed"
            raise kind(message, store=self._profile, key=key) from None

    def _get(self, key: str, byte_range: ByteRange | None, expected: Version | None) -> ObjectReader:
        options = {"range": (byte_range.offset, byte_range.end)} if byte_range else {}
        result = self._request(key, options, expected)
        begin, end = result.range
        described = self._describe(key, result.meta, result.attributes)
        return _NativeReader(self, result, described, ByteRange(begin, end - begin))

    def _request(self, key: str, options: Any, expected: Version | None) -> Any:
        import obstore  # noqa: PLC0415 - loaded when first used

        if expected is not None:
            options["if_match" if self._pin == "e_tag" else "version"] = self._pinned(expected)
        try:
            with self.errors(key):
                return obstore.get(self._opened(), self._prefix + key, options=options)
        except NotFoundError:
            if expected is None or self._pin == "e_tag":
                raise
            # There may be an object, but not this version of it.
            raise VersionMismatchError("the object has changed", store=self._profile, key=key) from None

    def _pinned(self, expected: Version) -> str:
        return f'"{expected.tag}"' if self._pin == "e_tag" else expected.tag

    def _opened(self) -> Any:
        global _runtime_process  # noqa: PLW0603 - obstore has one runtime for each process
        _runtime_process = _runtime_process or os.getpid()
        if self._store is None:
            self._store = self._open_store(self._fetch_credentials if self._credentials else None)
        return self._store

    def _fetch_credentials(self) -> Any:
        assert self._credentials is not None
        try:
            return self._credentials()
        except StorageError as error:
            # obstore tells only the text of it.
            self._credentials_failure = error
            raise

    def _translate(self, error: BaseException) -> tuple[type[StorageError], str]:
        # What follows is indented and one value a line; names and bodies in it are quoted and escaped.
        details = str(error).rpartition("\n\nDebug source:\n")[2]
        if told := _STATUS.search(details):
            status = int(told[1])
            if status == 416:
                return _BehindTheEndError, "nothing of the object lies in the range"
            return self._from_status(status, told[2] or "")
        if _REDIRECT.search(details):
            return self._from_status(301, "")
        if _TIMEOUT.search(details):
            return StoreTimeoutError, "no answer in time"
        if _CUT.search(details):
            return IntegrityError, "the answer ended early"
        if _CALLBACK.search(details):
            failure = self._credentials_failure
            return (type(failure), failure.message) if failure else (AccessDeniedError, "the credentials failed")
        if _DISTRUST.search(details):
            return StoreUnavailableError, "the store's certificate is not trusted"
        if _TRANSPORT.search(details):
            return StoreUnavailableError, "cannot be reached"
        return NotUnderstoodError, f"the native client failed ({type(error).__name__})"


class _NativeReader(ObjectReader):
    def __init__(self, client: NativeClient, result: Any, metadata: ObjectMetadata, byte_range: ByteRange) -> None:
        super().__init__(metadata, byte_range, source=client._profile)  # noqa: SLF001 - the two are one
        self._client = client
        self._result = result

    def _pieces(self) -> Iterator[bytes | memoryview]:
        result = self._result
        if result is None:
            return
        with self._client.errors(self.metadata.key):
            if self.byte_range.size <= PIECE:
                yield memoryview(result.bytes())
            else:
                yield from result.stream(min_chunk_size=PIECE)

    def close(self) -> None:
        self._result = None


def client_options(*, url: str, connect_timeout: float, read_timeout: float, **more: Any) -> dict[str, Any]:
    """What obstore takes as `client_options`: silence is bounded (in seconds), a whole transfer is not."""
    return {
        "allow_http": url.startswith("http://"),
        "connect_timeout": timedelta(seconds=connect_timeout),
        "read_timeout": timedelta(seconds=read_timeout),
        # The default of 30 s would cut every long transfer off.
        "timeout": timedelta(days=365),
        **more,
    }


def retry_config() -> dict[str, Any]:
    """What obstore takes as `retry_config`: none, as the retrying provider repeats calls."""
    return {"max_retries": 0, "retry_timeout": timedelta(0)}


def user_metadata(attributes: Mapping[str, str]) -> dict[str, str]:
    """The user metadata among obstore's attributes. Names have no case in HTTP: they are given in lower case."""
    return {name.lower(): value for name, value in attributes.items() if name not in _HEADERS}


def _is_expressible(item: tuple[str, str]) -> bool:
    """Whether a name and a value arrive as they are: obstore panics on some others and changes some."""
    name, value = item
    return (
        _METADATA_NAME.fullmatch(name) is not None
        and _METADATA_VALUE.fullmatch(value) is not None
        and name.lower() not in _HEADERS_IN_LOWER_CASE
    )
