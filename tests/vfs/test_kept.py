"""Attributes in user metadata: the forms that s3fs and rclone write and read, and what makes no sense (W9)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mscfs.vfs.kept import NOTHING, Kept, read_kept, with_kept, without_attributes, without_content_keys
from mscfs.vfs.kept_xattrs import check_room, read_xattrs, with_xattrs

FEW = settings(max_examples=30, derandomize=True)
NS = 1_500_000_000_123_456_789


@pytest.mark.parametrize("dialect", ["s3", "gcs", "azure"])
@pytest.mark.parametrize("directory", [False, True])
@FEW
@given(
    kept=st.builds(
        Kept,
        st.none() | st.integers(0, 0o1777),
        st.none() | st.integers(0, (1 << 32) - 2),
        st.none() | st.integers(0, (1 << 32) - 2),
        st.none() | st.integers(0, (1 << 63) - 1),
    )
)
def test_W9_what_is_kept_is_read_again(dialect, directory, kept):
    told = with_kept({"other": "1"}, kept, directory=directory, dialect=dialect)
    assert read_kept(told, directory=directory) == kept
    assert without_attributes(told) == {"other": "1"}
    assert all(value.isascii() and value.strip() == value for value in told.values())


def test_W9_the_forms_that_other_tools_read():
    kept = Kept(0o600, 1000, 100, NS)
    assert with_kept({}, kept, directory=False, dialect="s3") == {
        "mode": "0100600",  # a leading zero: octal to strtoll(3) with base 0, as s3fs calls it, and to rclone always
        "uid": "1000",
        "gid": "100",
        "mtime": "1500000000.123456789",
    }
    assert with_kept({}, kept, directory=True, dialect="azure")["mode"] == "040600"
    assert with_kept({}, kept, directory=False, dialect="azure")["mtime"] == "2017-07-14T02:40:00.123456789Z"
    gcs = with_kept({}, kept, directory=False, dialect="gcs")
    assert gcs["mtime"] == "2017-07-14T02:40:00.123456789Z"
    assert gcs["goog-reserved-file-mtime"] == "1500000000"


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"mode": "33152"}, Kept(mode=0o600)),  # s3fs
        ({"mode": "33279"}, Kept(mode=0o777)),
        ({"mode": "100644"}, Kept(mode=0o644)),  # rclone
        ({"mode": "100777"}, Kept(mode=0o777)),
        ({"mode": "0100640"}, Kept(mode=0o640)),
        ({"mode": "0640"}, Kept(mode=0o640)),
        ({"mode": "420"}, Kept(mode=0o644)),
        ({"mtime": "1500000000"}, Kept(mtime_ns=1_500_000_000_000_000_000)),
        ({"mtime": "1500000000.5"}, Kept(mtime_ns=1_500_000_000_500_000_000)),
        ({"mtime": "1500000000.1234567891234"}, Kept(mtime_ns=NS)),
        ({"mtime": "2017-07-14T04:40:00.123456789+02:00"}, Kept(mtime_ns=NS)),
        ({"mtime": "2017-07-14T02:40:00Z"}, Kept(mtime_ns=1_500_000_000_000_000_000)),
        ({"goog-reserved-file-mtime": "1500000000"}, Kept(mtime_ns=1_500_000_000_000_000_000)),
        ({"uid": "0", "gid": "4294967294"}, Kept(uid=0, gid=(1 << 32) - 2)),
    ],
)
def test_W9_the_forms_that_other_tools_write(metadata, expected):
    assert read_kept(metadata, directory=False) == expected


@pytest.mark.parametrize(
    ("text", "mode"), [("16877", 0o755), ("40755", 0o755), ("040700", 0o700), ("41777", 0o1777), ("17407", 0o1777)]
)
def test_W9_modes_of_directories(text, mode):
    assert read_kept({"mode": text}, directory=True) == Kept(mode=mode)


@pytest.mark.parametrize(
    "metadata",
    [
        {"mode": ""},
        {"mode": "rw-r--r--"},
        {"mode": "-1"},
        {"mode": "0o644"},
        {"mode": "٤٢٠"},
        {"mode": "9" * 20},
        {"mode": "9" * 5000},
        {"mode": "0120777"},  # a link
        {"mode": "060644"},  # a device
        {"mode": "040755"},  # a directory
        {"mode": "0100999"},
        {"mtime": "never"},
        {"mtime": "-5"},
        {"mtime": "99999999999"},
        {"mtime": "1e9"},
        {"mtime": "9" * 5000},
        {"mtime": "2017-13-14T02:40:00Z"},
        {"mtime": "1066-10-14T02:40:00Z"},
        {"mtime": "9999-10-14T02:40:00Z"},
        {"uid": "root", "gid": "-1"},
        {"uid": "4294967295", "gid": "99999999999999999999"},
    ],
)
def test_W9_what_makes_no_sense_is_ignored(metadata):
    assert read_kept(metadata, directory=False) == NOTHING


@pytest.mark.parametrize("text", ["0104755", "35309", "0102755", "106777"])
def test_L5_setuid_and_setgid_bits_of_a_bucket_are_ignored(text):
    kept = read_kept({"mode": text}, directory=False)
    assert kept.mode is not None
    assert not kept.mode & 0o6000
    assert with_kept({}, Kept(mode=0o6755), directory=False, dialect="s3") == {"mode": "0100755"}


@FEW
@given(st.dictionaries(st.sampled_from(["mode", "uid", "gid", "mtime", "xattr"]), st.text(max_size=40)))
def test_L5_no_metadata_break_anything(metadata):
    read_kept(metadata, directory=False)
    read_kept(metadata, directory=True)
    read_xattrs(metadata)
    with_xattrs(metadata, {"user.a": b"1"})


def test_what_tools_note_of_the_content_goes_with_it():
    metadata = {"mtime": "1", "md5chksum": "x", "goog-reserved-file-mtime": "1", "mode": "0100600", "owner": "me"}
    assert without_content_keys(metadata) == {"mode": "0100600", "owner": "me"}


@FEW
@given(
    st.dictionaries(
        st.text(max_size=9)
        .filter(lambda name: "\0" not in name and not name.startswith("mscfs."))
        .map("user.".__add__),
        st.binary(max_size=9),
    )
)
def test_xattrs_are_kept_as_s3fs_keeps_them(xattrs):
    told = with_xattrs({"other": "1"}, xattrs)
    assert read_xattrs(told) == xattrs
    assert all(value.isascii() and value.isprintable() for value in told.values())


def test_the_form_of_xattrs():
    assert with_xattrs({}, {"user.foo": b"bar"}) == {"xattr": "%7B%22user.foo%22%3A%22YmFy%22%7D"}
    assert with_xattrs({"xattr": "%7B%22user.foo%22%3A%22YmFy%22%7D"}, {}) == {}


def test_what_other_tools_keep_beside_them_stays_and_is_not_shown():
    other = with_xattrs({"xattr": "%7B%22system.posix_acl_access%22%3A%22YmFy%22%7D"}, {"user.a": b"1"})
    assert read_xattrs(other) == {"user.a": b"1"}
    assert "system.posix_acl_access" in with_xattrs(other, {})["xattr"]
    assert read_xattrs({"xattr": "%7B%22user.mscfs.key%22%3A%22YmFy%22%2C%22user.b%22%3A%22%22%7D"}) == {"user.b": b""}


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "%7B", "%7B%22user.a%22%3A1%7D", "%7B%22user.a%22%3A%22!%22%7D", "%5B" * 3000]
)
def test_L5_xattrs_that_are_none(text):
    assert read_xattrs({"xattr": text}) == {}


@pytest.mark.parametrize(("dialect", "room"), [("s3", 1792), ("gcs", 7936), ("azure", 7936)])
def test_the_room_for_metadata_is_limited(dialect, room):
    check_room({"k": "v" * (room - 1)}, dialect)
    with pytest.raises(OSError, match="at most"):
        check_room({"k": "v" * room}, dialect)
