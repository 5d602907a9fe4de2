"""Reading what is to be put: piece by piece, or cut into the parts of an upload."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from mscfs.errors import IntegrityError, StorageError, from_oserror
from mscfs.providers.base import ObjectReader, Source, StorageProvider, source_size
from mscfs.providers.slices import FileSlice
from mscfs.types import ByteRange, ObjectMetadata

PIECE_SIZE = 1 << 20


@contextmanager
def open_local(path: Path, *, store: str, key: str) -> Iterator[tuple[BinaryIO, int]]:
    """A local file and its size; its errors become a StorageError that names the file."""
    try:
        with path.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except StorageError:
        raise
    except OSError as error:
        kind = type(from_oserror(error))
        raise kind(f"local file {path}: {error.strerror or error}", store=store, key=key) from error


def local_size(source: Source, *, store: str, key: str) -> int:
    """`source_size`, with the errors of a local file as `open_local` has them."""
    if not isinstance(source, Path):
        return source_size(source)
    with open_local(source, store=store, key=key) as (_, size):
        return size


def in_memory(source: Source, limit: int, *, store: str, key: str) -> Source:
    """The bytes of a source that has at most `limit` of them; a longer one as it is."""
    if local_size(source, store=store, key=key) > limit or isinstance(source, bytes | memoryview):
        return source
    return b"".join(read_pieces(source, store=store, key=key))


def read_pieces(source: Source, *, store: str, key: str) -> Iterator[bytes | memoryview]:
    """The bytes of a source in order, in pieces of about a MiB where it is a file.

    IntegrityError when the source ends early; a file that grows meanwhile counts with its size at the start.
    """
    if isinstance(source, ObjectReader):
        yield from source
    elif isinstance(source, Path):
        with open_local(source, store=store, key=key) as (file, size):
            missing = size
            while missing:
                piece = file.read(min(missing, PIECE_SIZE))
                if not piece:
                    raise IntegrityError(f"local file {source} shrank while it was read", store=store, key=key)
                missing -= len(piece)
                yield piece
    else:
        yield source


def holds_file(store: StorageProvider, present: ObjectMetadata, path: Path) -> bool:
    """Whether an object holds exactly the bytes of a local file: an attempt before put them there."""
    if present.content_length != path.stat().st_size:
        return False
    with store.get(present.key, expected=present.version) as content, path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in content)


def read_slice(path: Path, part: ByteRange, *, store: str, key: str) -> Iterator[bytes]:
    """A part of a local file, in pieces; IntegrityError when the file is shorter."""
    with open_local(path, store=store, key=key) as (file, _):
        content = FileSlice(file.fileno(), part)
        while piece := content.read(PIECE_SIZE):
            yield piece


def read_parts(source: Source, part_size: int, *, store: str, key: str) -> Iterator[bytes | memoryview]:
    """The bytes of a source cut into parts of `part_size`; only the last is shorter.

    One part is in memory at a time. An empty source gives no part.
    """
    if isinstance(source, bytes | memoryview):
        view = memoryview(source)
        yield from (view[at : at + part_size] for at in range(0, len(view), part_size))
        return
    gathered = bytearray()
    for piece in read_pieces(source, store=store, key=key):
        gathered += piece
        while len(gathered) >= part_size:
            yield bytes(memoryview(gathered)[:part_size])
            del gathered[:part_size]
    if gathered:
        yield bytes(gathered)
