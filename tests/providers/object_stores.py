"""What the tests of several object stores share."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from mscfs.errors import StoreUnavailableError
from mscfs.providers.base import ObjectReader, StorageProvider
from mscfs.types import ByteRange, ObjectMetadata, from_ns

MIB = 1 << 20

CALLS: dict[str, Callable[[StorageProvider], object]] = {
    "get": lambda store: store.get("k").read_all(),
    "get nothing": lambda store: store.get("k", ByteRange(0, 0)).read_all(),
    "head": lambda store: store.head("k"),
    "put": lambda store: store.put("k", b"1"),
    "put large": lambda store: store.put("k", bytes(9 * MIB)),
    "put a part": lambda store: store.start_upload("k").put_part(1, b"1"),
    "complete": lambda store: store.start_upload("k").complete(),
    "copy": lambda store: store.copy("k", "l"),
    "delete": lambda store: store.delete("k"),
    "list": lambda store: list(store.list()),
    "list_directory": lambda store: list(store.list_directory("")),
    "has_directory": lambda store: store.has_directory("d/"),
    "make_directory": lambda store: store.make_directory("d/"),
    "remove_directory": lambda store: store.remove_directory("d/"),
    "set_metadata": lambda store: store.set_metadata("k", {}),
    "probe": lambda store: store.probe(),
}
"""Every call that needs the store."""


def read_into(got: bytearray, store: StorageProvider, key: str) -> None:
    """Read an object; what arrived before a failure is in `got`."""
    with store.get(key) as answer:
        for piece in answer:
            got += piece


def frees_what_it_closes(make: Callable[[], Any]) -> bool:
    """Whether nothing of a provider that was used and closed stays in memory, once nobody refers to it."""
    provider = make()
    provider.put("k", b"1")
    assert provider.get("k").read_all() == b"1"
    provider.close()
    native = weakref.ref(provider._native)
    del provider
    gc.collect()
    return native() is None


class LongReader(ObjectReader):
    """Another store's long answer, made up while it is read."""

    def __init__(self, size: int, *, fails_after: int | None = None) -> None:
        super().__init__(ObjectMetadata("source", size, from_ns(0)), ByteRange(0, size), source="elsewhere")
        self._fails_after = fails_after

    def _pieces(self) -> Iterator[bytes]:
        for at in range(0, self.byte_range.size, MIB):
            if self._fails_after is not None and at >= self._fails_after:
                raise StoreUnavailableError("connection lost")
            yield bytes(MIB)
