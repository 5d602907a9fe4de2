"""The values every layer speaks: what an object is, which version of it, which bytes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STAMP_FORMAT = "1"
_LATEST_NS = 1 << 63
_CLOCKS_APART_NS = 10_000_000_000

ObjectType = Literal["file", "directory", "symlink"]


@dataclass(frozen=True, slots=True)
class Version:
    """The identity of one content of one key on the primary.

    Two versions are equal when size and tag are equal. `modified_ns` and `content_hash` are evidence
    about a copy that another tool made (contract R4) and take no part in equality.
    """

    size: int
    tag: str
    """The store's own word for this content: ETag without quotes, generation (GCS), or mtime and inode (`file`)."""
    modified_ns: int = field(default=0, compare=False)
    content_hash: str = field(default="", compare=False)
    """`algorithm:hex` (for example `md5:9e10…`) where the store reports one, else empty."""

    @property
    def token(self) -> str:
        """A string that is equal for equal versions: part of cache keys."""
        return f"{self.size}-{self.tag}"

    def stamp(self) -> str:
        """The value of `STAMP_KEY` in the user metadata of a copy of this version."""
        # A time before 1970 would be no stamp: it is left untold.
        return f"{_STAMP_FORMAT} {self.size} {max(self.modified_ns, 0)} {self.tag}"

    def is_written_anew(self, now: Version) -> bool:
        """Whether `now`, an equal version, is surely another object: S3's ETag repeats when the same bytes do.

        The times of one object may differ by what the clocks of a store's servers do, and by how we learn them.
        """
        return bool(self.modified_ns) and now.modified_ns - self.modified_ns > _CLOCKS_APART_NS

    @classmethod
    def from_stamp(cls, stamp: str | None) -> Version | None:
        """The version a copy was made of; None for a missing or unreadable stamp (anyone may write metadata)."""
        parts = (stamp or "").split(" ", 3)
        if len(parts) != 4 or parts[0] != _STAMP_FORMAT:
            return None
        try:
            size, modified_ns = int(parts[1]), int(parts[2])
        except ValueError:
            return None
        # Beyond that it is no time that a clock of ours could tell.
        if size < 0 or not 0 <= modified_ns < _LATEST_NS:
            return None
        return cls(size=size, modified_ns=modified_ns, tag=parts[3])


STAMP_KEY = "mscfsversion"
"""User-metadata key of the stamp. Letters only: Azure wants an identifier, HTTP proxies drop underscores."""

CLAIM_KEY = "mscfsclaim"
"""User-metadata key of an empty object by which somebody took a name for himself: it tells whose request made it."""

OWN_XATTRS = "user.mscfs."
"""Prefix of the extended attributes that mscfs has for itself, on files of a store and on those of a mount."""

SYMLINK_KEY = "mscfssymlink"
"""User-metadata key of a symbolic link's percent-encoded target; the object's body is empty."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`size` bytes from `offset`; a range that passes the end of an object is clipped to it."""

    offset: int
    size: int

    def __post_init__(self) -> None:
        if self.offset < 0 or self.size < 0:
            raise ValueError(f"a byte range needs offset >= 0 and size >= 0, not {self.offset}, {self.size}")

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.size

    def clip(self, length: int) -> ByteRange:
        """The part of this range that lies in an object of `length` bytes (possibly empty)."""
        offset = min(self.offset, length)
        return ByteRange(offset, min(self.end, length) - offset)


@dataclass(frozen=True, slots=True)
class ObjectMetadata:
    """What a store says about one key.

    A directory's key ends in `/`. `metadata` is None where the answer could not carry it (listings), and a
    mapping, possibly empty, where it could.
    """

    key: str
    content_length: int
    last_modified: datetime
    tag: str = ""
    type: ObjectType = "file"
    content_type: str | None = None
    metadata: Mapping[str, str] | None = None
    content_hash: str = ""
    storage_class: str | None = None
    modified_ns: int = 0
    """Nanoseconds since the epoch; the precise form of `last_modified` where the store has one."""
    mode: int | None = None
    """Permission bits, where the store keeps them (`file`)."""
    uid: int | None = None
    gid: int | None = None
    symlink_target: str | None = None

    @property
    def etag(self) -> str | None:
        """The tag under the name other object-storage libraries use; None where there is none."""
        return self.tag or None

    @property
    def version(self) -> Version:
        """The identity of this content."""
        return Version(self.content_length, self.tag, self.modified_ns or to_ns(self.last_modified), self.content_hash)

    @property
    def stamped_version(self) -> Version | None:
        """For a copy made by mscfs: the primary's version it is a copy of."""
        return Version.from_stamp((self.metadata or {}).get(STAMP_KEY))

    @property
    def is_directory(self) -> bool:
        """Whether this is a directory (a common prefix, a marker or a real directory)."""
        return self.type == "directory"


def is_user_xattr(name: str) -> bool:
    """Whether an extended attribute is one that programs may set."""
    return name.startswith("user.") and not name.startswith(OWN_XATTRS) and "\0" not in name


def to_ns(moment: datetime) -> int:
    """Nanoseconds since the epoch of an aware datetime, exact to its microsecond."""
    return representable((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


def representable(nanoseconds: int) -> int:
    """The nearest time that is kept, which is 64 bits of nanoseconds: the years 1678 to 2262."""
    return max(-_LATEST_NS, min(nanoseconds, _LATEST_NS - 1))


def from_ns(nanoseconds: int) -> datetime:
    """The aware UTC datetime of nanoseconds since the epoch, cut to microseconds."""
    return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
