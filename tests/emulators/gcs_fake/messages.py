"""What goes in and out of the server."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Request:
    method: str
    path: str
    """Still percent-encoded: an object's name is one segment of it."""
    query: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    base_url: str = ""

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body) if self.body else {}
        except ValueError:
            raise Refusal(400, "parseError", "Parse Error") from None
        if not isinstance(value, dict):
            raise Refusal(400, "parseError", "an object is expected")
        return value


@dataclass(slots=True)
class Response:
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | memoryview = b""


class Refusal(Exception):  # noqa: N818 - it becomes an answer, not a failure of the server
    """An error the client is told about; each API words it in its own format."""

    def __init__(self, status: int, reason: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.headers = dict(headers or {})


def json_response(value: object, status: int = 200) -> Response:
    return Response(status, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(value).encode())


_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


def requested_range(header: str | None, length: int) -> tuple[int, int] | None:
    """The half-open range a Range header asks for; None for the whole object. 416 when nothing of it exists."""
    match = _RANGE.match(header or "")
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    start = int(first) if first else max(0, length - int(last))
    end = min(length, int(last) + 1) if first and last else length
    if start >= length or start >= end:
        raise Refusal(
            416,
            "requestedRangeNotSatisfiable",
            "The requested range cannot be satisfied.",
            {"Content-Range": f"bytes */{length}"},
        )
    return start, end
