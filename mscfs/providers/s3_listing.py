"""Listings of S3, read from the service's XML.

boto3's own parser costs seven times as much, and the native client cannot tell a marker `dir/` from an object `dir`
(`docs/adr/0001-obstore-is-the-data-plane.md`). The request still goes through boto3, so that everything it knows of
credentials, endpoints and errors works.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus
from xml.etree.ElementTree import Element, ParseError, fromstring
from xml.sax.saxutils import unescape

from botocore.parsers import ResponseParserError

from mscfs.providers.page import Page, paginate
from mscfs.providers.s3_pages import read_page
from mscfs.types import ObjectMetadata, from_ns

_EPOCH = from_ns(0)
_PAGE = "Page"
_END = b"ListBucketResult>"
_MORE = re.compile(rb"<(?:\w+:)?IsTruncated[^>]*>\s*true\s*<")
_TOKEN = re.compile(rb"<(?:\w+:)?NextContinuationToken[^>]*>([^<]+)<")


def keep_pages(client: Any) -> None:
    """Make boto3's client give listings as they were sent, which `list_bucket` needs."""
    # With the wildcard this runs before boto3's own handler of the same event, which would parse the whole page to
    # see whether it is an error.
    client.meta.events.register_first("before-parse.*.ListObjectsV2", _keep_page)


def _keep_page(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    page = response_dict["body"]
    # S3 may send an error with status 200: that is for boto3.
    if response_dict["status_code"] == 200 and b"<ListBucketResult" in page[:1000]:
        customized_response_dict[_PAGE] = page
        response_dict["body"] = b"<ListBucketResult/>"


def list_bucket(
    client: Any,
    bucket: str,
    prefix: str,
    *,
    cut: int = 0,
    delimiter: str = "",
    start_after: str = "",
    page_size: int = 1000,
) -> Iterator[ObjectMetadata]:
    """What is stored below `prefix`, in UTF-8 order, page by page; the first `cut` characters are cut off the keys.

    With `delimiter`, what has it behind the prefix is given once, as a directory. Raises what boto3 raises.
    """
    for body in _bodies(client, bucket, prefix, delimiter=delimiter, start_after=start_after, page_size=page_size):
        yield from _entries(body, cut)


def list_pages(client: Any, bucket: str, prefix: str) -> Iterator[Page]:
    """What is directly below `prefix` (empty, or with its slash), in columns. Raises what boto3 raises."""
    directory, cut = prefix.encode(), len(prefix)
    for body in _bodies(client, bucket, prefix, delimiter="/"):
        page = read_page(body, directory)
        if page is not None:
            yield page
        else:
            yield from paginate((entry for entry in _entries(body, cut) if entry.key), "", links=True)


def _bodies(
    client: Any, bucket: str, prefix: str, *, delimiter: str, start_after: str = "", page_size: int = 1000
) -> Iterator[bytes]:
    """The pages as they were sent."""
    chosen = {"Prefix": prefix, "Delimiter": delimiter, "StartAfter": start_after}
    parameters: dict[str, Any] = {name: value for name, value in chosen.items() if value}
    parameters |= {"Bucket": bucket, "EncodingType": "url", "MaxKeys": page_size}
    while True:
        try:
            body = client.list_objects_v2(**parameters)[_PAGE]
        except KeyError as error:
            raise ResponseParserError("not a listing") from error
        if not body.rstrip().endswith(_END):
            raise ResponseParserError("not a whole listing")
        yield body
        if not _MORE.search(body):
            return
        token = _TOKEN.search(body)
        if token is None:
            raise ResponseParserError("no NextContinuationToken")
        following = unescape(token[1].decode(), {"&quot;": '"', "&apos;": "'"})
        if following == parameters.get("ContinuationToken"):
            raise ResponseParserError("the same page follows for ever")
        parameters["ContinuationToken"] = following
        parameters.pop("StartAfter", None)


def _entries(body: bytes, cut: int) -> Iterator[ObjectMetadata]:
    try:
        page = fromstring(body)  # noqa: S314 - expat stops known attacks
    except ParseError as error:
        raise ResponseParserError("not a listing") from error
    namespace, brace, _ = page.tag.rpartition("}")
    namespace += brace
    encoded = page.findtext(f"{namespace}EncodingType") == "url"
    yield from _objects(page, namespace, cut, encoded=encoded)
    for element in page.iter(f"{namespace}CommonPrefixes"):
        name = element.findtext(f"{namespace}Prefix") or ""
        yield ObjectMetadata((unquote_plus(name) if encoded else name)[cut:], 0, _EPOCH, type="directory")


def _objects(page: Element, namespace: str, cut: int, *, encoded: bool) -> Iterator[ObjectMetadata]:
    key_tag, size_tag, modified_tag, etag_tag, class_tag = (
        namespace + name for name in ("Key", "Size", "LastModified", "ETag", "StorageClass")
    )
    for element in page.iter(f"{namespace}Contents"):
        field = {child.tag: child.text or "" for child in element}
        key = field[key_tag]
        if encoded:
            key = unquote_plus(key)
        yield ObjectMetadata(
            key[cut:],
            int(field[size_tag]),
            # Other answers know seconds only, and a file's time must not depend on who answered.
            datetime.fromisoformat(field[modified_tag]).replace(microsecond=0),
            tag=field.get(etag_tag, "").strip('"'),
            type="directory" if key.endswith("/") else "file",
            storage_class=field.get(class_tag),
        )
