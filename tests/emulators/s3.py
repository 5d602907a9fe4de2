"""The S3 servers of a test run: ministack in processes of its own, and moto in this one as a second opinion."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import pytest

from tests.emulators.certificates import make_certificate

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

START_SECONDS = 60


class S3Server:
    """A running server. It takes any credentials."""

    def __init__(self, url: str, reset_path: str, *, ca_bundle: str | None = None) -> None:
        self.url = url
        self.ca_bundle = ca_bundle
        """What a client of a TLS server has to trust."""
        self._reset_path = reset_path

    def new_bucket(self) -> dict[str, Any]:
        """A new, empty bucket, as the profile that reads and writes below a prefix in it."""
        name = f"test-{uuid.uuid4().hex}"
        self.client().create_bucket(Bucket=name)
        options: dict[str, Any] = {"base_path": f"{name}/some/prefix", "endpoint_url": self.url}
        if self.ca_bundle:
            options["verify"] = self.ca_bundle
        return {
            "storage_provider": {"type": "s3", "options": options},
            "credentials_provider": {
                "type": "S3Credentials",
                "options": {"access_key": "test", "secret_key": "not-so-secret"},
            },
        }

    @cache  # noqa: B019 - as long as the server, which is one of a few
    def client(self) -> Any:
        """The SDK's client, for what a test prepares behind the provider's back."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="not-so-secret",
            verify=self.ca_bundle,
            config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        )

    def reset(self) -> None:
        """Forget everything: it is all in the server's memory."""
        with urlopen(Request(self.url + self._reset_path, method="POST"), timeout=30) as response:
            response.read()


@pytest.fixture(scope="session")
def ministack() -> Iterator[S3Server]:
    with running_ministack() as server:
        yield server


@contextmanager
def running_ministack() -> Iterator[S3Server]:
    """A server of its own, for a program that is no test."""
    with _running_ministack({}) as port:
        yield S3Server(f"http://127.0.0.1:{port}", "/_ministack/reset")


@pytest.fixture
def s3_server(ministack: S3Server) -> Iterator[S3Server]:
    """One server for the whole run, which forgets everything after each test."""
    yield ministack
    ministack.reset()


@pytest.fixture(scope="session")
def s3_tls_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The same over TLS, with a certificate that only `ca_bundle` vouches for."""
    certificate, key = make_certificate(tmp_path_factory.mktemp("tls"))
    settings = {"USE_SSL": "1", "MINISTACK_SSL_CERT": str(certificate), "MINISTACK_SSL_KEY": str(key)}
    with _running_ministack(settings) as port:
        yield S3Server(f"https://127.0.0.1:{port}", "/_ministack/reset", ca_bundle=str(certificate))


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = _one_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield S3Server(f"http://127.0.0.1:{server.server_port}", "/moto-api/reset")
    server.shutdown()
    thread.join()
    server.server_close()


def _one_at_a_time(application: WSGIApplication) -> WSGIApplication:
    """The same for one request after the other.

    moto looks at a condition and replaces the object later, so that of two requests both may win; and it
    answers 500 for an object that is replaced while it is read. No store does either.
    """
    lock = Lock()

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with lock:
            return list(application(environ, start_response))

    return serve


@pytest.fixture
def moto_server(moto: S3Server) -> Iterator[S3Server]:
    """Another implementation, which forgets everything after each test."""
    yield moto
    moto.reset()


@contextmanager
def _running_ministack(settings: dict[str, str]) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # A clean environment: the server would take much from AWS_* and DOCKER_HOST.
    environment = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    environment |= {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "s3", "LOG_LEVEL": "ERROR"}
    program = Path(sys.executable).parent / "ministack"
    with subprocess.Popen([program], env=environment | settings, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_answers(process, port)
            yield port
        finally:
            process.kill()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"ministack ended with {process.returncode}; its stderr tells why"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"ministack does not answer after {START_SECONDS} s")
