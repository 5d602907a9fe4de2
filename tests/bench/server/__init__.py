"""A local S3 server that is not the bottleneck: nginx for the bytes, a Lua script for the protocol.

Objects lie on tmpfs, so that no disk is measured. Any credentials pass. Object sets are prepared by writing the files
directly (`Bucket.put`), which the server finds by itself.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

INSTALL = "apt-get install --no-install-recommends nginx-light libnginx-mod-http-lua"
ACCESS_KEY = "bench"
SECRET_KEY = "not-so-secret"
REGION = "us-east-1"

_MODULES = ("ndk_http_module.so", "ngx_http_lua_module.so")
_MODULE_DIRECTORIES = (Path("/usr/lib/nginx/modules"), Path("/usr/lib64/nginx/modules"))
_START_SECONDS = 10.0


class ServerError(Exception):
    """The server cannot be started; the message says why."""


@dataclass(frozen=True)
class Counters:
    """What the server has sent and received since its start, in bytes of bodies."""

    values: dict[str, int]

    def __sub__(self, earlier: Counters) -> Counters:
        return Counters({name: value - earlier.values.get(name, 0) for name, value in self.values.items()})

    @property
    def object_bytes(self) -> int:
        """Bytes of objects that were sent."""
        return self.values.get("sent:get", 0)


class Bucket:
    """One bucket, seen from the server's side."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        path.mkdir(mode=0o700, exist_ok=True)

    def file(self, key: str) -> Path:
        """Where an object's bytes are (all of them once it was read, when it was uploaded in parts)."""
        return self.path / key.replace("/", "\x01")

    def put(self, key: str, content: bytes) -> None:
        """Prepare an object."""
        self.file(key).write_bytes(content)

    def link(self, key: str, target: str) -> None:
        """Prepare an object that costs no memory: another name for the same bytes."""
        os.link(self.file(target), self.file(key))

    def holds(self, key: str, size: int) -> bool:
        """Whether the server has an object of this size."""
        try:
            return self.file(key).stat().st_size == size
        except FileNotFoundError:
            return False

    def clear(self) -> None:
        """Delete all objects, and the parts of all uploads."""
        for path in (self.path, self.path.parent.parent / "uploads"):
            shutil.rmtree(path)
            path.mkdir(mode=0o700)


class Server:
    """A running server."""

    def __init__(self, port: int, directory: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._directory = directory

    def bucket(self, name: str) -> Bucket:
        """A bucket, made when it is not there."""
        return Bucket(name, self._directory / "buckets" / name)

    def counters(self) -> Counters:
        """What was sent and received so far; a request counts when it has ended."""
        with urllib.request.urlopen(f"{self.url}/-/counters", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return Counters({name: int(float(value)) for name, _, value in (line.partition(" ") for line in lines)})

    def errors(self) -> str:
        """What nginx complained of."""
        log = self._directory / "error.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def client(self) -> Any:
        """boto3's client of this server."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )


def missing() -> str | None:
    """What has to be installed before the server can run, or None."""
    if shutil.which("nginx", path=_search_path()) is None or _module_directory() is None:
        return INSTALL
    return None


@contextmanager
def running(directory: Path) -> Iterator[Server]:
    """A server with its objects in a directory, which should be on tmpfs. Raises ServerError."""
    if advice := missing():
        raise ServerError(f"the server needs nginx with Lua: {advice}")
    for name in ("buckets", "uploads", "incoming"):
        (directory / name).mkdir(mode=0o700, parents=True)
    port = free_port()
    configuration = directory / "nginx.conf"
    template = Template((Path(__file__).parent / "nginx.conf").read_text())
    configuration.write_text(
        template.substitute(
            modules="\n".join(f"load_module {_module_directory()}/{name};" for name in _MODULES),
            user="user root;" if os.geteuid() == 0 else "",
            directory=directory,
            lua=Path(__file__).parent,
            port=port,
        )
    )
    program = shutil.which("nginx", path=_search_path())
    assert program is not None
    log = directory / "error.log"
    command = [program, "-e", str(log), "-p", str(directory), "-c", str(configuration)]
    # A session of its own: Ctrl-C must not take the server away before what is mounted from it.
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        try:
            server = Server(port, directory)
            _wait_until_it_answers(server, process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def free_port() -> int:
    """A port of the loopback interface that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait_until_it_answers(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"nginx ended with {process.returncode}: {server.errors()[-2000:]}")
        try:
            server.counters()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise ServerError(f"nginx does not answer: {server.errors()[-2000:]}")


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))


def _module_directory() -> Path | None:
    for directory in _MODULE_DIRECTORIES:
        if all((directory / name).exists() for name in _MODULES):
            return directory
    return None
