"""The Google Cloud Storage server of a test run: the project's own fake, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ROOT = Path(__file__).parents[2]


def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class GcsServer:
    """A running server and the one service account that it knows."""

    def __init__(self, url: str, key: rsa.RSAPrivateKey) -> None:
        self.url = url
        self._key = key

    def new_bucket(self) -> dict[str, Any]:
        """A new, empty bucket, as the profile that reads and writes below a prefix in it."""
        name = f"test-{uuid.uuid4().hex}"
        self.call("POST", "/storage/v1/b", {"name": name})
        return {
            "storage_provider": {
                "type": "gcs",
                "options": {"base_path": f"{name}/some/prefix", "endpoint_url": self.url, "project_id": "test"},
            },
            "credentials_provider": {
                "type": "GoogleServiceAccountCredentialsProvider",
                "options": {"info": self.service_account()},
            },
        }

    def service_account(self, key: rsa.RSAPrivateKey | None = None) -> dict[str, str]:
        """The account's key file; with another key, one that the server refuses."""
        pem = (key or self._key).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return {
            "type": "service_account",
            "project_id": "test",
            "private_key_id": "1",
            "private_key": pem.decode(),
            "client_email": "mscfs@test.iam.gserviceaccount.com",
            "client_id": "1",
            "token_uri": f"{self.url}/token",
        }

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One anonymous call of the JSON API, for what a test prepares behind the provider's back."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.url + path, data, {"Content-Type": "application/json"}, method=method)
        with urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GcsServer]:
    """One server for the whole run; every test takes a bucket of its own."""
    key = private_key()
    public = tmp_path_factory.mktemp("gcs") / "public.pem"
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    command = [sys.executable, "-m", f"{__package__}.gcs_fake", "--public-key", str(public)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url, "the fake of Google Cloud Storage did not start; its stderr tells why"
            yield GcsServer(url, key)
        finally:
            process.kill()
