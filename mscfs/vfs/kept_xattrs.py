"""Extended attributes `user.*` in the user metadata of an object, in the form of s3fs (ADR 16).

One key holds all of them: JSON, name to base64 of the value, percent-encoded.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
from collections.abc import Mapping
from urllib.parse import quote, unquote

from mscfs.providers.base import Dialect
from mscfs.types import is_user_xattr
from mscfs.vfs.paths import to_bytes

KEY = "xattr"
NO_XATTRS: Mapping[str, bytes] = {}

_ROOM: Mapping[Dialect, int] = {"s3": 2048, "gcs": 8192, "azure": 8192}
"""Bytes of names and values of all user metadata of an object."""
_FOR_STAMPS = 256
"""A copy on a replica needs room for its stamp (R4)."""


def read_xattrs(metadata: Mapping[str, str] | None) -> Mapping[str, bytes]:
    """The attributes that user metadata tell, of the kind a program may set here; what is no such thing tells none."""
    encoded = (metadata or {}).get(KEY)
    if encoded is None:
        return NO_XATTRS
    try:
        told = json.loads(unquote(encoded, errors="surrogateescape"))
        pairs = told.items() if isinstance(told, dict) else ()
        return {
            name: base64.b64decode(value, validate=True)
            for name, value in pairs
            if is_user_xattr(name) and isinstance(value, str)
        }
    except (ValueError, RecursionError, binascii.Error):
        return NO_XATTRS


def with_xattrs(metadata: Mapping[str, str], xattrs: Mapping[str, bytes]) -> dict[str, str]:
    """User metadata that tell these attributes. What other tools keep beside ours (ACLs of s3fs) stays."""
    told = {name: value for name, value in metadata.items() if name != KEY}
    pairs = {**_foreign(metadata), **{name: base64.b64encode(value).decode() for name, value in xattrs.items()}}
    if pairs:
        # s3fs does not know white space nor escapes in it.
        text = json.dumps(pairs, separators=(",", ":"), ensure_ascii=False)
        told[KEY] = quote(text, safe="/.-_~", errors="surrogateescape")
    return told


def check_room(metadata: Mapping[str, str], dialect: Dialect) -> None:
    """Raise OSError ENOSPC, as setxattr(2) does where attributes do not fit."""
    size = sum(len(to_bytes(name)) + len(to_bytes(value)) for name, value in metadata.items())
    if size > _ROOM[dialect] - _FOR_STAMPS:
        raise OSError(errno.ENOSPC, f"the store keeps at most {_ROOM[dialect]} bytes of metadata with an object")


def _foreign(metadata: Mapping[str, str]) -> dict[str, str]:
    try:
        told = json.loads(unquote(metadata.get(KEY, "{}"), errors="surrogateescape"))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {name: value for name, value in told.items() if isinstance(value, str) and not is_user_xattr(name)}
