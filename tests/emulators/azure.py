"""The Azure server of a test run: azurite, in memory."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
AZURITE = ROOT / ".ci/cache/node_modules/azurite/dist/src/blob/main.js"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's own, and no secret: its documentation gives it."""

START_SECONDS = 60


class AzureServer:
    """A running azurite with its one account."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/{ACCOUNT}"

    def new_bucket(self) -> dict[str, Any]:
        """A new, empty container, as the profile that reads and writes below a prefix in it."""
        name = f"test-{uuid.uuid4().hex}"
        self.container(name).create_container()
        return {
            "storage_provider": {
                "type": "azure",
                "options": {"base_path": f"{name}/some/prefix", "endpoint_url": self.url},
            },
            "credentials_provider": {"type": "AzureCredentials", "options": {"connection": self.connection()}},
        }

    def connection(self, key: str = KEY) -> str:
        """The account's connection string."""
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};BlobEndpoint={self.url};"

    def wrong_key(self) -> str:
        """A connection string that the server refuses."""
        return self.connection(base64.b64encode(b"not the key of this account").decode())

    def container(self, name: str) -> Any:
        """The SDK's client of a container, for what a test prepares behind the provider's back."""
        from azure.storage.blob import ContainerClient

        return ContainerClient.from_connection_string(self.connection(), name, retry_total=0)


@pytest.fixture(scope="session")
def azure_server() -> Iterator[AzureServer]:
    """One server for the whole run; every test takes a container of its own."""
    if not AZURITE.exists():
        pytest.fail(f"azurite is not installed ({AZURITE} is missing): run  bash .ci/bootstrap --tests")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *("node", str(AZURITE), "--blobHost", "127.0.0.1", "--blobPort", str(port)),
        *("--silent", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"),
    ]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_answers(process, port)
            yield AzureServer(port)
        finally:
            process.kill()


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"azurite ended with {process.returncode}; its stderr tells why"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"azurite does not answer after {START_SECONDS} s")
