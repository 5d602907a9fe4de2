"""Uploads through the JSON API: media, multipart and resumable."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote

from .json_api import boundary_of, parts
from .messages import Refusal, Request, Response, json_response
from .objects import Preconditions, Service, check_name

CHUNK_UNIT = 256 << 10
"""Every chunk of a resumable upload but the last is kept down to a multiple of this."""

_UPLOAD_PATH = re.compile(r"/(?:upload|resumable/upload)/storage/v1/b/([^/]+)/o$")
_CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)$")


@dataclass(slots=True)
class Session:
    """A resumable upload under way."""

    bucket: str
    name: str
    conditions: Preconditions
    resource: dict[str, Any]
    data: bytearray = field(default_factory=bytearray)
    answer: dict[str, Any] | None = None
    """The finished object."""


class UploadApi:
    def __init__(self, service: Service) -> None:
        self._service = service
        self._sessions: dict[str, Session] = {}

    def handle(self, request: Request) -> Response:
        match = _UPLOAD_PATH.match(request.path)
        if match is None:
            raise Refusal(404, "notFound", "Not Found")
        bucket = unquote(match.group(1))
        if "upload_id" in request.query:
            return self._resume(request)
        kind = request.query.get("uploadType")
        if kind == "media":
            resource: dict[str, Any] = {"contentType": request.headers.get("content-type")}
            return self._store(request, bucket, resource, request.body)
        if kind == "multipart":
            described, content = parts(request.body, boundary_of(request.headers.get("content-type", "")))
            resource = {"contentType": content[0].get("content-type")} | json.loads(described[1])
            return self._store(request, bucket, resource, content[1])
        if kind == "resumable":
            return self._begin(request, bucket)
        raise Refusal(400, "invalid", "Invalid uploadType")

    def _store(self, request: Request, bucket: str, resource: dict[str, Any], data: bytes) -> Response:
        name = request.query.get("name") or resource.get("name", "")
        resource |= header_checksums(request)
        new = self._service.write(bucket, name, data, Preconditions.from_query(request.query), resource)
        return json_response(new.resource())

    def _begin(self, request: Request, bucket: str) -> Response:
        resource = {"contentType": request.headers.get("x-upload-content-type")} | request.json()
        name = request.query.get("name") or resource.get("name", "")
        check_name(name)
        conditions = Preconditions.from_query(request.query)
        conditions.check(self._service.bucket(bucket).objects.get(name))
        identifier = secrets.token_hex(16)
        self._sessions[identifier] = Session(bucket, name, conditions, resource)
        where = f"{request.base_url}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={identifier}"
        return Response(200, {"Location": where, "X-GUploader-UploadID": identifier})

    def _resume(self, request: Request) -> Response:
        identifier = request.query["upload_id"]
        session = self._sessions.get(identifier)
        if session is None:
            raise Refusal(410, "gone", "The upload session is not there any more.")
        if request.method == "DELETE":
            del self._sessions[identifier]
            return Response(499)
        if session.answer is not None:
            return json_response(session.answer)
        header = request.headers.get("content-range")
        match = _CONTENT_RANGE.match(header or f"bytes 0-{len(request.body) - 1}/{len(request.body)}")
        if match is None:
            raise Refusal(400, "badRequest", "Failed to parse Content-Range header.")
        first, last, total = match.groups()
        if first is not None:
            self._receive(session, int(first), int(last), total, request.body)
        if total == "*" or len(session.data) < int(total):
            headers = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
            return Response(308, headers)
        new = self._service.write(
            session.bucket,
            session.name,
            bytes(session.data),
            session.conditions,
            session.resource | header_checksums(request),
        )
        session.data.clear()
        session.answer = new.resource()
        return json_response(session.answer)

    @staticmethod
    def _receive(session: Session, first: int, last: int, total: str, body: bytes) -> None:
        if len(body) != last - first + 1:
            raise Refusal(400, "badRequest", "The body does not have the length of its Content-Range.")
        have = len(session.data)
        if first > have:
            raise Refusal(503, "backendError", f"The chunk starts at {first}, only {have} bytes are here.")
        session.data += body[have - first :]
        if total == "*" or last + 1 < int(total):
            del session.data[len(session.data) // CHUNK_UNIT * CHUNK_UNIT :]


def header_checksums(request: Request) -> dict[str, str]:
    """What `X-Goog-Hash` and `Content-MD5` promise, under the names of an object's resource."""
    names = {"crc32c": "crc32c", "md5": "md5Hash"}
    pairs = (part.strip().partition("=") for part in request.headers.get("x-goog-hash", "").split(","))
    promised = {names[name]: value for name, _, value in pairs if name in names}
    if "content-md5" in request.headers:
        promised["md5Hash"] = request.headers["content-md5"]
    return promised
