"""Is this copy a copy of the version we want? (contract R4)"""

from __future__ import annotations

from dataclasses import replace

from mscfs.types import ObjectMetadata, Version, from_ns


def is_copy_of(copy: ObjectMetadata, wanted: Version, *, profile: str) -> bool:
    """Whether a replica's object is a fresh copy of the primary's version `wanted`.

    A copy made by mscfs carries the version in its metadata and is judged by that alone. Another tool's copy is fresh
    when the sizes agree and either a hash both stores report agrees or it is not older than the primary's object.
    """
    if copy.content_length != wanted.size:
        return False
    if wanted.tag == own_tag(copy, profile):
        return True
    stamped = copy.stamped_version
    if stamped is not None:
        return stamped == wanted
    if comparable_hashes(copy.content_hash, wanted.content_hash):
        return copy.content_hash == wanted.content_hash
    return bool(wanted.modified_ns) and copy.version.modified_ns >= wanted.modified_ns


def comparable_hashes(one: str, other: str) -> bool:
    """Whether two `algorithm:hex` hashes say anything about each other."""
    return bool(one and other) and one.partition(":")[0] == other.partition(":")[0]


def own_tag(copy: ObjectMetadata, profile: str) -> str:
    """The tag under which a replica's own object is pinned when the primary's version is not known."""
    return f"replica:{profile}/{copy.tag}"


def as_primary(copy: ObjectMetadata, profile: str) -> ObjectMetadata:
    """What the primary would say of an object, told from a replica's copy (primary down, R8).

    A stamped copy has the primary's tag and time, so handles stay valid when the primary returns. Any other copy is
    pinned to this replica.
    """
    stamped = copy.stamped_version
    if stamped is None or stamped.size != copy.content_length:
        return replace(copy, tag=own_tag(copy, profile))
    return replace(
        copy,
        tag=stamped.tag,
        modified_ns=stamped.modified_ns,
        last_modified=from_ns(stamped.modified_ns) if stamped.modified_ns else copy.last_modified,
    )
