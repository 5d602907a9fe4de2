"""The JSON API: buckets and objects below /storage/v1, downloads, batches."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from .messages import Refusal, Request, Response, json_response, requested_range
from .objects import SETTABLE, Preconditions, Service, StoredObject, check_name

REWRITE_STEP = 8 << 20
"""Bytes one rewrite call moves before it answers with a token."""
MAX_PAGE = 1000
MAX_COMPONENTS = 32

_BLANK_LINE = re.compile(rb"\r?\n\r?\n")
_LINE_BREAK = re.compile(rb"^\r?\n")
_FIELD = re.compile(r"(\w+)(?:\(([^)]*)\))?")


class JsonApi:
    def __init__(self, service: Service) -> None:
        self._service = service
        name = r"([^/]+)"
        bucket, thing = rf"/storage/v1/b/{name}", rf"/storage/v1/b/{name}/o/{name}"
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Response]]] = [
            (method, re.compile(pattern + "$"), handler)
            for method, pattern, handler in (
                ("GET", thing, self._get),
                ("GET", "/download" + thing, self._get),
                ("GET", bucket + "/o", self._list),
                ("PATCH", thing, self._patch),
                ("PUT", thing, self._update),
                ("DELETE", thing, self._delete),
                ("POST", thing + "/compose", self._compose),
                ("POST", thing + rf"/rewriteTo/b/{name}/o/{name}", self._rewrite),
                ("POST", thing + rf"/copyTo/b/{name}/o/{name}", self._copy),
                ("POST", "/storage/v1/b", self._create_bucket),
                ("GET", "/storage/v1/b", self._list_buckets),
                ("GET", bucket, self._get_bucket),
                ("DELETE", bucket, self._delete_bucket),
            )
        ]

    def handle(self, request: Request) -> Response:
        for method, pattern, handler in self._routes:
            match = pattern.match(request.path)
            if match and method == request.method:
                return handler(request, *map(unquote, match.groups()))
        raise Refusal(501, "notImplemented", f"not implemented here: {request.method} {request.path}")

    def batch(self, request: Request) -> Response:
        """Up to 100 calls in one request, each answered by itself."""
        boundary = boundary_of(request.headers.get("content-type", ""))
        answers = bytearray()
        for headers, inner in parts(request.body, boundary):
            head, _, body = inner.partition(b"\r\n\r\n")
            line, *header_lines = head.decode().splitlines()
            method, target, _ = line.split(" ", 2)
            url = urlsplit(target)
            call = Request(
                method,
                url.path,
                dict(parse_qsl(url.query, keep_blank_values=True)),
                dict(pair.lower().split(": ", 1) for pair in header_lines if ": " in pair),
                body,
                request.base_url,
            )
            try:
                answer = self.handle(call)
            except Refusal as refusal:
                answer = error_response(refusal)
            content_id = headers.get("content-id", "").replace("<", "<response-")
            answers += b"--batch\r\nContent-Type: application/http\r\n" + f"Content-ID: {content_id}\r\n\r\n".encode()
            answers += f"HTTP/1.1 {answer.status} -\r\n".encode()
            answers += b"".join(f"{key}: {value}\r\n".encode() for key, value in answer.headers.items())
            answers += f"Content-Length: {len(answer.body)}\r\n\r\n".encode() + bytes(answer.body) + b"\r\n"
        return Response(200, {"Content-Type": "multipart/mixed; boundary=batch"}, bytes(answers) + b"--batch--\r\n")

    def _create_bucket(self, request: Request) -> Response:
        return json_response(bucket_resource(self._service.create_bucket(request.json().get("name", "")).name))

    def _list_buckets(self, request: Request) -> Response:
        prefix = request.query.get("prefix", "")
        names = sorted(name for name in self._service.buckets if name.startswith(prefix))
        return json_response({"kind": "storage#buckets", "items": [bucket_resource(name) for name in names]})

    def _get_bucket(self, request: Request, bucket: str) -> Response:
        return json_response(bucket_resource(self._service.bucket(bucket).name))

    def _delete_bucket(self, request: Request, bucket: str) -> Response:
        if self._service.bucket(bucket).objects:
            raise Refusal(409, "conflict", "The bucket you tried to delete is not empty.")
        del self._service.buckets[bucket]
        return Response(204)

    def _get(self, request: Request, bucket: str, name: str) -> Response:
        found = self._service.bucket(bucket).find(name, request.query.get("generation"))
        Preconditions.from_query(request.query).check(found, reading=True)
        if request.query.get("alt") == "media":
            return media(request, found)
        return json_response(select(found.resource(), request.query.get("fields")))

    def _list(self, request: Request, bucket: str) -> Response:
        query = request.query
        limit = min(MAX_PAGE, int(query.get("maxResults", MAX_PAGE)))
        start = max(query.get("startOffset", "").encode(), base64.b64decode(query.get("pageToken", "")))
        answer: dict[str, Any] = {"kind": "storage#objects"}
        walk = self._service.bucket(bucket).walk(query.get("prefix", ""), query.get("delimiter", ""), start)
        for count, (position, entry) in enumerate(walk):
            if count == limit:
                answer["nextPageToken"] = base64.b64encode(position).decode()
                break
            if isinstance(entry, str):
                answer.setdefault("prefixes", []).append(entry)
            else:
                answer.setdefault("items", []).append(entry.resource())
        return json_response(select(answer, query.get("fields")))

    def _patch(self, request: Request, bucket: str, name: str) -> Response:
        return self._change(request, bucket, name, request.json())

    def _update(self, request: Request, bucket: str, name: str) -> Response:
        new = request.json()
        return self._change(request, bucket, name, {**dict.fromkeys(SETTABLE), "metadata": None} | new, whole=True)

    def _change(
        self, request: Request, bucket: str, name: str, change: dict[str, Any], *, whole: bool = False
    ) -> Response:
        found = self._service.bucket(bucket).find(name)
        Preconditions.from_query(request.query).check(found)
        for key in SETTABLE:
            if key in change:
                found.properties.pop(key, None)
                if change[key] is not None:
                    found.properties[key] = change[key]
        if "metadata" in change:
            # A patch merges: a key that is null goes, a key that is not named stays.
            kept = {} if whole or change["metadata"] is None else found.metadata
            merged = {**kept, **(change["metadata"] or {})}
            found.metadata = {key: value for key, value in merged.items() if value is not None}
        found.metageneration += 1
        found.updated = datetime.now(UTC)
        return json_response(found.resource())

    def _delete(self, request: Request, bucket: str, name: str) -> Response:
        holder = self._service.bucket(bucket)
        found = holder.find(name, request.query.get("generation"))
        Preconditions.from_query(request.query).check(found)
        holder.remove(name)
        return Response(204)

    def _compose(self, request: Request, bucket: str, name: str) -> Response:
        body = request.json()
        sources = body.get("sourceObjects", [])
        if not 0 < len(sources) <= MAX_COMPONENTS:
            raise Refusal(400, "invalid", f"The number of source components exceeds the maximum ({MAX_COMPONENTS})")
        holder = self._service.bucket(bucket)
        found = []
        for source in sources:
            part = holder.find(source["name"], source.get("generation"))
            Preconditions.from_query(source.get("objectPreconditions", {})).check(part)
            found.append(part)
        new = self._service.write(
            bucket,
            name,
            b"".join(part.data for part in found),
            Preconditions.from_query(request.query),
            body.get("destination", {}),
            components=sum(part.component_count or 1 for part in found),
        )
        return json_response(new.resource())

    def _rewrite(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Response:
        source = self._copy_source(request, bucket, name, to_bucket, to_name)
        done = int(request.query.get("rewriteToken", "0")) + REWRITE_STEP
        size = len(source.data)
        answer: dict[str, Any] = {"kind": "storage#rewriteResponse", "objectSize": str(size)}
        if done < size:
            return json_response(answer | {"done": False, "totalBytesRewritten": str(done), "rewriteToken": str(done)})
        new = self._duplicate(request, source, to_bucket, to_name)
        return json_response(answer | {"done": True, "totalBytesRewritten": str(size), "resource": new.resource()})

    def _copy(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> Response:
        source = self._copy_source(request, bucket, name, to_bucket, to_name)
        return json_response(self._duplicate(request, source, to_bucket, to_name).resource())

    def _copy_source(self, request: Request, bucket: str, name: str, to_bucket: str, to_name: str) -> StoredObject:
        check_name(to_name)
        source = self._service.bucket(bucket).find(name, request.query.get("sourceGeneration"))
        Preconditions.from_query(request.query, "ifSource").check(source)
        Preconditions.from_query(request.query).check(self._service.bucket(to_bucket).objects.get(to_name))
        return source

    def _duplicate(self, request: Request, source: StoredObject, bucket: str, name: str) -> StoredObject:
        resource = request.json() or {**source.properties, "metadata": source.metadata}
        return self._service.write(
            bucket,
            name,
            source.data,
            Preconditions.from_query(request.query),
            resource,
            components=source.component_count,
        )


def media(request: Request, found: StoredObject) -> Response:
    """An object's bytes, in both APIs. A gzip-encoded object is unpacked for a client that did not ask for gzip."""
    headers = object_headers(found)
    encoding = found.properties.get("contentEncoding")
    if encoding == "gzip" and "gzip" not in request.headers.get("accept-encoding", ""):
        # The service ignores ranges when it unpacks.
        return Response(200, headers, gzip.decompress(found.data))
    if encoding:
        headers["Content-Encoding"] = encoding
    asked = requested_range(request.headers.get("range"), len(found.data))
    if asked is None:
        return Response(200, headers, found.data)
    start, end = asked
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(found.data)}"
    return Response(206, headers, memoryview(found.data)[start:end])


def object_headers(found: StoredObject) -> dict[str, str]:
    hashes = f"crc32c={found.crc32c}"
    if found.md5:
        hashes += f",md5={base64.b64encode(found.md5).decode()}"
    return {
        "ETag": f'"{found.xml_etag}"',
        "Content-Type": found.properties.get("contentType", "application/octet-stream"),
        "Last-Modified": found.updated.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        "X-Goog-Generation": str(found.generation),
        "X-Goog-Metageneration": str(found.metageneration),
        "X-Goog-Hash": hashes,
        "X-Goog-Storage-Class": found.properties.get("storageClass", "STANDARD"),
        "X-Goog-Stored-Content-Length": str(len(found.data)),
        "X-Goog-Stored-Content-Encoding": found.properties.get("contentEncoding", "identity"),
        **{f"x-goog-meta-{key}": value for key, value in found.metadata.items()},
    }


def error_response(refusal: Refusal) -> Response:
    if refusal.status == 304:
        return Response(304, refusal.headers)
    error = {
        "code": refusal.status,
        "message": refusal.message,
        "errors": [{"message": refusal.message, "domain": "global", "reason": refusal.reason}],
    }
    response = json_response({"error": error}, refusal.status)
    response.headers.update(refusal.headers)
    return response


def bucket_resource(name: str) -> dict[str, Any]:
    return {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "storageClass": "STANDARD"}


def boundary_of(content_type: str) -> bytes:
    match = re.search(r'boundary="?([^";]+)', content_type)
    if match is None:
        raise Refusal(400, "badContent", "a multipart body needs a boundary")
    return match.group(1).encode()


def parts(body: bytes, boundary: bytes) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart body: headers (lower-case names) and content, byte for byte."""
    found = []
    for piece in body.split(b"--" + boundary)[1:-1]:
        head, content = _BLANK_LINE.split(_LINE_BREAK.sub(b"", piece, count=1), 1)
        # The line break before a delimiter belongs to the delimiter.
        content = content[: -2 if content.endswith(b"\r\n") else -1]
        lines = (line.partition(":") for line in head.decode().splitlines())
        found.append(({name.strip().lower(): value.strip() for name, _, value in lines}, content))
    return found


def select(value: Any, fields: str | None) -> Any:
    """A partial answer, as `items(name,size),nextPageToken` asks for it."""
    if not fields or fields == "*":
        return value
    if isinstance(value, list):
        return [select(item, fields) for item in value]
    return {name: select(value[name], inner) for name, inner in _FIELD.findall(fields) if name in value}
