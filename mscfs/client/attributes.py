"""User metadata of objects: the user's part of it, and the keys mscfs keeps for itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mscfs.errors import UsageError
from mscfs.types import CLAIM_KEY, STAMP_KEY, SYMLINK_KEY, ObjectMetadata

_OWN_KEYS = frozenset({CLAIM_KEY, STAMP_KEY, SYMLINK_KEY})


def to_metadata(attributes: Mapping[str, object] | None) -> dict[str, str] | None:
    """User metadata as stores take it. UsageError for keys that mscfs keeps for itself."""
    if attributes is None:
        return None
    reserved = _OWN_KEYS & attributes.keys()
    if reserved:
        raise UsageError(f"the attribute {min(reserved)} is mscfs's own: choose another name")
    return {name: str(value) for name, value in attributes.items()}


def without_own(found: ObjectMetadata) -> ObjectMetadata:
    """The metadata as its user wrote it."""
    if not found.metadata or _OWN_KEYS.isdisjoint(found.metadata):
        return found
    return replace(found, metadata={name: value for name, value in found.metadata.items() if name not in _OWN_KEYS})
