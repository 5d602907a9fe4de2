"""Is this copy a copy of the version we want? (contract R4)"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from mscfs.types import STAMP_KEY, ObjectMetadata, Version, from_ns

Evidence = Literal["none", "age", "proof"]
"""What speaks for a copy: `proof` its stamp, a hash or its own tag; `age` only that it is not older, which holds while
`wanted` is what the primary holds.
"""

_OWN_TAG = "replica:"
_SECOND = 1_000_000_000


def is_copy_of(copy: ObjectMetadata, wanted: Version, *, profile: str) -> bool:
    """Whether a replica's object is a fresh copy of `wanted`, the version the primary holds now."""
    return evidence_of(copy, wanted, profile=profile) != "none"


def evidence_of(copy: ObjectMetadata, wanted: Version, *, profile: str) -> Evidence:
    """Why a replica's object may count as a copy of `wanted`.

    Hashes that both stores report decide. Else a copy made by mscfs is judged by its stamp alone, and another tool's
    copy by its age. Sizes must agree in any case.
    """
    if copy.content_length != wanted.size:
        return "none"
    if wanted.tag == own_tag(copy, profile):
        return "proof"
    if comparable_hashes(copy.content_hash, wanted.content_hash):
        return "proof" if copy.content_hash == wanted.content_hash else "none"
    if is_stamped(copy):
        return "proof" if trusted_stamp(copy) == wanted else "none"
    if is_pinned_to_replica(wanted):
        # The time of one replica's copy says nothing about another replica's.
        return "none"
    return "age" if _is_not_older(copy.version.modified_ns, wanted.modified_ns) else "none"


def is_same_as(wanted: Version, present: Version) -> bool:
    """Whether a replica's own content `wanted` (see `own_tag`) is what the primary holds at `present`."""
    if wanted.size != present.size:
        return False
    if comparable_hashes(wanted.content_hash, present.content_hash):
        return wanted.content_hash == present.content_hash
    return _is_not_older(wanted.modified_ns, present.modified_ns)


def is_up_to_date(copy: ObjectMetadata, present: ObjectMetadata, *, profile: str) -> bool:
    """Whether nothing is left to copy: the content is `present`'s and so is, for copies made by mscfs, all the rest."""
    if copy.symlink_target is not None or present.symlink_target is not None:
        return copy.symlink_target == present.symlink_target
    if is_stamped(copy) and trusted_stamp(copy) != present.version:
        return False
    return is_copy_of(copy, present.version, profile=profile)


def comparable_hashes(one: str, other: str) -> bool:
    """Whether two `algorithm:hex` hashes say anything about each other."""
    return bool(one and other) and one.partition(":")[0] == other.partition(":")[0]


def is_stamped(copy: ObjectMetadata) -> bool:
    """Whether mscfs made this copy, whatever became of it since."""
    return STAMP_KEY in (copy.metadata or {})


def trusted_stamp(copy: ObjectMetadata) -> Version | None:
    """The version a copy is stamped with; None also for a stamp that is void.

    The `file` provider voids (empties) the stamp of a copy that a program has written to since.
    """
    stamped = copy.stamped_version
    return stamped if stamped is not None and stamped.size == copy.content_length else None


def own_tag(copy: ObjectMetadata, profile: str) -> str:
    """The tag under which a replica's own object is pinned when the primary's version is not known."""
    return f"{_OWN_TAG}{profile}/{copy.tag}"


def is_pinned_to_replica(version: Version) -> bool:
    """Whether a version is a replica's own content, of which nobody knows what the primary would say."""
    return version.tag.startswith(_OWN_TAG)


def as_primary(copy: ObjectMetadata, profile: str) -> ObjectMetadata:
    """What the primary would say of an object, told from a replica's copy (primary down, R8).

    A stamped copy has the primary's tag and time, so handles stay valid when the primary returns. Any other copy is
    pinned to this replica.
    """
    metadata = copy.metadata and {name: value for name, value in copy.metadata.items() if name != STAMP_KEY}
    stamped = trusted_stamp(copy)
    if stamped is None:
        return replace(copy, tag=own_tag(copy, profile), metadata=metadata)
    return replace(with_version(copy, stamped), content_hash=copy.content_hash, metadata=metadata)


def with_version(copy: ObjectMetadata, version: Version) -> ObjectMetadata:
    """A copy's metadata under the identity of the version it is a copy of."""
    return replace(
        copy,
        tag=version.tag,
        modified_ns=version.modified_ns,
        last_modified=from_ns(version.modified_ns) if version.modified_ns else copy.last_modified,
        content_hash=version.content_hash,
    )


def _is_not_older(copied_ns: int, wanted_ns: int) -> bool:
    if not wanted_ns:
        return False
    if wanted_ns % _SECOND == 0 and wanted_ns < copied_ns < wanted_ns + _SECOND:
        # A store that tells whole seconds only: the copy may have been made before the object was replaced.
        return False
    return copied_ns >= wanted_ns
