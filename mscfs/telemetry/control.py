"""The control socket: how commands talk to a running mount.

One JSON object a line. A request is `{"command": NAME, ARGUMENT: VALUE…}`; the answer is `{"result": VALUE}` or
`{"error": LINE}`. A connection may carry several requests, one after the other. Names that are not UTF-8 travel as
lone surrogates, escaped. The socket is 0600 in a 0700 directory, and the server asks the kernel who is calling.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mscfs.errors import MountError, MscfsError

if TYPE_CHECKING:
    import trio

Handler = Callable[[Mapping[str, Any]], Awaitable[object]]
"""Takes the arguments of one request; what it returns must be JSON. An MscfsError becomes the caller's error line."""

LONGEST_LINE = 1 << 20

logger = logging.getLogger(__name__)


def request(
    path: Path, command: str, arguments: Mapping[str, object] | None = None, *, timeout: float | None = 10.0
) -> Any:
    """Send one command and return its result. Blocking; `timeout` in seconds for each silence, None for ever.

    Raises MountError when nobody listens, when the answer does not come in time, or with the line the mount answered.
    """
    line = json.dumps({"command": command, **(arguments or {})}).encode() + b"\n"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            with _address(path) as address:
                connection.connect(address)
            connection.sendall(line)
            with connection.makefile("rb") as stream:
                answer = stream.readline()
    except TimeoutError:
        raise MountError(f"the mount did not answer `{command}` within {timeout:g} s") from None
    except OSError as error:
        raise MountError(f"the mount cannot be reached at {path}: {error.strerror or error}") from None
    if not answer.endswith(b"\n"):
        raise MountError(f"the mount ended before it answered `{command}`")
    parsed = json.loads(answer)
    if "error" in parsed:
        raise MountError(parsed["error"])
    return parsed["result"]


async def serve(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[Any] | None = None,
) -> None:
    """Answer requests until cancelled; the socket is there when the task reports that it started.

    A socket file left by an earlier process is replaced. On the way out, also by cancellation, the file is removed
    and requests under way are cancelled.
    """
    import trio  # noqa: PLC0415 - the client side of this module serves commands that must start quickly

    listener = trio.SocketListener(trio.socket.from_stdlib_socket(_listen(path)))
    try:
        await trio.serve_listeners(
            partial(_converse, handlers=handlers),
            [listener],
            task_status=task_status or trio.TASK_STATUS_IGNORED,
        )
    finally:
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - one call on a file system in memory


async def _converse(stream: trio.SocketStream, *, handlers: Mapping[str, Handler]) -> None:
    import trio  # noqa: PLC0415 - see serve

    caller = _peer_uid(stream.socket)
    if caller not in {0, os.geteuid()}:
        logger.warning("refused a control connection from uid %d", caller)
        return
    received = bytearray()
    # A caller that goes away in the middle of anything harms only itself.
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async for data in stream:
            received += data
            while (end := received.find(b"\n")) >= 0:
                line = bytes(received[:end])
                del received[: end + 1]
                await stream.send_all(json.dumps(await _answer(line, handlers)).encode() + b"\n")
            if len(received) > LONGEST_LINE:
                return


async def _answer(line: bytes, handlers: Mapping[str, Handler]) -> dict[str, object]:
    try:
        asked = json.loads(line)
        command = asked.pop("command")
        handler = handlers.get(command)
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return {"error": "not a request: one JSON object with a `command` is needed"}
    if handler is None:
        return {"error": f"no command `{command}`; known: {', '.join(sorted(handlers))}"}
    try:
        return {"result": await handler(asked)}
    except MscfsError as error:
        return {"error": str(error)}
    except Exception:
        # A bug in one command must not end the mount (contract L3).
        logger.exception("the control command %s failed", command)
        return {"error": f"`{command}` failed inside the mount; its log has the details"}


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with suppress(FileNotFoundError):
            path.unlink()
        with _address(path) as address:
            listener.bind(address)
        # Nobody can connect before listen(): the mode is right from the first moment on.
        path.chmod(0o600)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener


def _peer_uid(connection: trio.socket.SocketType) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The socket's address by way of its directory: an address of its own may have 107 bytes at most."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
