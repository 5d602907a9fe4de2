"""Names and keys: which keys are paths (contract N1 to N3)."""

from __future__ import annotations

from mscfs.errors import InvalidKeyError
from mscfs.providers.page import NAME_MAX, is_segment

__all__ = ["NAME_MAX", "check_new_name", "is_valid_name", "to_bytes", "to_name"]


def to_name(raw: bytes) -> str:
    """The str of a name from the kernel; bytes that are not UTF-8 are surrogate-escaped."""
    return raw.decode("utf-8", "surrogateescape")


def to_bytes(name: str) -> bytes:
    """The bytes of a name for the kernel."""
    return name.encode("utf-8", "surrogateescape")


def is_valid_name(name: str) -> bool:
    """Whether a key's segment can be a name in a directory (N2)."""
    return is_segment(to_bytes(name))


def check_new_name(name: str, *, binary_keys: bool) -> None:
    """Refuse a new name that the store could not hold: InvalidKeyError (EINVAL) for bytes that are not UTF-8."""
    if not binary_keys:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidKeyError("the name is not UTF-8, and the primary stores UTF-8 names only", key=name) from None
