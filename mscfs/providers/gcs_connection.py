"""The way to a bucket of Google Cloud Storage: credentials, one SDK client for each process, errors in our words."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict

import google.auth
import requests
import urllib3.exceptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth import exceptions as auth_exceptions
from google.auth import identity_pool
from google.auth.credentials import AnonymousCredentials, Credentials, with_scopes_if_required
from google.auth.transport.requests import AuthorizedSession, Request
from google.cloud.storage import Bucket, Client
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.oauth2 import service_account
from requests.adapters import HTTPAdapter

from mscfs.config.values import ProviderConfig
from mscfs.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigError,
    IntegrityError,
    InvalidKeyError,
    NotFoundError,
    StorageError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
    from_nonsense,
)
from mscfs.providers.timeouts import native_timeouts, timeouts
from mscfs.types import Version

PUBLIC_ENDPOINT = "https://storage.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/devstorage.full_control",)
_FRESH = timedelta(minutes=5)
"""A token that ends sooner is renewed before it is handed to the native client."""

_BUCKET_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")
_DENIED = "the store denied access"
_PERMISSION = re.compile(r"\bstorage\.\w+\.\w+")
"""As `storage.objects.create`."""

_BY_STATUS: dict[int, tuple[type[StorageError], str]] = {
    401: (AccessDeniedError, "the store refused the credentials"),
    403: (AccessDeniedError, _DENIED),
    404: (NotFoundError, "no such object"),
    408: (StoreTimeoutError, "the store gave up waiting for the request"),
    412: (VersionMismatchError, "the object has changed"),
    416: (IntegrityError, "the object is shorter than expected"),
    429: (StoreUnavailableError, "the store is throttling requests"),
}


class Token(TypedDict):
    """An access token as the native client takes it."""

    token: str
    expires_at: datetime | None


class GcsConnection:
    """One bucket. Safe in threads and after a fork: each process makes its own client."""

    def __init__(
        self,
        *,
        profile: str,
        bucket: str,
        options: Mapping[str, Any],
        credentials: ProviderConfig | None,
    ) -> None:
        if not _BUCKET_NAME.fullmatch(bucket):
            message = "no bucket can have this name: it is made of lower-case letters, digits, '-', '_' and '.'"
            raise ConfigError(f"profiles.{profile}.storage_provider.options.base_path: {bucket!r}: {message}")
        self.profile = profile
        self.bucket_name = bucket
        self.timeout = timeouts(options)
        """Seconds to connect, and seconds the store may stay silent."""
        self.native_timeout = native_timeouts(options)
        emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
        if emulator and "://" not in emulator:
            emulator = f"http://{emulator}"
        self.endpoint: str = (options.get("endpoint_url") or emulator or PUBLIC_ENDPOINT).rstrip("/")
        native = options.get("rust_client")
        public = options.get("skip_signature") or (isinstance(native, Mapping) and native.get("skip_signature"))
        self.anonymous = bool(public) or (credentials is None and bool(emulator))
        self._project = options.get("project_id") or os.environ.get("GOOGLE_CLOUD_PROJECT_ID") or None
        self._connections = int(options.get("max_pool_connections", 64))
        self._load = _loader(credentials)
        self._clients: dict[int, Client] = {}
        self._credentials: Credentials | None = None

    @property
    def bucket(self) -> Bucket:
        """The SDK's handle of the bucket. No request is made."""
        return self.client.bucket(self.bucket_name)

    @property
    def client(self) -> Client:
        """This process's SDK client."""
        process = os.getpid()
        client = self._clients.get(process)
        # Two threads may both make the first one; one of the two is kept. A lock could stay locked after a fork.
        return client if client is not None else self._clients.setdefault(process, self._make_client())

    def token(self) -> Token:
        """An access token for the native client, renewed when it ends soon."""
        with self.errors():
            credentials = self.credentials()
            expiry = _aware(credentials.expiry)
            if not credentials.token or (expiry is not None and expiry - _FRESH < datetime.now(UTC)):
                credentials.refresh(Request())
            return {"token": credentials.token or "", "expires_at": _aware(credentials.expiry)}

    @contextmanager
    def errors(self, key: str = "", *, if_absent: bool = False) -> Iterator[None]:
        """Turn what the SDK raises into a StorageError that tells no secret.

        With `if_absent`, an unmet precondition means that the key exists.
        """
        try:
            yield
        except StorageError:
            raise
        except Exception as error:
            translated = _translate(error) or from_nonsense(error)
            if translated is None:
                raise
            kind, message = translated
            if if_absent and kind is VersionMismatchError:
                kind, message = AlreadyExistsError, "the object exists"
            raise kind(message, store=self.profile, key=key) from None

    def condition(self, key: str, *, if_absent: bool = False, expected: Version | None = None) -> int | None:
        """The generation a key must have for a write: 0 for none at all, None for any."""
        if expected is None:
            return 0 if if_absent else None
        if not expected.tag.isdecimal():
            raise VersionMismatchError("the object is of another store's version", store=self.profile, key=key)
        return int(expected.tag)

    def close(self) -> None:
        """Give up the connections of this process."""
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _make_client(self) -> Client:
        credentials = self.credentials()
        session = AuthorizedSession(credentials)
        # With the default of ten, every thread beyond the tenth opens a connection for each request.
        session.mount(self.endpoint, HTTPAdapter(pool_maxsize=self._connections))
        return Client(
            project=self._project,
            credentials=credentials,
            client_options={"api_endpoint": self.endpoint},
            _http=session,
        )

    def credentials(self) -> Credentials:
        if self._credentials is None:
            try:
                loaded = AnonymousCredentials() if self.anonymous else self._load()
            except (OSError, ValueError, auth_exceptions.GoogleAuthError) as error:
                raise AccessDeniedError(_why_not_loaded(error), store=self.profile) from None
            self._credentials = with_scopes_if_required(loaded, _SCOPES)
        return self._credentials


def pages_of(listing: Any) -> Iterator[Any]:
    """The pages of a listing of the SDK; ValueError where there is no end."""
    token = None
    for page in listing.pages:
        if listing.next_page_token and listing.next_page_token == token:
            raise ValueError("the same page follows for ever")
        token = listing.next_page_token
        yield page


def _loader(config: ProviderConfig | None) -> Callable[[], Credentials]:
    """What makes the credentials of a profile when they are needed first."""
    options: Mapping[str, Any] = config.options if config else {}
    if config is None:
        return _application_default
    if config.type == "GoogleServiceAccountCredentialsProvider":
        if ("file" in options) == ("info" in options):
            raise ConfigError("GoogleServiceAccountCredentialsProvider needs either file or info")
        return lambda: _service_account(options)
    if config.type == "GoogleIdentityPoolCredentialsProvider":
        return lambda: _identity_pool(options["audience"], options["token_supplier"])
    raise ConfigError(f"{config.type} gives no credentials for Google Cloud Storage")


def _why_not_loaded(error: Exception) -> str:
    """What the credentials lack; what the error says of them may quote a secret."""
    if isinstance(error, OSError):
        return f"the credentials file {error.filename} cannot be read: {error.strerror}"
    if not isinstance(error, auth_exceptions.DefaultCredentialsError):
        return f"the credentials are malformed ({type(error).__name__})"
    if file := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return f"there are no credentials in {file}, which GOOGLE_APPLICATION_CREDENTIALS names"
    return (
        "no credentials were found: set credentials_provider or GOOGLE_APPLICATION_CREDENTIALS, or for a public bucket"
        " skip_signature: true"
    )


def _application_default() -> Credentials:
    return google.auth.default(scopes=_SCOPES)[0]


def _service_account(options: Mapping[str, Any]) -> Credentials:
    credentials: Credentials
    if "file" in options:
        credentials = service_account.Credentials.from_service_account_file(options["file"])
    else:
        credentials = service_account.Credentials.from_service_account_info(dict(options["info"]))
    return credentials


class _GivenToken(identity_pool.SubjectTokenSupplier):
    def __init__(self, token: str) -> None:
        self._token = token

    def get_subject_token(self, context: Any, request: Any) -> str:
        return self._token


def _identity_pool(audience: str, token: str) -> Credentials:
    return identity_pool.Credentials(
        audience=audience,
        subject_token_type="urn:ietf:params:oauth:token-type:id_token",  # noqa: S106 - the name of a kind of token
        subject_token_supplier=_GivenToken(token),
    )


def _aware(moment: datetime | None) -> datetime | None:
    # google-auth keeps UTC without saying so.
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _translate(error: Exception) -> tuple[type[StorageError], str] | None:
    if isinstance(error, GoogleAPICallError):
        return from_status(int(error.code or 0), str(error.message))
    if isinstance(error, InvalidResponse):
        return from_status(error.response.status_code, error.response.text)
    if isinstance(error, DataCorruption):
        return IntegrityError, "the checksum of the transferred bytes is wrong"
    if isinstance(error, auth_exceptions.RefreshError) and not error.retryable:
        return AccessDeniedError, "Google refused the credentials"
    if isinstance(
        error,
        auth_exceptions.TransportError
        | auth_exceptions.RefreshError
        | requests.RequestException
        | urllib3.exceptions.HTTPError,
    ):
        if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError) or "timed out" in str(error):
            return StoreTimeoutError, "no answer in time"
        return StoreUnavailableError, "cannot be reached"
    if isinstance(error, auth_exceptions.GoogleAuthError):
        return AccessDeniedError, f"the credentials cannot be used ({type(error).__name__})"
    return None


def from_status(status: int, text: str) -> tuple[type[StorageError], str]:
    """The class and the message for an HTTP status; of `text` only the name of a permission is repeated."""
    if status == 404 and ("bucket does not exist" in text or "NoSuchBucket" in text):
        return StoreMissingError, "the bucket does not exist"
    if status == 400 and "nvalid object name" in text:
        return InvalidKeyError, "the store cannot hold this key"
    if status == 400 and "nvalid bucket name" in text:
        return StoreMissingError, "the bucket's name is refused"
    if status == 403 and "ateLimitExceeded" not in text and (lacking := _PERMISSION.search(text)):
        return AccessDeniedError, f"{_DENIED}, which takes the permission {lacking[0]}"
    if status >= 500 or "ateLimitExceeded" in text:
        return StoreUnavailableError, f"the store failed or is overloaded (status {status})"
    return _BY_STATUS.get(status, (StorageError, f"the store refused the request (status {status})"))
