"""Answers that make no sense are errors of the store, whatever is called, so that another store is asked (R5, L3)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mscfs.config.load import parse_config
from mscfs.errors import StorageError
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from mscfs.types import ByteRange, Version

HEADERS = {
    "ETag": '"abc"',
    "Last-Modified": "Thu, 26 Nov 2026 15:24:54 GMT",
    "x-goog-generation": "5",
    "x-ms-blob-type": "BlockBlob",
}
XML, JSON = {"Content-Type": "application/xml"}, {"Content-Type": "application/json"}
NESTED = b"<ListBucketResult>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</ListBucketResult>"
LISTED = b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>p/k</Key></Contents></ListBucketResult>"

ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "nothing": (200, {}, b""),
    "a page of a portal": (200, {"Content-Type": "text/html"}, b"<html><p>Log in<br></html>"),
    "the head alone": (200, HEADERS, b""),
    "no time": (200, {name: value for name, value in HEADERS.items() if name != "Last-Modified"}, b"body"),
    "a part of unknown size": (206, HEADERS | {"Content-Range": "bytes 0-3/*"}, b"body"),
    "made, without a tag": (201, {}, b""),
    "a date that is none": (200, {"ETag": '"e"', "Date": "Thu, 26 Nov 2026 15:24:54 -0000"}, b""),
    "nested without end": (200, HEADERS | XML, NESTED),
    "objects that lack everything": (200, HEADERS | XML, LISTED),
    "a listing without end": (
        200,
        HEADERS | XML,
        b"<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>",
    ),
    "Azure's listing without end": (
        200,
        HEADERS | XML,
        b"<EnumerationResults><Blobs></Blobs><NextMarker>x</NextMarker></EnumerationResults>",
    ),
    "Google's listing without end": (200, HEADERS | JSON, b'{"nextPageToken": "x"}'),
    "a list": (200, HEADERS | JSON, b"[]"),
    "an object that lacks everything": (200, HEADERS | JSON, b"{}"),
    "objects of the wrong kind": (200, HEADERS | JSON, b'{"items": [5], "name": 7, "generation": [], "updated": "x"}'),
    "an object with metadata of the wrong kind": (
        200,
        HEADERS | JSON,
        b'{"name": "p/k", "size": "5", "generation": "1", "updated": "2026-01-01T00:00:00Z", "metadata": [1]}',
    ),
    "an error of the wrong kind": (403, JSON, b'{"error": 5}'),
}
WHAT = Version(4, "5")
CALLS: dict[str, Callable[[StorageProvider], object]] = {
    "head": lambda store: store.head("k"),
    "get": lambda store: store.get("k").read_all(),
    "get a range": lambda store: store.get("k", ByteRange(0, 4), expected=WHAT).read_all(),
    "list": lambda store: list(store.list()),
    "list_directory": lambda store: list(store.list_directory("d/")),
    "list_pages": lambda store: list(store.list_pages("d/")),
    "put": lambda store: store.put("k", b"body"),
    "put of another version": lambda store: store.put("k", b"body", expected=WHAT),
    "copy": lambda store: store.copy("k", "t"),
    "set_metadata": lambda store: store.set_metadata("k", {"a": "b"}),
    "delete": lambda store: store.delete("k", expected=WHAT),
    "make_directory": lambda store: store.make_directory("d/"),
    "remove_directory": lambda store: store.remove_directory("d/"),
    "abort_upload": lambda store: store.abort_upload("k", "p/.mscfs-parts/x/"),
    "upload": lambda store: _upload(store),  # noqa: PLW0108 - it is defined below
}


def _upload(store: StorageProvider) -> None:
    upload = store.start_upload("k")
    try:
        upload.put_part(1, b"1")
        upload.complete()
    finally:
        upload.abort()


class Server(ThreadingHTTPServer):
    """Gives the same answer to every request."""

    daemon_threads = True
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, body = self.server.answer
        self.send_response_only(status)
        for name, value in ({"Content-Length": str(len(body)), "Connection": "close"} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), _Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture(params=["s3", "gcs", "azure"])
def profile(request: pytest.FixtureRequest, server: Server) -> dict[str, Any]:
    made: dict[str, Any] = {
        "storage_provider": {"type": request.param, "options": {"base_path": "bucket/p", "endpoint_url": server.url}},
        "retry": {"attempts": 1},
    }
    if request.param == "s3":
        made["storage_provider"]["options"]["region_name"] = "us-east-1"
        made["credentials_provider"] = {"type": "S3Credentials", "options": {"access_key": "a", "secret_key": "b"}}
    elif request.param == "gcs":
        made["storage_provider"]["options"]["skip_signature"] = True
    else:
        url = made["storage_provider"]["options"]["endpoint_url"] = f"{server.url}/account"
        text = f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey=YWJj;BlobEndpoint={url};"
        made["credentials_provider"] = {"type": "AzureCredentials", "options": {"connection": text}}
    return made


@pytest.mark.parametrize("native", [True, False], ids=["native", "sdk"])
def test_R5_an_answer_that_makes_no_sense_is_an_error_of_the_store(
    profile: dict[str, Any], server: Server, *, native: bool
) -> None:
    profile["storage_provider"]["options"]["rust_client"] = native
    store = open_provider(parse_config({"profiles": {"data": profile}}), "data")
    failures = []
    for answer, server.answer in ANSWERS.items():
        for name, call in CALLS.items():
            try:
                call(store)
            except StorageError as error:
                if error.store != "data":
                    failures.append(f"{name}, {answer}: of store {error.store!r}")
            except Exception as error:  # noqa: BLE001 - all of them are to be seen
                failures.append(f"{name}, {answer}: {error!r}")
    assert not failures, "\n".join(failures)
