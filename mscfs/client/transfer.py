"""Moving whole objects: to a local file, from one, and from one profile to another."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from mscfs.client.attributes import without_own
from mscfs.client.retry import while_replaced
from mscfs.providers.base import ObjectReader, StorageProvider
from mscfs.types import ByteRange, ObjectMetadata

PARALLEL_FROM = 64 << 20
"""What lies behind this offset is downloaded as several ranges at once. Bytes."""
RANGE_SIZE = 16 << 20
PARALLEL_RANGES = 8

OnBytes = Callable[[int], object]
"""Told how many more bytes are there, from any thread. A download that begins again takes them back: negative."""


def download(store: StorageProvider, key: str, target: Path, *, on_bytes: OnBytes | None = None) -> ObjectMetadata:
    """Fetch an object to a local path, which has the old content or the whole new one and never a part.

    Missing directories are made. A target that is a device or a pipe is written to. When the object is replaced
    meanwhile, the download begins again. A crash leaves a hidden temporary file beside the target.
    """
    target = Path(os.path.realpath(target))
    if target.exists() and not target.is_file():
        with target.open("wb", buffering=0) as device:
            return download_into(store, key, device, on_bytes=on_bytes)
    target.parent.mkdir(parents=True, exist_ok=True)
    return while_replaced(lambda: _download_beside(store, key, target, on_bytes or _nobody_counts))


def download_into(
    store: StorageProvider,
    key: str,
    target: IO[bytes],
    *,
    byte_range: ByteRange | None = None,
    on_bytes: OnBytes | None = None,
) -> ObjectMetadata:
    """Write an object's bytes, in order, to an open file. What was written when it fails stays written."""
    with while_replaced(lambda: store.get(key, byte_range)) as answer:
        for piece in answer:
            target.write(piece)
            if on_bytes:
                on_bytes(len(piece))
        return answer.metadata


def upload(
    store: StorageProvider, key: str, source: Path | IO[bytes], *, metadata: Mapping[str, str] | None = None
) -> ObjectMetadata:
    """Store a local file, or what an open binary file delivers, as one object."""
    if isinstance(source, Path) and source.is_file():
        return store.put(key, source, metadata=metadata)
    # A pipe has no size and can be read once; a store wants to know the size, and may have to read twice.
    with ExitStack() as opened:
        stream = opened.enter_context(source.open("rb")) if isinstance(source, Path) else source
        content = opened.enter_context(tempfile.TemporaryFile())
        shutil.copyfileobj(stream, content, 1 << 20)
        content.flush()
        return store.put(key, Path(f"/proc/self/fd/{content.fileno()}"), metadata=metadata)


def copy_between(source: StorageProvider, key: str, target: StorageProvider, target_key: str) -> ObjectMetadata:
    """Copy an object to another store, streamed, with its user metadata and its content type."""

    def copy() -> ObjectMetadata:
        with source.get(key) as answer:
            found = without_own(answer.metadata)
            if found.symlink_target is not None:
                return target.make_symlink(target_key, found.symlink_target)
            return target.put(target_key, answer, metadata=found.metadata, content_type=found.content_type)

    return while_replaced(copy)


def _download_beside(store: StorageProvider, key: str, target: Path, on_bytes: OnBytes) -> ObjectMetadata:
    counted = _Counter(on_bytes)
    try:
        with store.get(key, ByteRange(0, PARALLEL_FROM)) as first, _replacement(target) as descriptor:
            found = first.metadata
            if found.content_length <= PARALLEL_FROM:
                _write(first, descriptor, counted)
            else:
                _download_ranges(store, first, descriptor, counted)
    except BaseException:
        counted.take_back()
        raise
    return found


def _download_ranges(store: StorageProvider, first: ObjectReader, descriptor: int, counted: _Counter) -> None:
    found = first.metadata
    failed = threading.Event()

    def fetch(byte_range: ByteRange) -> None:
        if failed.is_set():
            return
        try:
            with store.get(found.key, byte_range, expected=found.version) as answer:
                _write(answer, descriptor, counted)
        except BaseException:
            failed.set()
            raise

    with ThreadPoolExecutor(PARALLEL_RANGES, thread_name_prefix="mscfs-download") as pool:
        offsets = range(PARALLEL_FROM, found.content_length, RANGE_SIZE)
        futures = [pool.submit(fetch, ByteRange(offset, RANGE_SIZE)) for offset in offsets]
        try:
            _write(first, descriptor, counted)
            for future in futures:
                future.result()
        except BaseException:
            failed.set()
            raise


def _write(answer: ObjectReader, descriptor: int, counted: _Counter) -> None:
    offset = answer.byte_range.offset
    for piece in answer:
        rest = memoryview(piece)
        while rest:
            written = os.pwrite(descriptor, rest, offset)
            rest = rest[written:]
            offset += written
        counted.add(len(piece))


@contextmanager
def _replacement(target: Path) -> Iterator[int]:
    """An open new file that takes the target's place at the end, unless an exception leaves the block."""
    fresh = target.with_name(f".mscfs-{secrets.token_hex(8)}")
    # Not by `tempfile`: its files are 0600 for ever, and this one should have the mode that the user's umask gives.
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        try:
            yield descriptor
        finally:
            os.close(descriptor)
        fresh.replace(target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


class _Counter:
    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._counted = 0

    def add(self, size: int) -> None:
        with self._lock:
            self._counted += size
            self._on_bytes(size)

    def take_back(self) -> None:
        self.add(-self._counted)


def _nobody_counts(_size: int) -> None:
    """Progress that nobody watches."""
