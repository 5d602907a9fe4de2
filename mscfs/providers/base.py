"""The one interface of everything that holds objects.

S3, GCS, Azure, a directory and memory implement it; the retrying provider and the replica manager are
instances of it too, so one contract suite tests them all (`tests/providers/contract.py`).

All methods block and may be called from any thread. A provider must keep working in a forked child: clients
and connection pools are made lazily and keyed by process id.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from mscfs.errors import IntegrityError, NotFoundError, UnsupportedError, from_oserror
from mscfs.providers.page import Page, paginate
from mscfs.types import ByteRange, ObjectMetadata, Version, from_ns

MARKER_SUFFIX = "/"

Dialect = Literal["s3", "gcs", "azure"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can promise. A caller asks before it relies on one; a provider that lacks one says so here."""

    conditional_put: bool = True
    """`put(expected=…)` is atomic across hosts."""
    exclusive_create: bool = True
    """`put(if_absent=True)` is atomic across hosts."""
    server_side_copy: bool = True
    real_directories: bool = False
    """Directories exist by themselves (`file`); object stores use marker objects."""
    posix_attributes: bool = False
    """`set_posix_attributes` keeps mode, owner and times (`file`)."""
    binary_keys: bool = False
    """Keys that are not UTF-8 (surrogate-escaped in str) round-trip."""
    dialect: Dialect = "s3"
    """How tools keep a file's attributes in the user metadata of such a store (`mscfs.vfs.kept`)."""
    streaming: bool = True
    """Sending parts before the last byte is known is worth while; not where a put is a copy on this machine."""


@dataclass(frozen=True, slots=True)
class Space:
    """The room of a store, in bytes and in files, as statfs(2) wants it."""

    total_bytes: int
    free_bytes: int
    available_bytes: int
    total_files: int
    free_files: int


class ObjectReader(ABC):
    """An answer to `get`: the object's metadata at once, its bytes while they arrive.

    Iterating gives pieces of at most a few MiB, in order, exactly `byte_range.size` bytes in all; an answer that
    ends early raises IntegrityError, so a short read can never pass for a whole one. Iterate once, then close.
    """

    def __init__(self, metadata: ObjectMetadata, byte_range: ByteRange, *, source: str) -> None:
        self.metadata = metadata
        """Of the whole object, not of the range."""
        self.byte_range = byte_range
        """The range that is delivered, clipped to the object."""
        self.source = source
        """The profile that serves it."""

    @abstractmethod
    def _pieces(self) -> Iterator[bytes | memoryview]:
        """The bytes as the store delivers them."""

    def __iter__(self) -> Iterator[bytes | memoryview]:
        missing = self.byte_range.size
        for piece in self._pieces():
            missing -= len(piece)
            if missing < 0:
                break
            yield piece
        if missing:
            ended = "early" if missing > 0 else "late"
            raise IntegrityError(
                f"the answer ended {ended}: {self.byte_range.size} bytes were promised",
                store=self.source,
                key=self.metadata.key,
            )

    def read_all(self) -> bytes:
        """All bytes of the range, in memory."""
        return b"".join(self)

    def close(self) -> None:  # noqa: B027 - most answers hold nothing
        """Give the connection back; unread bytes are abandoned."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


Source = bytes | memoryview | Path | ObjectReader
"""What can be put: bytes in memory, a local file, or another store's answer (streamed, bounded memory)."""


def source_size(source: Source) -> int:
    """The number of bytes a source will deliver."""
    if isinstance(source, ObjectReader):
        return source.byte_range.size
    if isinstance(source, Path):
        return source.stat().st_size
    return len(source)


LARGEST_PART_IN_MEMORY = 16 << 20
"""Bytes of a part that an upload may hold at once: larger ones are read while they are sent."""


class MultipartUpload(ABC):
    """An object that is sent in parts and appears as a whole, or not at all."""

    token: str = ""
    """What `StorageProvider.abort_upload` needs, should this process not live to end the upload. Empty where nothing
    stays behind then.
    """

    @abstractmethod
    def put_part(self, number: int, data: bytes | memoryview) -> None:
        """Send part `number` (from 1). Parts may be sent in any order and from several threads."""

    def put_slice(self, number: int, path: Path, part: ByteRange) -> None:
        """Send a part that lies in a local file, which keeps these bytes until `complete` has returned."""
        try:
            with path.open("rb") as file:
                data = os.pread(file.fileno(), part.size, part.offset)
        except OSError as error:
            raise from_oserror(error) from error
        if len(data) < part.size:
            raise IntegrityError(f"local file {path} is shorter than the part")
        self.put_part(number, data)

    @abstractmethod
    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        """Make the object appear; conditions as in `StorageProvider.put`."""

    @abstractmethod
    def abort(self) -> None:
        """Throw the parts away; the key keeps its old content. Harmless after `complete`.

        After an error some may be left, for another call or `StorageProvider.abort_upload`.
        """


class StorageProvider(ABC):
    """One place that holds objects. Keys are relative to the profile's `base_path`.

    Errors: every method raises subclasses of `mscfs.errors.StorageError` only. A call that was interrupted (a
    crash, a lost connection) has either happened whole or not at all.
    """

    profile: str
    """The name used in messages, status and metrics."""
    identity: str
    """URL-like, free of secrets, equal for the same place: `s3://endpoint/bucket/prefix`. Part of cache keys."""
    capabilities: Capabilities

    def check_new_key(self, key: str) -> None:  # noqa: B027 - a store may take any key
        """Raise InvalidKeyError for an object or directory that this store cannot hold, without asking it.

        KeyTooLongError where it is the length. Every call that writes to a key refuses the same ones.
        """

    @abstractmethod
    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        """Open an object for reading.

        With `expected`, the answer is of that version or VersionMismatchError is raised (decided by the store
        where it has preconditions, never by a HEAD before). NotFoundError for a missing key. A range that
        starts at or behind the end gives an empty answer.
        """

    @abstractmethod
    def head(self, key: str) -> ObjectMetadata:
        """The metadata of one object, user metadata included. NotFoundError for a missing key or a directory."""

    @abstractmethod
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
        """Store a whole object, atomically: a reader sees the old content or the new, never a part (W3).

        `if_absent`: AlreadyExistsError when the key exists. `expected`: VersionMismatchError when the key's
        current version is another one or the key is gone. Large sources go in parts; a failure leaves no part.
        """

    @abstractmethod
    def start_upload(
        self, key: str, *, metadata: Mapping[str, str] | None = None, content_type: str | None = None
    ) -> MultipartUpload:
        """Begin an upload in parts (each but the last at least 5 MiB, at most 10,000)."""

    def abort_upload(self, key: str, token: str) -> None:  # noqa: B027 - where nothing stays behind
        """Throw away the parts of an upload whose process is gone; harmless when it ended well.

        After an error some may be left, for another call.
        """

    @abstractmethod
    def copy(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        """Copy inside the store, on the server; returns the target's metadata.

        The copy has the user metadata of the source, or `metadata` in their place. `expected` is the version the source
        must have.
        """

    def rename(
        self,
        source: str,
        target: str,
        *,
        metadata: Mapping[str, str] | None = None,
        expected: Version | None = None,
        if_absent: bool = False,
    ) -> ObjectMetadata:
        """Give an object another key, replacing what is there; returns the target's metadata.

        Here a copy and a delete: a crash in between leaves both keys, with equal content. `file` does it in one step.
        A source that changes between the two stays (VersionMismatchError), beside the copy of what it was.
        """
        renamed = self.copy(source, target, metadata=metadata, expected=expected, if_absent=if_absent)
        # The same bytes under the source's name, whoever wrote them when, are what was copied.
        self.delete(source, expected=expected and replace(expected, modified_ns=0))
        return renamed

    def rename_directory(self, source: str, target: str) -> None:
        """Rename a directory with all that is below it, in one step, replacing an empty one of the new name.

        Only where directories are real (capability `real_directories`). DirectoryNotEmptyError.
        """
        raise UnsupportedError("this store renames no directories", store=self.profile, key=source)

    @abstractmethod
    def delete(self, key: str, *, expected: Version | None = None) -> None:
        """Remove one object; a key that is already gone is no error.

        With `expected`: VersionMismatchError when the key holds another version, or the same bytes that were written
        later. Stores without conditional delete compare just before deleting.
        """

    @abstractmethod
    def list(self, prefix: str = "", *, start_after: str = "") -> Iterator[ObjectMetadata]:
        """All objects whose key starts with `prefix`, in UTF-8 byte order, streamed page by page.

        Directory markers are given with type `directory` and a key that ends in `/`; real directories are not. Keys
        that cannot be paths (contract N2) never make a listing fail: object stores and memory give them as they are,
        a directory cannot hold them.
        """

    @abstractmethod
    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        """The entries directly in a directory (`""` or a key that ends in `/`), streamed page by page.

        Sub-directories have type `directory` and keys that end in `/`; each name once. The directory's own
        marker is left out. A missing directory gives nothing (`has_directory` tells).
        """

    def list_pages(self, directory: str = "") -> Iterator[Page]:
        """The same in columns, without the keys that cannot be paths (N2)."""
        return paginate(self.list_directory(directory), directory, links=not self.capabilities.real_directories)

    @abstractmethod
    def has_directory(self, directory: str) -> bool:
        """Whether a directory (a key that ends in `/`) exists: a marker, any key below it, or a real directory."""

    def head_directory(self, directory: str) -> ObjectMetadata:
        """The metadata of a directory; NotFoundError. Where directories are no objects, only its key means anything."""
        if not self.has_directory(directory):
            raise NotFoundError("no such directory", store=self.profile, key=directory)
        return ObjectMetadata(directory, 0, from_ns(0), type="directory")

    def head_marker(self, directory: str) -> ObjectMetadata:
        """The marker object of a directory, user metadata included; NotFoundError where there is none.

        Where directories are real, as `head_directory`.
        """
        return self.head_directory(directory)

    @abstractmethod
    def make_directory(self, directory: str, *, metadata: Mapping[str, str] | None = None) -> None:
        """Write the marker object, or make the directory. Existing is no error.

        With `metadata` the marker has these user metadata from now on. Real directories take none.
        """

    @abstractmethod
    def remove_directory(self, directory: str) -> None:
        """Remove the marker or the directory; DirectoryNotEmptyError when something is below it."""

    @abstractmethod
    def set_metadata(self, key: str, metadata: Mapping[str, str], *, expected: Version | None = None) -> ObjectMetadata:
        """Replace an object's user metadata without moving its bytes. The tag may change: see the result."""

    def decides_conditions(self) -> bool:
        """Whether the store itself decides about `if_absent` and `expected`, atomically across hosts.

        Where nobody knows it is tried out, with one request; StorageError when there is no answer.
        """
        return self.capabilities.conditional_put

    def prepare(self) -> None:  # noqa: B027 - most have nothing to make
        """Load and make what the first call would. What goes wrong the first call will tell: raises nothing."""

    @abstractmethod
    def probe(self) -> None:
        """One cheap request that fails when the store is down, missing or refuses us."""

    def make_symlink(self, key: str, target: str) -> ObjectMetadata:
        """Store a symbolic link. Never followed by mscfs itself."""
        raise UnsupportedError("this store cannot hold symbolic links", store=self.profile, key=key)

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
        """Keep attributes with the object or directory (capability `posix_attributes`).

        `expected`: VersionMismatchError when an object is of another version; nothing is changed then.
        """
        raise UnsupportedError("this store keeps no file attributes", store=self.profile, key=key)

    def xattrs(self, key: str) -> Mapping[str, bytes]:
        """The extended attributes `user.*` of a file or directory, our own left out (capability `posix_attributes`)."""
        raise UnsupportedError("this store keeps no extended attributes", store=self.profile, key=key)

    def set_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        """Make these all extended attributes of a file or directory."""
        raise UnsupportedError("this store keeps no extended attributes", store=self.profile, key=key)

    def check_xattrs(self, key: str, xattrs: Mapping[str, bytes]) -> None:
        """Raise what `set_xattrs` would for a file that is still to be stored. Changes nothing."""
        raise UnsupportedError("this store keeps no extended attributes", store=self.profile, key=key)

    def space(self) -> Space | None:
        """Room of the store; None where it has no bound worth telling."""
        return None

    def close(self) -> None:  # noqa: B027 - most providers hold nothing
        """Give up connections. The provider may not be used afterwards."""
