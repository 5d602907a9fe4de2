"""File objects: what `open()` gives.

Reading fetches ranges as they are needed, all of the version that was current at `open()`. Writing goes to a private
temporary file that nobody else sees; `close()` puts it to the store as a whole, so a program that dies, or leaves its
`with` block by an exception, publishes nothing.
"""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from mscfs.client.retry import while_replaced
from mscfs.errors import NotFoundError, VersionMismatchError
from mscfs.providers.base import ObjectReader, StorageProvider
from mscfs.types import ByteRange, Version

if TYPE_CHECKING:
    from typing_extensions import Buffer

SMALLEST_FETCH = 128 << 10
LARGEST_FETCH = 8 << 20
"""Bytes of one request: doubled while a file is read in sequence, small again after a jump."""

SENT_FROM_MEMORY = 8 << 20
"""A written file up to this size is handed to the store as bytes, a larger one as a path."""

logger = logging.getLogger(__name__)

OpenStore = Callable[[], StorageProvider]
"""Gives the store of the present process: a file opened before a fork is read with the child's own connections."""


class ObjectReadFile(io.RawIOBase):
    """The raw bytes of one version of an object, fetched in ranges.

    A read raises VersionMismatchError (ESTALE) when that version is needed and no store holds it any more.
    """

    def __init__(self, store: OpenStore, key: str) -> None:
        """Fetch the first bytes. NotFoundError when there is no such object."""
        super().__init__()
        self.name = key
        self._store = store
        self._position = 0
        self._start = 0
        self._fetch_size = SMALLEST_FETCH
        self._buffer, self._version = while_replaced(self._fetch_first)

    def _fetch_first(self) -> tuple[bytes, Version]:
        with self._store().get(self.name, ByteRange(0, SMALLEST_FETCH)) as answer:
            return answer.read_all(), answer.metadata.version

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move; nothing is fetched."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._version.size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def readinto(self, target: Buffer, /) -> int:
        """Read up to the target's size; 0 at the end."""
        view = memoryview(target).cast("B")
        wanted = min(len(view), self._version.size - self._position)
        if wanted <= 0:
            return 0
        begin = self._position - self._start
        if not 0 <= begin < len(self._buffer):
            if wanted >= LARGEST_FETCH:
                return self._fetch_into(view[:wanted])
            self._fill(wanted)
            begin = 0
        piece = memoryview(self._buffer)[begin : begin + wanted]
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def readall(self) -> bytes:
        """The rest of the object, with one request for what is not here yet."""
        begin = self._position - self._start
        here = self._buffer[begin:] if 0 <= begin < len(self._buffer) else b""
        offset = self._position + len(here)
        rest = self._fetch(ByteRange(offset, max(0, self._version.size - offset)))
        self._position = offset + len(rest)
        return here + rest if here else rest

    def _fill(self, wanted: int) -> None:
        in_sequence = self._position == self._start + len(self._buffer)
        self._fetch_size = min(self._fetch_size * 2, LARGEST_FETCH) if in_sequence else SMALLEST_FETCH
        byte_range = ByteRange(self._position, max(wanted, self._fetch_size)).clip(self._version.size)
        self._buffer, self._start = self._fetch(byte_range), byte_range.offset

    def _fetch_into(self, target: memoryview) -> int:
        done = 0
        with self._open(ByteRange(self._position, len(target))) as answer:
            for piece in answer:
                target[done : done + len(piece)] = piece
                done += len(piece)
        self._position += done
        return done

    def _fetch(self, byte_range: ByteRange) -> bytes:
        if not byte_range.size:
            return b""
        with self._open(byte_range) as answer:
            return answer.read_all()

    def _open(self, byte_range: ByteRange) -> ObjectReader:
        try:
            return self._store().get(self.name, byte_range, expected=self._version)
        except NotFoundError as error:
            message = "deleted since it was opened, and no store holds that version any more"
            raise VersionMismatchError(message, store=error.store, key=self.name) from error


class ObjectWriteFile(io.BufferedIOBase):
    """A private temporary file whose content becomes the object at `close()`.

    `publish` gets the content, as bytes or as a path that is valid during the call. When it raises, the file is still
    open: `close()` may be tried again. `discard()` gives the content up, and so do an exception inside `with` and the
    end of the last reference.
    """

    def __init__(
        self, name: str, publish: Callable[[bytes | Path], object], *, readable: bool = False, append: bool = False
    ) -> None:
        super().__init__()
        self.name = name
        self._publish = publish
        self._readable = readable
        self._append = append
        try:
            self._content = tempfile.TemporaryFile()  # noqa: SIM115 - lives until close
        except OSError:
            super().close()
            raise

    def readable(self) -> bool:
        """Only in the `+` modes."""
        return self._readable

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Read back what is written; UnsupportedOperation unless the mode has a `+`."""
        self._check_open()
        if not self._readable:
            raise io.UnsupportedOperation("not open for reading")
        return self._content.read(-1 if size is None else size)

    def read1(self, size: int = -1, /) -> bytes:
        """As `read`."""
        return self.read(size)

    def write(self, data: Buffer, /) -> int:
        """Write at the position, in append modes at the end."""
        self._check_open()
        if self._append:
            self._content.seek(0, io.SEEK_END)
        return self._content.write(data)

    def tell(self) -> int:
        """The position."""
        self._check_open()
        return self._content.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move."""
        self._check_open()
        return self._content.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        """Cut or extend with zero bytes to `size`, by default to the position."""
        self._check_open()
        size = self._content.tell() if size is None else size
        self._content.truncate(size)
        return size

    def close(self) -> None:
        """Make the object appear. Raises what the store says; the content is kept then, for another try."""
        if self.closed:
            return
        self._publish(self._finished())
        self._end()

    def discard(self) -> None:
        """Close without publishing anything."""
        if not self.closed:
            self._end()

    def forget(self) -> None:
        """Discard at the end of the last reference: what an interrupted program wrote so far is no whole object."""
        if not self.closed:
            logger.warning("%s: not stored, because the file was never closed", self.name)
            self._end()

    def _finished(self) -> bytes | Path:
        size = self._content.seek(0, io.SEEK_END)
        self._content.flush()
        if size <= SENT_FROM_MEMORY:
            self._content.seek(0)
            return self._content.read()
        # The file has no name of its own, so that a crash leaves nothing behind.
        return Path(f"/proc/self/fd/{self._content.fileno()}")

    def _end(self) -> None:
        self._content.close()
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        self.forget()


class TextWriteFile(io.TextIOWrapper):
    """Text over an ObjectWriteFile, with the same rule: an exception publishes nothing."""

    def __init__(
        self, content: ObjectWriteFile, *, encoding: str, errors: str | None = None, newline: str | None = None
    ) -> None:
        self._content = content
        super().__init__(content, encoding=encoding, errors=errors, newline=newline)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self._content.discard()
        super().__exit__(kind, error, traceback)

    def __del__(self) -> None:
        self._content.forget()
