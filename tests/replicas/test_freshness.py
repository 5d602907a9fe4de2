from __future__ import annotations

import pytest

from mscfs.replicas.freshness import as_primary, evidence_of, is_copy_of, is_up_to_date, own_tag
from mscfs.types import STAMP_KEY, ObjectMetadata, Version, from_ns

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND + 123_456_789
WANTED = Version(10, "etag", modified_ns=NOW)


def copy(
    *,
    size: int = 10,
    modified_ns: int = NOW,
    stamp: Version | str | None = None,
    content_hash: str = "",
    tag: str = "copy",
) -> ObjectMetadata:
    metadata = {}
    if stamp is not None:
        metadata[STAMP_KEY] = stamp.stamp() if isinstance(stamp, Version) else stamp
    return ObjectMetadata(
        "k",
        size,
        from_ns(modified_ns),
        tag=tag,
        metadata=metadata,
        content_hash=content_hash,
        modified_ns=modified_ns,
    )


def is_fresh(found: ObjectMetadata, wanted: Version = WANTED) -> bool:
    return is_copy_of(found, wanted, profile="one")


def test_R4_stamped_copy_of_the_wanted_version_is_fresh_however_old() -> None:
    assert is_fresh(copy(stamp=WANTED, modified_ns=NOW - SECOND))
    assert evidence_of(copy(stamp=WANTED), WANTED, profile="one") == "proof"


def test_R4_stamped_copy_of_another_version_is_stale_however_new() -> None:
    assert not is_fresh(copy(stamp=Version(10, "old", modified_ns=NOW), modified_ns=NOW + 100 * SECOND))


def test_R4_a_copy_of_another_size_is_stale_whatever_speaks_for_it() -> None:
    wanted = Version(10, "etag", modified_ns=NOW, content_hash="md5:aa")
    assert not is_copy_of(copy(size=9, stamp=wanted, content_hash="md5:aa"), wanted, profile="one")


@pytest.mark.parametrize("stamp", ["", "nonsense", "2 10 5 etag", "1 ten 5 etag", "1 10 5", "1 10"])
def test_R4_an_unreadable_stamp_is_stale(stamp: str) -> None:
    assert not is_fresh(copy(stamp=stamp, modified_ns=NOW + SECOND))


def test_R4_unstamped_copy_not_older_is_fresh() -> None:
    assert is_fresh(copy(modified_ns=NOW))
    assert is_fresh(copy(modified_ns=NOW + 1))
    assert evidence_of(copy(modified_ns=NOW), WANTED, profile="one") == "age"


def test_R4_unstamped_copy_with_older_mtime_is_stale() -> None:
    assert not is_fresh(copy(modified_ns=NOW - 1))


def test_R4_without_a_time_of_the_primary_age_says_nothing() -> None:
    assert not is_fresh(copy(), Version(10, "etag"))


def test_R4_within_the_second_of_a_primary_that_tells_whole_seconds_age_says_nothing() -> None:
    """The copy may be of what the primary held earlier in that second."""
    wanted = Version(10, "etag", modified_ns=NOW // SECOND * SECOND)
    assert not is_fresh(copy(modified_ns=wanted.modified_ns + 1), wanted)
    assert not is_fresh(copy(modified_ns=wanted.modified_ns + SECOND - 1), wanted)
    assert is_fresh(copy(modified_ns=wanted.modified_ns + SECOND), wanted)
    assert is_fresh(copy(modified_ns=wanted.modified_ns), wanted), "tools that keep times set exactly this one"


@pytest.mark.parametrize(
    ("ours", "theirs", "fresh"),
    [
        ("md5:aa", "md5:aa", True),
        ("md5:aa", "md5:bb", False),
    ],
)
def test_R4_hashes_that_both_report_decide(ours: str, theirs: str, *, fresh: bool) -> None:
    wanted = Version(10, "etag", modified_ns=NOW, content_hash=ours)
    for modified_ns in (NOW - SECOND, NOW + SECOND):
        for stamp in (None, wanted, Version(10, "old")):
            found = copy(modified_ns=modified_ns, content_hash=theirs, stamp=stamp)
            assert is_copy_of(found, wanted, profile="one") is fresh


@pytest.mark.parametrize(("ours", "theirs"), [("", "md5:aa"), ("md5:aa", ""), ("md5:aa", "crc32c:aa")])
def test_R4_hashes_that_cannot_be_compared_do_not_count(ours: str, theirs: str) -> None:
    wanted = Version(10, "etag", modified_ns=NOW, content_hash=ours)
    assert is_copy_of(copy(modified_ns=NOW, content_hash=theirs), wanted, profile="one")
    assert not is_copy_of(copy(modified_ns=NOW - 1, content_hash=theirs), wanted, profile="one")


def test_R8_a_copy_with_a_void_stamp_is_not_the_primarys() -> None:
    changed = copy(stamp="")
    assert as_primary(changed, "one").tag == own_tag(changed, "one")


class TestPrimaryDown:
    def test_R8_stamped_copy_has_the_primarys_identity_and_no_stamp(self) -> None:
        found = copy(stamp=WANTED, modified_ns=NOW + 5 * SECOND)
        told = as_primary(found, "one")
        assert told.version == WANTED
        assert told.modified_ns == NOW
        assert told.last_modified == from_ns(NOW)
        assert STAMP_KEY not in (told.metadata or {})

    def test_R8_unstamped_copy_is_pinned_to_its_replica(self) -> None:
        found = copy()
        pinned = as_primary(found, "one").version
        assert is_copy_of(found, pinned, profile="one")
        assert not is_copy_of(copy(tag="newer"), pinned, profile="one")

    def test_R1_the_age_of_another_replicas_copy_is_no_evidence_for_a_pinned_one(self) -> None:
        pinned = as_primary(copy(), "one").version
        assert not is_copy_of(copy(modified_ns=NOW + SECOND), pinned, profile="two")

    def test_R5_another_replicas_copy_with_the_same_hash_is_the_same(self) -> None:
        pinned = as_primary(copy(content_hash="md5:aa"), "one").version
        assert is_copy_of(copy(content_hash="md5:aa", tag="other"), pinned, profile="two")
        assert not is_copy_of(copy(content_hash="md5:bb", tag="other"), pinned, profile="two")

    def test_a_copy_whose_answer_carries_no_metadata_is_unstamped(self) -> None:
        listed = ObjectMetadata("k", 10, from_ns(NOW), tag="copy")
        assert as_primary(listed, "one").metadata is None


class TestNothingLeftToCopy:
    def present(self, content_hash: str = "") -> ObjectMetadata:
        return ObjectMetadata("k", 10, from_ns(NOW), tag="etag", modified_ns=NOW, content_hash=content_hash)

    def test_same_content_under_an_old_stamp_is_copied_for_its_metadata(self) -> None:
        found = copy(stamp=Version(10, "before set_metadata"), content_hash="md5:aa")
        present = self.present("md5:aa")
        assert is_copy_of(found, present.version, profile="one"), "readers may have it"
        assert not is_up_to_date(found, present, profile="one")

    def test_another_tools_copy_is_left_alone(self) -> None:
        assert is_up_to_date(copy(modified_ns=NOW), self.present(), profile="one")

    def test_symlinks_are_compared_by_target(self) -> None:
        def link(target: str | None) -> ObjectMetadata:
            return ObjectMetadata("k", 0, from_ns(NOW), symlink_target=target)

        assert is_up_to_date(link("a"), link("a"), profile="one")
        assert not is_up_to_date(link("b"), link("a"), profile="one")
        assert not is_up_to_date(link(None), link("a"), profile="one")
        assert not is_up_to_date(link("a"), link(None), profile="one")
