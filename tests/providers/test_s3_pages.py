"""Pages of S3 read at once: exactly what the careful way reads, or nothing."""

from __future__ import annotations

from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mscfs.providers.page import DIRECTORY, FILE, MAYBE_LINK, entries_of
from mscfs.providers.s3_listing import _entries, list_pages
from mscfs.providers.s3_pages import read_page
from tests.providers.test_s3 import PagesClient


def item(key: str, size: int = 5, *, more: str = "") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2024-05-06T07:08:09.123Z</LastModified>"
        f"<ETag>&quot;e{size}&quot;</ETag>{more}<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
    )


def prefix(key: str) -> str:
    return f"<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"


def page(*content: str, encoded: bool = True) -> bytes:
    encoding = "<EncodingType>url</EncodingType>" if encoded else ""
    text = f'<?xml version="1.0"?><ListBucketResult xmlns="x">{encoding}{"".join(content)}</ListBucketResult>'
    return text.encode()


def test_a_usual_page_is_read_at_once():
    checksum = "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><ChecksumType>FULL_OBJECT</ChecksumType>"
    found = read_page(page(item("d/", 0), item("d/a%2Bb+c%0A"), item("d/e", 0, more=checksum), prefix("d/s/")), b"d/")
    assert [(entry.name, entry.kind, entry.size, entry.tag) for entry in entries_of(found)] == [
        (b"a+b c\n", FILE, 5, b"e5"),
        (b"e", MAYBE_LINK, 0, b"e0"),
        (b"s", DIRECTORY, 0, b""),
    ]
    assert next(entries_of(found)).modified_ns == 1714979289 * 10**9


@pytest.mark.parametrize(
    "body",
    [
        page("<Contents><Size>5</Size><Key>d/k</Key></Contents>"),  # another order
        page(item("d/a"), "<Contents><Key>d/k</Key></Contents>"),  # a field is missing
        page(item("d/a &amp; b"), encoded=False),
        page(item("other/a")),
        page(item("d/a%00b")),
        page(item("d/..")),
        page(prefix("d//")),
        page(item("d/" + "n" * 256)),
    ],
)
def test_what_looks_otherwise_is_left_to_the_careful_way(body):
    assert read_page(body, b"d/") is None


def test_N2_keys_that_cannot_be_paths_are_counted():
    body = page(item("d/ok"), item("d/.."), item("d/" + "n" * 256), prefix("d//"), prefix("d/s/")).decode()
    (found,) = list_pages(PagesClient(body), "b", "d/")
    assert found.names == [b"ok", b"s"]
    assert found.skipped == 3


KEYS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\r"), max_size=8), unique=True)


@given(KEYS, st.lists(st.integers(0, 3), min_size=30, max_size=30), st.booleans())
def test_both_ways_read_the_same(keys, sizes, encoded):
    show = quote_plus if encoded else escape
    keys = [key for key in keys if encoded or key.isprintable()]
    body = page(*(item(show(f"d/{key}"), size) for key, size in zip(keys, sizes, strict=False)), encoded=encoded)
    found = read_page(body, b"d/")
    if found is not None:
        careful = [entry for entry in _entries(body, 2) if entry.key]
        told = [entry.metadata("") for entry in entries_of(found)]
        assert [(one.key, one.version) for one in told] == [(one.key, one.version) for one in careful]
