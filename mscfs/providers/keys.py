"""What all stores agree on about keys and symbolic links."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import quote, unquote

from mscfs.errors import InvalidKeyError, KeyTooLongError
from mscfs.types import SYMLINK_KEY, ObjectMetadata

PATH_MAX = 4096
"""Of Linux: the target of a link is shorter. Bytes."""

LONGEST_NAME = 1024
"""Of an object in a bucket, the profile's prefix included: bytes, and characters on Azure."""


METADATA_VALUE = re.compile(r"([!-~]([ -~]*[!-~])?)?")
"""Of user metadata: what an HTTP header carries unchanged."""


def check_length(key: str, prefix: str, *, store: str) -> None:
    """Raise KeyTooLongError for a key that, in UTF-8 and below a profile's prefix, no bucket takes as a name."""
    most = LONGEST_NAME - len(prefix.encode())
    if len(key.encode("utf-8", "surrogateescape")) > most:
        raise KeyTooLongError(f"the key has more than {most} bytes", store=store, key=key)


def check_object_key(key: str, *, store: str) -> None:
    """Raise InvalidKeyError for what no store can hold as an object."""
    if not key or key.endswith("/"):
        raise InvalidKeyError("an object's key may neither be empty nor end in '/'", store=store, key=key)
    check_text(key, store=store)


def check_directory_key(directory: str, *, store: str) -> None:
    """Raise InvalidKeyError for what cannot be a directory's key."""
    if not directory.endswith("/") or directory == "/":
        raise InvalidKeyError("a directory's key is a name that ends in '/'", store=store, key=directory)
    check_text(directory, store=store)


def check_text(key: str, *, store: str) -> None:
    """Raise InvalidKeyError for NUL and for what is not UTF-8."""
    if "\0" in key:
        raise InvalidKeyError("a key may not hold NUL", store=store, key=key.replace("\0", "\\0"))
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError("this store holds UTF-8 keys only", store=store, key=ascii(key)) from None


def symlink_metadata(target: str) -> dict[str, str]:
    """The user metadata that makes an empty object a symbolic link."""
    return {SYMLINK_KEY: quote(target, errors="surrogateescape")}


def with_symlink(described: ObjectMetadata) -> ObjectMetadata:
    """The same metadata, as a symbolic link where the user metadata say it is one."""
    target = _symlink_target(described.metadata)
    return described if target is None else replace(described, type="symlink", symlink_target=target)


def _symlink_target(metadata: Mapping[str, str] | None) -> str | None:
    encoded = (metadata or {}).get(SYMLINK_KEY)
    if encoded is None:
        return None
    target = unquote(encoded, errors="surrogateescape")
    # Anybody may write metadata: what can be no link on a local disk is none here.
    is_target = "\0" not in target and 0 < len(target.encode("utf-8", "surrogateescape")) < PATH_MAX
    return target if is_target else None
