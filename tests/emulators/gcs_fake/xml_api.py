"""The XML API, as far as native clients use it: one object at a time, at /bucket/object."""

from __future__ import annotations

from urllib.parse import unquote
from xml.sax.saxutils import escape

from .json_api import media, object_headers
from .messages import Refusal, Request, Response
from .objects import Preconditions, Service
from .uploads import header_checksums

_CODES = {
    "notFound": "NoSuchKey",
    "noSuchBucket": "NoSuchBucket",
    "conditionNotMet": "PreconditionFailed",
    "requestedRangeNotSatisfiable": "InvalidRange",
    "authError": "AuthenticationRequired",
    "notImplemented": "NotImplemented",
}
_HEADERS = {
    "content-type": "contentType",
    "cache-control": "cacheControl",
    "content-disposition": "contentDisposition",
    "content-encoding": "contentEncoding",
    "content-language": "contentLanguage",
}
_METADATA = "x-goog-meta-"


class XmlApi:
    def __init__(self, service: Service) -> None:
        self._service = service

    def handle(self, request: Request) -> Response:
        bucket, _, name = request.path.removeprefix("/").partition("/")
        bucket, name = unquote(bucket), unquote(name)
        if name and request.method in ("GET", "HEAD"):
            return self._get(request, bucket, name)
        if name and request.method == "PUT" and "x-goog-copy-source" not in request.headers:
            return self._put(request, bucket, name)
        if name and request.method == "DELETE":
            return self._delete(request, bucket, name)
        raise Refusal(501, "notImplemented", f"not implemented here: {request.method} {request.path}")

    def _get(self, request: Request, bucket: str, name: str) -> Response:
        found = self._service.bucket(bucket).find(name, request.query.get("generation"))
        Preconditions.from_headers(request.headers).check(found, reading=True)
        return media(request, found)

    def _put(self, request: Request, bucket: str, name: str) -> Response:
        resource = {_HEADERS[key]: value for key, value in request.headers.items() if key in _HEADERS}
        metadata = {
            key.removeprefix(_METADATA): value for key, value in request.headers.items() if key.startswith(_METADATA)
        }
        new = self._service.write(
            bucket,
            name,
            request.body,
            Preconditions.from_headers(request.headers),
            resource | {"metadata": metadata} | header_checksums(request),
        )
        wanted = ("ETag", "X-Goog-Generation", "X-Goog-Metageneration", "X-Goog-Hash")
        described = object_headers(new)
        return Response(200, {key: described[key] for key in wanted})

    def _delete(self, request: Request, bucket: str, name: str) -> Response:
        holder = self._service.bucket(bucket)
        found = holder.find(name, request.query.get("generation"))
        Preconditions.from_headers(request.headers).check(found)
        holder.remove(name)
        return Response(204)


def error_response(refusal: Refusal) -> Response:
    if refusal.status == 304:
        return Response(304, refusal.headers)
    code = _CODES.get(refusal.reason, "InvalidArgument")
    message = escape(refusal.message)
    body = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Response(refusal.status, {"Content-Type": "application/xml; charset=UTF-8"} | refusal.headers, body.encode())
