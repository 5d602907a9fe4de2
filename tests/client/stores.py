"""Stores in memory that fail, stall and watch as a test tells them."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from mscfs.errors import StorageError, StoreUnavailableError
from mscfs.providers.base import ObjectReader, Source
from mscfs.providers.memory import MemoryProvider
from mscfs.types import ByteRange, ObjectMetadata, Version

_numbers = itertools.count()


class Store(MemoryProvider):
    """A memory store. `down` is raised by everything; `before[method]` is called first, with the key."""

    def __init__(self, profile: str) -> None:
        super().__init__(profile=profile, options={"base_path": f"{profile}-{next(_numbers)}"})
        self.down: StorageError | None = None
        self.before: dict[str, Callable[[str], object]] = {}
        self.break_after: int | None = None
        """Answers to `get` break off after so many bytes."""
        self.calls: Counter[str] = Counter()
        self.bytes_served = 0

    def fail(self) -> None:
        self.down = StoreUnavailableError("unreachable", store=self.profile)

    def content(self, key: str) -> bytes:
        """What it holds, whatever state it is in."""
        return self._find(key).body

    def keys(self) -> list[str]:
        return list(self._space.keys)

    def stamp(self, key: str) -> Version | None:
        return self._find(key).metadata.stamped_version

    def _enter(self, method: str, key: str) -> None:
        self.calls[method] += 1
        if method in self.before:
            self.before[method](key)
        if self.down is not None:
            raise self.down

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        self._enter("get", key)
        return _Reader(super().get(key, byte_range, expected=expected), self)

    def head(self, key: str) -> ObjectMetadata:
        self._enter("head", key)
        return super().head(key)

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
        self._enter("put", key)
        return super().put(
            key, source, metadata=metadata, content_type=content_type, if_absent=if_absent, expected=expected
        )

    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        self._enter("copy", source)
        return super().copy(source, target, metadata=metadata, expected=expected, if_absent=if_absent)

    def delete(self, key: str, *, expected: Version | None = None) -> None:
        self._enter("delete", key)
        super().delete(key, expected=expected)

    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        self._enter("list", prefix)
        for entry in super().list(prefix, start_after=start_after):
            if "entry" in self.before:
                self.before["entry"](entry.key)
            # As with real stores, a listing does not tell of which version a copy is.
            yield replace(entry, metadata=None, content_hash="")

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        self._enter("list_directory", directory)
        yield from super().list_directory(directory)

    def has_directory(self, directory: str) -> bool:
        self._enter("has_directory", directory)
        return super().has_directory(directory)


class _Reader(ObjectReader):
    def __init__(self, answer: ObjectReader, store: Store) -> None:
        super().__init__(answer.metadata, answer.byte_range, source=answer.source)
        self._answer = answer
        self._store = store

    def _pieces(self) -> Iterator[bytes | memoryview]:
        served = 0
        for piece in self._answer:
            limit = self._store.break_after
            if limit is not None and served + len(piece) > limit:
                yield piece[: limit - served]
                raise StoreUnavailableError("connection lost", store=self._store.profile)
            served += len(piece)
            self._store.bytes_served += len(piece)
            yield piece


class Gate:
    """Holds whoever passes until it is opened; tells when somebody is there."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def __call__(self, *_: object) -> None:
        self._reached.set()
        assert self._open.wait(30), "nobody opened the gate"

    def wait_reached(self) -> None:
        assert self._reached.wait(30), "nobody came to the gate"

    def open(self) -> None:
        self._open.set()
