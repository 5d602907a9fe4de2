"""A store that fails, stalls, truncates and watches as a test tells it: a wrapper around any other provider."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from mscfs.errors import StorageError, StoreUnavailableError
from mscfs.providers.base import MultipartUpload, ObjectReader, Source, Space, StorageProvider
from mscfs.types import ByteRange, ObjectMetadata, Version

Failure = StorageError | Callable[[str], object]
"""An error to raise, or something to call with the key (it may raise, wait or change a store)."""


class Clock:
    """A clock that stands still until a test moves it. Seconds."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Script:
    """Every step of every store that shares the script, in order; `actions` are called at the steps of that number.

    A run without actions counts the steps; a test can then repeat it with something happening at each of them.
    """

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    """(profile, what, key): `head` begins and `head.` ends a call, `get+` delivers a piece."""
    actions: dict[int, Callable[[], object]] = field(default_factory=dict)

    def step(self, profile: str, what: str, key: str) -> None:
        number = len(self.steps)
        self.steps.append((profile, what, key))
        if number in self.actions:
            self.actions[number]()


@dataclass
class _Rule:
    method: str
    failure: Failure
    key: str | None
    at: int | None
    times: int | None

    def meet(self, method: str, key: str, at: int | None = None) -> None:
        """Raise or call if the rule is about this."""
        if self.method not in {method, "*"} or self.key not in {None, key} or self.at != at or self.times == 0:
            return
        if self.times is not None:
            self.times -= 1
        if isinstance(self.failure, StorageError):
            raise self.failure
        self.failure(key)


class Scripted(StorageProvider):
    """See the module. `calls` are (method, key) in order; `served` counts the bytes that answers delivered."""

    def __init__(
        self, inner: StorageProvider, *, script: Script | None = None, piece: int = 1 << 20, tells_hashes: bool = True
    ) -> None:
        self.inner = inner
        self.profile = inner.profile
        self.identity = inner.identity
        self.capabilities = inner.capabilities
        self.script = script or Script()
        self.piece = piece
        self.tells_hashes = tells_hashes
        self.tells_metadata_with_get = True
        self.truncated_at: int | None = None
        """Answers to `get` end at this offset of the object, as if that were all."""
        self.excess = b""
        """Answers to `get` deliver this behind the last byte."""
        self.calls: list[tuple[str, str]] = []
        self.ranges: list[ByteRange] = []
        self.closed_answers = 0
        self.served = 0
        self._rules: list[_Rule] = []

    # -- what a test says -----------------------------------------------------------------------------------------

    def on(
        self, method: str, failure: Failure, *, key: str | None = None, at: int | None = None, times: int | None = None
    ) -> None:
        """Let `failure` happen when `method` (`*`: any) begins, or when `get` is to deliver the byte at offset `at`."""
        self._rules.append(_Rule(method, failure, key, at, times))

    def go_down(self, error: StorageError | None = None) -> None:
        """Fail every call from now on."""
        self.on("*", error or StoreUnavailableError("connection refused", store=self.profile))

    def recover(self) -> None:
        """Forget all failures."""
        self._rules.clear()
        self.truncated_at = None
        self.excess = b""

    def called(self, *methods: str) -> int:
        """How often these methods were called."""
        return sum(method in methods for method, _ in self.calls)

    # -- the provider ---------------------------------------------------------------------------------------------

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        self._begin("get", key)
        answer = self.inner.get(key, byte_range, expected=expected)
        self.ranges.append(answer.byte_range)
        metadata = self._told(answer.metadata)
        self._end("get", key)
        return _ScriptedReader(
            self, answer, metadata if self.tells_metadata_with_get else replace(metadata, metadata=None)
        )

    def head(self, key: str) -> ObjectMetadata:
        self._begin("head", key)
        found = self._told(self.inner.head(key))
        self._end("head", key)
        return found

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
        self._begin("put", key)
        written = self.inner.put(
            key, source, metadata=metadata, content_type=content_type, if_absent=if_absent, expected=expected
        )
        self._end("put", key)
        return self._told(written)

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        self._begin("start_upload", key)
        return ScriptedUpload(self, key, self.inner.start_upload(key, metadata=metadata, content_type=content_type))

    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        self._begin("copy", source)
        written = self.inner.copy(source, target, metadata=metadata, expected=expected, if_absent=if_absent)
        self._end("copy", source)
        return self._told(written)

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        self._begin("delete", key)
        self.inner.delete(key, expected=expected)
        self._end("delete", key)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        self._begin("list", prefix)
        return self._listed(prefix, self.inner.list(prefix, start_after=start_after))

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        self._begin("list_directory", directory)
        return self._listed(directory, self.inner.list_directory(directory))

    def has_directory(self, directory: str) -> bool:
        self._begin("has_directory", directory)
        return self.inner.has_directory(directory)

    def head_marker(self, directory: str) -> ObjectMetadata:
        self._begin("head_marker", directory)
        return self.inner.head_marker(directory)

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        self._begin("make_directory", directory)
        self.inner.make_directory(directory, metadata=metadata)
        self._end("make_directory", directory)

    def remove_directory(self, directory: str) -> None:
        self._begin("remove_directory", directory)
        self.inner.remove_directory(directory)
        self._end("remove_directory", directory)

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        self._begin("set_metadata", key)
        return self._told(self.inner.set_metadata(key, metadata, expected=expected))

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        self._begin("make_symlink", key)
        return self._told(self.inner.make_symlink(key, target))

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
        self._begin("set_posix_attributes", key)
        return self._told(
            self.inner.set_posix_attributes(
                key, mode=mode, uid=uid, gid=gid, modified_ns=modified_ns, expected=expected
            )
        )

    def xattrs(self, key: str) -> Mapping[str, bytes]:
        self._begin("xattrs", key)
        return self.inner.xattrs(key)

    def set_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        self._begin("set_xattrs", key)
        self.inner.set_xattrs(key, xattrs)

    def check_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        self._begin("check_xattrs", key)
        self.inner.check_xattrs(key, xattrs)

    def probe(self) -> None:
        self._begin("probe", "")
        self.inner.probe()

    def space(self) -> Space | None:
        self._begin("space", "")
        return self.inner.space()

    def close(self) -> None:
        self.inner.close()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _begin(self, method: str, key: str) -> None:
        self.calls.append((method, key))
        self.script.step(self.profile, method, key)
        self._meet(method, key)

    def _end(self, method: str, key: str) -> None:
        self.script.step(self.profile, f"{method}.", key)

    def _meet(self, method: str, key: str, at: int | None = None) -> None:
        for rule in list(self._rules):
            rule.meet(method, key, at)

    def _told(self, metadata: ObjectMetadata) -> ObjectMetadata:
        return metadata if self.tells_hashes else replace(metadata, content_hash="")

    def _listed(self, where: str, entries: Iterator[ObjectMetadata]) -> Iterator[ObjectMetadata]:
        """As real stores do it: a listing carries no user metadata."""
        for number, entry in enumerate(entries):
            self._meet("entry", where, number)
            yield replace(self._told(entry), metadata=None)

    def deliver(self, key: str, offset: int, data: bytes | memoryview) -> Iterator[bytes | memoryview]:
        """The bytes from `offset`, in pieces that end where a rule wants something to happen."""
        stops = {rule.at for rule in self._rules if rule.method in {"get", "*"} and rule.at is not None}
        at, end = offset, offset + len(data)
        if self.truncated_at is not None:
            end = min(end, self.truncated_at)
        while at < end:
            self._meet("get", key, at)
            upto = min([end, at + self.piece, *(stop for stop in stops if stop > at)])
            self.script.step(self.profile, "get+", key)
            self.served += upto - at
            yield data[at - offset : upto - offset]
            at = upto
        self._meet("get", key, end)
        if self.excess:
            yield self.excess


class _ScriptedReader(ObjectReader):
    def __init__(self, store: Scripted, answer: ObjectReader, metadata: ObjectMetadata) -> None:
        super().__init__(metadata, answer.byte_range, source=answer.source)
        self._store = store
        self._answer = answer

    def _pieces(self) -> Iterator[bytes | memoryview]:
        offset = self.byte_range.offset
        for data in self._answer:
            yield from self._store.deliver(self.metadata.key, offset, data)
            offset += len(data)
        if not self.byte_range.size:
            yield from self._store.deliver(self.metadata.key, offset, b"")

    def close(self) -> None:
        self._store.closed_answers += 1
        self._answer.close()


class ScriptedUpload(MultipartUpload):
    """An upload in parts to a scripted store, which may fail after it began."""

    def __init__(self, store: Scripted, key: str, inner: MultipartUpload) -> None:
        self._store = store
        self._key = key
        self._inner = inner
        self.token = inner.token

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        self._store._meet("put_part", self._key)
        self._inner.put_part(number, data)

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        self._store._meet("complete", self._key)
        return self._inner.complete(if_absent=if_absent, expected=expected)

    def abort(self) -> None:
        self._store._meet("abort", self._key)
        self._inner.abort()
