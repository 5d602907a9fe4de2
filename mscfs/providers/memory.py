"""A store in the memory of this process: for tests, examples and as a model of the interface."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mscfs.config.values import ProviderConfig
from mscfs.errors import AlreadyExistsError, DirectoryNotEmptyError, NotFoundError, VersionMismatchError
from mscfs.providers.base import Capabilities, MultipartUpload, ObjectReader, Source, StorageProvider
from mscfs.providers.keys import check_directory_key, check_object_key, symlink_metadata, with_symlink
from mscfs.providers.sources import read_pieces
from mscfs.types import ByteRange, ObjectMetadata, Version, from_ns

_PAGE = 1000
_PIECE = 1 << 20
_LOCK = threading.Lock()
# A fork while another thread holds the lock must not leave it locked in the child for ever.
os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


@dataclass(frozen=True, slots=True)
class _Object:
    body: bytes
    metadata: ObjectMetadata


@dataclass(slots=True)
class _Space:
    """The objects of one `base_path`; touched only while `_LOCK` is held."""

    objects: dict[str, _Object] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    """Sorted. The order of code points is the order of UTF-8 bytes."""

    def store(self, item: _Object) -> None:
        key = item.metadata.key
        if key not in self.objects:
            insort(self.keys, key)
        self.objects[key] = item

    def remove(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def page(self, prefix: str, start_after: str) -> list[ObjectMetadata]:
        first = bisect_left(self.keys, prefix)
        if start_after >= prefix:
            first = bisect_right(self.keys, start_after)
        page = self.keys[first : first + _PAGE]
        return [self.objects[key].metadata for key in page if key.startswith(prefix)]


_SPACES: dict[str, _Space] = {}


class MemoryProvider(StorageProvider):
    """Objects in memory, shared by all providers of the same `base_path` in this process.

    After a fork parent and child go on with copies of their own.
    """

    capabilities = Capabilities()

    def __init__(
        self,
        *,
        profile: str = "memory",
        options: Mapping[str, Any] | None = None,
        credentials: ProviderConfig | None = None,
    ) -> None:
        name = str((options or {}).get("base_path", ""))
        self.profile = profile
        self.identity = f"memory://{name}"
        with _LOCK:
            self._space = _SPACES.setdefault(name, _Space())

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        found = self._find(key)
        if expected is not None and found.metadata.version != expected:
            raise VersionMismatchError("the object has changed", store=self.profile, key=key)
        size = len(found.body)
        return _MemoryReader(found, (byte_range or ByteRange(0, size)).clip(size), self.profile)

    def head(self, key: str) -> ObjectMetadata:
        return self._find(key).metadata

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
        check_object_key(key, store=self.profile)
        body = b"".join(read_pieces(source, store=self.profile, key=key))
        return self._store(key, body, metadata, content_type, if_absent=if_absent, expected=expected)

    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        check_object_key(key, store=self.profile)
        return _MemoryUpload(self, key, metadata, content_type)

    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        check_object_key(target, store=self.profile)
        found = self._find(source)
        if expected is not None and found.metadata.version != expected:
            raise VersionMismatchError("the object has changed", store=self.profile, key=source)
        described = found.metadata
        kept = described.metadata if metadata is None else metadata
        return self._store(target, found.body, kept, described.content_type, if_absent=if_absent)

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        with _LOCK:
            found = self._space.objects.get(key)
            if found and expected is not None and found.metadata.version != expected:
                raise VersionMismatchError("the object has changed", store=self.profile, key=key)
            self._space.remove(key)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        while True:
            with _LOCK:
                page = self._space.page(prefix, start_after)
            if not page:
                return
            yield from page
            start_after = page[-1].key

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        start_after = directory
        while page := self._page(directory, start_after):
            entry = page[0]
            name, slash, _ = entry.key[len(directory) :].partition("/")
            if slash:
                below = directory + name + slash
                yield ObjectMetadata(below, 0, entry.last_modified, type="directory")
                # No key sorts between everything below a directory and this.
                start_after = below + "\U0010ffff"
            else:
                yield entry
                start_after = entry.key

    def has_directory(self, directory: str) -> bool:
        return bool(self._page(directory, ""))

    def head_marker(self, directory: str) -> ObjectMetadata:
        with _LOCK:
            found = self._space.objects.get(directory)
        if found is None:
            raise NotFoundError("no such marker", store=self.profile, key=directory)
        return found.metadata

    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        check_directory_key(directory, store=self.profile)
        self._store(directory, b"", metadata, None)

    def remove_directory(self, directory: str) -> None:
        with _LOCK:
            if self._space.page(directory, directory):
                raise DirectoryNotEmptyError("the directory is not empty", store=self.profile, key=directory)
            self._space.remove(directory)

    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        while True:
            found = self._find(key)
            content_type = found.metadata.content_type
            try:
                return self._store(key, found.body, metadata, content_type, expected=expected or found.metadata.version)
            except VersionMismatchError:
                if expected is not None:
                    raise  # else somebody was faster: his object gets the metadata

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        return self.put(key, b"", metadata=symlink_metadata(target))

    def probe(self) -> None:
        """Memory is always there."""

    def _page(self, prefix: str, start_after: str) -> Sequence[ObjectMetadata]:
        with _LOCK:
            return self._space.page(prefix, start_after)

    def _find(self, key: str) -> _Object:
        with _LOCK:
            found = self._space.objects.get(key)
        if found is None or found.metadata.is_directory:
            raise NotFoundError("no such object", store=self.profile, key=key)
        return found

    def _store(
        self,
        key: str,
        body: bytes,
        metadata: Mapping[str, str] | None,
        content_type: str | None,
        *,
        if_absent: bool = False,
        expected: Version | None = None,
    ) -> ObjectMetadata:
        now = time.time_ns()
        described = ObjectMetadata(
            key,
            len(body),
            from_ns(now),
            tag=os.urandom(8).hex(),
            type="directory" if key.endswith("/") else "file",
            content_type=content_type,
            metadata=dict(metadata or {}),
            content_hash=f"md5:{hashlib.md5(body, usedforsecurity=False).hexdigest()}",
            modified_ns=now,
        )
        described = with_symlink(described)
        with _LOCK:
            found = self._space.objects.get(key)
            if if_absent and found:
                raise AlreadyExistsError("the object exists", store=self.profile, key=key)
            if expected is not None and (found is None or found.metadata.version != expected):
                raise VersionMismatchError("the object has changed", store=self.profile, key=key)
            self._space.store(_Object(body, described))
        return described


class _MemoryReader(ObjectReader):
    def __init__(self, found: _Object, byte_range: ByteRange, source: str) -> None:
        super().__init__(found.metadata, byte_range, source=source)
        self._body = found.body

    def _pieces(self) -> Iterator[bytes | memoryview]:
        view = memoryview(self._body)[self.byte_range.offset : self.byte_range.end]
        for at in range(0, len(view), _PIECE):
            yield view[at : at + _PIECE]


class _MemoryUpload(MultipartUpload):
    def __init__(
        self, provider: MemoryProvider, key: str, metadata: Mapping[str, str] | None, content_type: str | None
    ) -> None:
        self._provider = provider
        self._key = key
        self._metadata = metadata
        self._content_type = content_type
        self._parts: dict[int, bytes] = {}

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        self._parts[number] = bytes(data)

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        return self._provider.put(
            self._key,
            b"".join(self._parts[number] for number in sorted(self._parts)),
            metadata=self._metadata,
            content_type=self._content_type,
            if_absent=if_absent,
            expected=expected,
        )

    def abort(self) -> None:
        self._parts.clear()
