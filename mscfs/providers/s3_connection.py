"""The way to a bucket of S3: credentials, one boto3 client for each process, errors in our words."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import CredentialProvider, RefreshableCredentials
from botocore.exceptions import ClientError, CredentialRetrievalError, NoCredentialsError
from botocore.loaders import Loader, create_loader

from mscfs.config.values import ProviderConfig
from mscfs.errors import (
    AlreadyExistsError,
    ConfigError,
    NotFoundError,
    StorageError,
    VersionMismatchError,
    from_nonsense,
)
from mscfs.providers.native import client_options, retry_config
from mscfs.providers.s3_errors import from_sdk
from mscfs.providers.s3_listing import keep_pages

_CONNECTIONS = 64
_TIMEOUT = 10.0
_HOME_REGION = "us-east-1"
"""The one whose endpoint redirects to all others."""

_FILE_LIFE = timedelta(minutes=20)
"""How long credentials from a file that names no end are used before the file is read again."""

_NATIVE_LIFE = timedelta(minutes=6)
"""The native client asks again when less than five minutes are left: about once a minute."""


class S3Connection:
    """One bucket. Safe in threads and after a fork: each process makes its own session and client."""

    def __init__(
        self,
        *,
        profile: str,
        bucket: str,
        options: Mapping[str, Any],
        credentials: ProviderConfig | None,
    ) -> None:
        self.profile = profile
        self.bucket = bucket
        self._options = options
        self._credentials = credentials
        native = options.get("rust_client")
        self._native_options = {**options, **(native if isinstance(native, Mapping) else {})}
        self._anonymous = bool(self._native_options.get("skip_signature"))
        self._sessions: dict[int, tuple[boto3.Session, Any]] = {}
        self._locks: dict[int, threading.Lock] = {}
        _check_credentials(credentials)

    @property
    def endpoint(self) -> str:
        """The configured endpoint without what may be secret in it; empty for that of AWS."""
        if not self._url:
            return ""
        parts = urlsplit(self._url)
        return parts.netloc.rpartition("@")[2] + parts.path.rstrip("/")

    @property
    def _url(self) -> str:
        options = self._options
        url = options.get("endpoint_url") or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        return str(url or "")

    @property
    def client(self) -> Any:
        """This process's boto3 client."""
        return self._session()[1]

    @property
    def is_native(self) -> bool:
        """Whether the native client can be used: not with what only boto3 knows."""
        return (
            self._options.get("rust_client") is not False
            and self._options.get("signature_version", "s3v4") in ("s3v4", "v4")
            and not set(self._options.get("s3", {})) - {"addressing_style"}
            and not self.bucket.endswith("--x-s3")
            and ":" not in self.bucket
        )

    @contextmanager
    def errors(self, key: str = "", *, if_absent: bool = False, replacing: bool = False) -> Iterator[None]:
        """Turn what boto3 raises into a StorageError that tells no secret.

        With `if_absent`, an unmet precondition means that the key exists; when `replacing`, so does a missing key.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, StorageError) and error.store:
                raise
            translated = from_sdk(error) or from_nonsense(error)
            if translated is None:
                raise
            kind, message = translated
            if if_absent and kind is VersionMismatchError:
                kind, message = AlreadyExistsError, "the object exists"
            if replacing and kind is NotFoundError:
                kind, message = VersionMismatchError, "the object has changed"
            raise kind(message, store=self.profile, key=key) from None

    def native_credentials(self) -> dict[str, Any]:
        """What the native client signs with, from boto3's own chain."""
        with self.errors():
            credentials = self._session()[0].get_credentials()
            if credentials is None:
                raise NoCredentialsError
            frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _NATIVE_LIFE,
        }

    def open_native_store(self, credentials: Callable[[], Any] | None) -> Any:
        """The obstore store of this bucket, at the endpoint that boto3 uses."""
        from obstore.store import S3Store  # noqa: PLC0415 - loaded when first used

        with self.errors():
            session, client = self._session()
            if not self.endpoint:
                client = self._make_client(session, self._bucket_region())
        url = client.meta.endpoint_url.rstrip("/")
        style = client.meta.config.s3.get("addressing_style")
        virtual = style == "virtual" or (style != "path" and "." not in self.bucket)
        if virtual:
            parts = urlsplit(url)
            url = parts._replace(netloc=f"{self.bucket}.{parts.netloc}").geturl()
        connect_timeout, read_timeout = (
            float(self._native_options.get(name, _TIMEOUT)) for name in ("connect_timeout", "read_timeout")
        )
        settings: Any = {
            "client_options": client_options(
                url=url, connect_timeout=connect_timeout, read_timeout=read_timeout, **self._trust()
            ),
            "retry_config": retry_config(),
            # Named twice: the environment could override the first.
            "config": {"endpoint": url, "aws_endpoint_url_s3": url, "region": client.meta.region_name},
        }
        settings["config"] |= {
            "virtual_hosted_style_request": virtual,
            "skip_signature": self._anonymous,
            "s3_express": False,
        }
        return S3Store(self.bucket, credential_provider=None if self._anonymous else credentials, **settings)

    def close(self) -> None:
        """Give up the connections of this process."""
        made = self._sessions.pop(os.getpid(), None)
        if made is not None:
            made[1].close()

    def _session(self) -> tuple[boto3.Session, Any]:
        process = os.getpid()
        made = self._sessions.get(process)
        if made is None:
            # A lock for each process: one that another thread holds during a fork stays locked in the child.
            with self._locks.setdefault(process, threading.Lock()):
                made = self._sessions.get(process) or self._make_session()
                self._sessions[process] = made
        return made

    def _make_session(self) -> tuple[boto3.Session, Any]:
        options = self._options
        static = self._credentials.options if self._credentials else {}
        with self.errors():
            base = botocore.session.Session(profile=options.get("profile_name"))
            base.register_component("data_loader", _descriptions(base.get_config_variable("data_path")))
            if "credential_file_path" in static:
                chain = base.get_component("credential_provider")
                chain.insert_before("env", _CredentialFile(Path(static["credential_file_path"])))
            session = boto3.Session(
                botocore_session=base,
                region_name=options.get("region_name"),
                aws_access_key_id=static.get("access_key"),
                aws_secret_access_key=static.get("secret_key"),
                aws_session_token=static.get("session_token") or None,
            )
            client = self._make_client(session, session.region_name or _HOME_REGION)
            keep_pages(client)
        return session, client

    def _make_client(self, session: boto3.Session, region: str) -> Any:
        return session.client(
            "s3",
            region_name=region,
            endpoint_url=self._options.get("endpoint_url") or None,
            verify=self._options.get("verify"),
            config=self._config(),
        )

    def _config(self) -> Config:
        options = self._options
        # The retrying provider repeats calls.
        retries: Any = options.get("retries") or {"total_max_attempts": 1}
        style: Any = {"addressing_style": "path" if self.endpoint else "auto"}
        given = {
            name: options[name]
            for name in ("request_checksum_calculation", "response_checksum_validation")
            if name in options
        }
        if self._url.startswith("http:") and "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
            # There a body is signed with its SHA-256: a CRC beside it costs time and finds nothing more.
            given.setdefault("request_checksum_calculation", "when_required")
        return Config(
            connect_timeout=float(options.get("connect_timeout", _TIMEOUT)),
            read_timeout=float(options.get("read_timeout", _TIMEOUT)),
            max_pool_connections=int(options.get("max_pool_connections", _CONNECTIONS)),
            retries=retries,
            signature_version=UNSIGNED if self._anonymous else options.get("signature_version", "s3v4"),
            s3=style | options.get("s3", {}),
            tcp_keepalive=True,
            **given,
        )

    def _bucket_region(self) -> str:
        """Where AWS keeps the bucket. boto3 follows the redirects to it, the native client does not."""
        try:
            answer = self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            answer = error.response
        headers: Mapping[str, str] = answer["ResponseMetadata"]["HTTPHeaders"]
        return headers.get("x-amz-bucket-region") or str(self.client.meta.region_name)

    def _trust(self) -> dict[str, Any]:
        """Which certificates the native client trusts, as boto3 does."""
        verify = self._options.get("verify")
        if verify is False:
            return {"allow_invalid_certificates": True}
        if not isinstance(verify, str):
            # Also from AWS_CA_BUNDLE and the AWS configuration files.
            verify = self._session()[0]._session.get_config_variable("ca_bundle")  # noqa: SLF001 - no other way
        if not verify:
            return {}
        try:
            return {"root_certificate": Path(verify).read_bytes()}
        except OSError as error:
            message = f"the CA bundle {verify} cannot be read: {error.strerror}"
            raise StorageError(message, store=self.profile) from None


@cache
def _descriptions(search_path: str | None) -> Loader:
    """What botocore knows of the services, read once: 12 MB and four fifths of the time that making a client takes."""
    loader: Loader = create_loader(search_path)
    return loader


class _CredentialFile(CredentialProvider):  # type: ignore[misc, unused-ignore]  # typed by separate stubs
    """Credentials in the file format of AWS's external processes, read again before they end."""

    METHOD = "credential-file"
    CANONICAL_NAME = METHOD

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load(self) -> RefreshableCredentials:
        return RefreshableCredentials.create_from_metadata(self._read(), self._read, self.METHOD)

    def _read(self) -> dict[str, Any]:
        try:
            content = json.loads(self._path.read_bytes())
            return {
                "access_key": content["AccessKeyId"],
                "secret_key": content["SecretAccessKey"],
                "token": content.get("SessionToken"),
                "expiry_time": content.get("Expiration") or (datetime.now(UTC) + _FILE_LIFE).isoformat(),
            }
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise CredentialRetrievalError(provider=self.METHOD, error_msg=type(error).__name__) from None


def _check_credentials(credentials: ProviderConfig | None) -> None:
    if credentials is not None and credentials.type not in ("S3Credentials", "FileBasedCredentials"):
        raise ConfigError(f"{credentials.type} gives no credentials for S3")
