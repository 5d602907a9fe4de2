"""HTTP/1.1 on asyncio: enough of it for the clients that talk to this server, and fast."""

from __future__ import annotations

import asyncio
import traceback
from http import HTTPStatus
from urllib.parse import parse_qsl

from . import json_api, xml_api
from .messages import Refusal, Request, Response
from .oauth import TokenIssuer
from .objects import Service
from .uploads import UploadApi

_JSON_PREFIXES = ("/storage/v1/", "/download/storage/v1/", "/upload/storage/v1/", "/batch/storage/v1", "/resumable/")
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {308: "Resume Incomplete", 499: "Cancelled"}
_NO_BODY = (204, 304, 499)


class Application:
    """Finds the API a request is for."""

    def __init__(self, public_key: str) -> None:
        service = Service()
        self._tokens = TokenIssuer(public_key)
        self._json = json_api.JsonApi(service)
        self._uploads = UploadApi(service)
        self._xml = xml_api.XmlApi(service)

    def answer(self, request: Request) -> Response:
        json_call = request.path.startswith(_JSON_PREFIXES)
        try:
            if request.path == "/token":
                return self._tokens.handle(request)
            self._tokens.authorize(request)
            if request.path.startswith(("/upload/", "/resumable/")):
                return self._uploads.handle(request)
            if request.path.startswith("/batch/"):
                return self._json.batch(request)
            return self._json.handle(request) if json_call else self._xml.handle(request)
        except Refusal as refusal:
            return (json_api if json_call else xml_api).error_response(refusal)
        except Exception:  # noqa: BLE001 - a bug here must fail one request of a test, visibly
            traceback.print_exc()
            return Response(500, {"Content-Type": "text/plain"}, b"the fake is broken, see its stderr")


class Connection(asyncio.Protocol):
    """One client connection; answers in order, header and body in one write."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._received = bytearray()
        self._head: tuple[str, str, dict[str, str]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (request := self._next_request()) is not None:
            self._send(request, self._application.answer(request))

    def _next_request(self) -> Request | None:
        if self._head is None:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return None
            line, *lines = self._received[:end].decode("latin-1").split("\r\n")
            method, target, _ = line.split(" ", 2)
            pairs = (header.partition(":") for header in lines)
            self._head = method, target, {name.lower(): value.strip() for name, _, value in pairs}
            del self._received[: end + 4]
        method, target, headers = self._head
        length = int(headers.get("content-length", "0"))
        if len(self._received) < length:
            return None
        body = bytes(self._received[:length])
        del self._received[:length]
        self._head = None
        path, _, query = target.partition("?")
        values = dict(parse_qsl(query, keep_blank_values=True))
        return Request(method, path, values, headers, body, f"http://{headers.get('host', '')}")

    def _send(self, request: Request, response: Response) -> None:
        head = [f"HTTP/1.1 {response.status} {_PHRASES[response.status]}"]
        head += [f"{name}: {value}" for name, value in response.headers.items()]
        if response.status not in _NO_BODY:
            head.append(f"Content-Length: {len(response.body)}")
        elif response.status != 304:
            head.append("Content-Length: 0")
        encoded = ("\r\n".join(head) + "\r\n\r\n").encode("latin-1", "replace")
        body = b"" if request.method == "HEAD" else response.body
        if len(body) < 1 << 16:
            self._transport.write(encoded + bytes(body))
        else:
            self._transport.writelines((encoded, body))
        if request.headers.get("connection") == "close":
            self._transport.close()


async def serve(host: str, port: int, public_key: str) -> None:
    """Serve until cancelled; print the URL once connections are accepted."""
    application = Application(public_key)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(application), host, port)
    bound = server.sockets[0].getsockname()[1]
    print(f"http://{host}:{bound}", flush=True)
    async with server:
        await server.serve_forever()
