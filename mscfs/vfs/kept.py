"""Attributes of files and directories in the user metadata of their objects, as other tools keep them (ADR 16).

`mode` is octal with the file type and a leading zero, which s3fs reads as well as rclone; `uid` and `gid` are decimal;
`mtime` has the form that rclone writes to that kind of store. Metadata come from anybody who may write to the bucket:
what makes no sense is ignored, and so are setuid and setgid bits.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mscfs.providers.base import Dialect
from mscfs.types import CLAIM_KEY, STAMP_KEY, from_ns, to_ns

MODE_BITS = 0o1777
"""What is kept of a mode: set-user-ID and set-group-ID from a bucket are nobody's friends."""

CONTENT_KEYS = frozenset({"mtime", "md5chksum", "goog-reserved-file-mtime", CLAIM_KEY, STAMP_KEY})
"""What other tools and we note of the content: not true any more when that changes."""

_ATTRIBUTE_KEYS = frozenset({"mode", "uid", "gid", "mtime", "goog-reserved-file-mtime", "xattr"})
_SECOND = 1_000_000_000
_LATEST_NS = (1 << 63) - 1
_LATEST = from_ns(_LATEST_NS)
_LARGEST_ID = (1 << 32) - 2
_FORMATS = {False: stat.S_IFREG, True: stat.S_IFDIR}
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_SECONDS = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,20}))?", re.ASCII)
_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,20}))?(Z|[+-][0-9]{2}:[0-9]{2})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Kept:
    """Attributes as they can be kept; None: not told, or not to be changed."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None

    @property
    def storable(self) -> Kept:
        """Without what cannot be kept."""
        return Kept(
            None if self.mode is None else self.mode & MODE_BITS,
            self.uid if _is_id(self.uid) else None,
            self.gid if _is_id(self.gid) else None,
            self.mtime_ns if self.mtime_ns is not None and 0 <= self.mtime_ns <= _LATEST_NS else None,
        )

    def beyond(self, other: Kept) -> Kept:
        """What of these differs from the other ones."""
        return Kept(
            None if self.mode == other.mode else self.mode,
            None if self.uid == other.uid else self.uid,
            None if self.gid == other.gid else self.gid,
            None if self.mtime_ns == other.mtime_ns else self.mtime_ns,
        )


NOTHING = Kept()


def read_kept(metadata: Mapping[str, str] | None, *, directory: bool) -> Kept:
    """The attributes that the user metadata of an object tell."""
    if not metadata:
        return NOTHING
    time = metadata.get("mtime", metadata.get("goog-reserved-file-mtime"))
    return Kept(
        _mode(metadata.get("mode"), directory=directory),
        _id(metadata.get("uid")),
        _id(metadata.get("gid")),
        None if time is None else _time(time),
    )


def with_kept(metadata: Mapping[str, str], kept: Kept, *, directory: bool, dialect: Dialect) -> dict[str, str]:
    """User metadata that tell these attributes, and all else as before."""
    told = dict(metadata)
    kept = kept.storable
    if kept.mode is not None:
        told["mode"] = f"0{_FORMATS[directory] | kept.mode:o}"
    if kept.uid is not None:
        told["uid"] = str(kept.uid)
    if kept.gid is not None:
        told["gid"] = str(kept.gid)
    if kept.mtime_ns is not None:
        told["mtime"] = _seconds(kept.mtime_ns) if dialect == "s3" else _rfc3339(kept.mtime_ns)
        if dialect == "gcs":
            told["goog-reserved-file-mtime"] = str(kept.mtime_ns // _SECOND)
    return told


def without_attributes(metadata: Mapping[str, str] | None) -> Mapping[str, str]:
    """User metadata but for what tells attributes."""
    return {name: value for name, value in (metadata or {}).items() if name not in _ATTRIBUTE_KEYS}


def without_content_keys(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """User metadata for other content."""
    return {name: value for name, value in (metadata or {}).items() if name not in CONTENT_KEYS}


def without_time(kept: Kept) -> Kept:
    """The same without the time."""
    return replace(kept, mtime_ns=None)


def _mode(text: str | None, *, directory: bool) -> int | None:
    """s3fs writes decimal numbers, rclone octal ones; the file type tells which it is."""
    if text is None or not _NUMBER.fullmatch(text):
        return None
    octal = int(text, 8) if not set(text) & {"8", "9"} else -1
    found = octal if text[0] == "0" or octal & ~0o7777 == _FORMATS[directory] else int(text)
    return found & MODE_BITS if found & ~0o7777 in {0, _FORMATS[directory]} else None


def _id(text: str | None) -> int | None:
    number = int(text) if text is not None and _NUMBER.fullmatch(text) else None
    return number if _is_id(number) else None


def _is_id(number: int | None) -> bool:
    return number is not None and 0 <= number <= _LARGEST_ID


def _time(text: str) -> int | None:
    told = _SECONDS.fullmatch(text)
    if told is not None:
        found = int(told[1]) * _SECOND + _fraction(told[2])
        return found if found <= _LATEST_NS else None
    told = _RFC3339.fullmatch(text)
    if told is None:
        return None
    try:
        moment = datetime.fromisoformat(told[1] + told[3])
    except ValueError:
        return None
    if moment > _LATEST:
        return None
    found = to_ns(moment) + _fraction(told[2])
    return found if 0 <= found <= _LATEST_NS else None


def _fraction(digits: str | None) -> int:
    return int((digits or "")[:9].ljust(9, "0"))


def _seconds(ns: int) -> str:
    # Nine digits or none: some readers take the fraction for a number of nanoseconds.
    return f"{ns // _SECOND}.{ns % _SECOND:09}" if ns % _SECOND else str(ns // _SECOND)


def _rfc3339(ns: int) -> str:
    return f"{from_ns(ns).astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{ns % _SECOND:09}Z"
