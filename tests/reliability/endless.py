"""A store whose directory `many` has as many files as wanted, none of them on any disk; the rest is a directory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from mscfs.config.values import ProviderConfig
from mscfs.errors import NotFoundError, VersionMismatchError
from mscfs.providers.base import ObjectReader
from mscfs.providers.file import FileProvider
from mscfs.providers.page import FILE, Entry, Page, PageBuilder
from mscfs.types import ByteRange, ObjectMetadata, Version, from_ns

MANY = "many/"
SIZE = 1024
MODIFIED = 10**18
PAGE = 1000


def name_of(number: int) -> str:
    return f"file-{number:08}.bin"


def content_of(key: str) -> bytes:
    """What stands in a file of `many`."""
    return hashlib.sha256(key.encode()).digest() * 32


class EndlessProvider(FileProvider):
    """The option `count` says how many files there are."""

    def __init__(self, *, profile: str, options: Mapping[str, Any], credentials: ProviderConfig | None = None) -> None:
        self._count = int(options["count"])
        directory = {name: value for name, value in options.items() if name != "count"}
        super().__init__(profile=profile, options=directory, credentials=credentials)

    def head(self, key: str) -> ObjectMetadata:
        return self._described(key) if key.startswith(MANY) else super().head(key)

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> Any:
        if not key.startswith(MANY):
            return super().get(key, byte_range, expected=expected)
        described = self._described(key)
        if expected is not None and expected != described.version:
            raise VersionMismatchError("the object has changed", store=self.profile, key=key)
        size = described.content_length
        return _Answer(described, (byte_range or ByteRange(0, size)).clip(size), source=self.profile)

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        if directory != MANY:
            return super().list_directory(directory)
        return (self._described(MANY + name_of(number)) for number in range(self._count))

    def list_pages(self, directory: str = "") -> Iterator[Page]:
        return self._pages() if directory == MANY else super().list_pages(directory)

    def _pages(self) -> Iterator[Page]:
        for first in range(0, self._count, PAGE):
            builder = PageBuilder()
            for number in range(first, min(first + PAGE, self._count)):
                builder.add(Entry(name_of(number).encode(), FILE, SIZE, MODIFIED, b"1", None))
            yield builder.build()

    def _described(self, key: str) -> ObjectMetadata:
        number = key.removeprefix(MANY).removeprefix("file-").removesuffix(".bin")
        if not number.isdecimal() or int(number) >= self._count or key != MANY + name_of(int(number)):
            raise NotFoundError("no such object", store=self.profile, key=key)
        return ObjectMetadata(key, SIZE, from_ns(MODIFIED), tag="1", modified_ns=MODIFIED, metadata={})


class _Answer(ObjectReader):
    def _pieces(self) -> Iterator[bytes]:
        yield content_of(self.metadata.key)[self.byte_range.offset : self.byte_range.end]
