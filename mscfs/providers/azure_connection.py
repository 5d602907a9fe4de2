"""The way to a container of Azure Blob Storage: credentials, one SDK client for each process, errors in our words."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypedDict
from urllib.parse import urlsplit, urlunsplit

import requests
from azure.core import MatchConditions, exceptions
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContainerClient

from mscfs.config.values import MIB, ProviderConfig
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
from mscfs.providers.azure_reads import UnrepeatedReads
from mscfs.providers.timeouts import native_timeouts, timeouts
from mscfs.types import Version

_SCOPE = "https://storage.azure.com/.default"
PIECE = 4 * MIB
"""What the SDK fetches and hands over at a time."""

_NO_CREDENTIALS = "the store asks for credentials: set credentials_provider, or put a SAS behind endpoint_url"
_CONTAINER_NAME = re.compile(r"\$?[a-z0-9](-?[a-z0-9])*")

_BY_CODE: dict[str, tuple[type[StorageError], str]] = {
    "BlobAlreadyExists": (AlreadyExistsError, "the object exists"),
    "BlobImmutableDueToPolicy": (AccessDeniedError, "the object is held by an immutability policy"),
    "ContainerBeingDeleted": (StoreMissingError, "the container is being deleted"),
    "ContainerDisabled": (StoreMissingError, "the container is disabled"),
    "ContainerNotFound": (StoreMissingError, "the container does not exist"),
    "InvalidBlockList": (IntegrityError, "parts of the upload are gone: another upload of the same key ended first"),
    "InvalidResourceName": (InvalidKeyError, "the store cannot hold this key"),
    "InvalidUri": (InvalidKeyError, "the store cannot hold this key"),
    "LeaseIdMissing": (AccessDeniedError, "somebody holds a lease on the object"),
    "NoAuthenticationInformation": (AccessDeniedError, _NO_CREDENTIALS),
    "PendingCopyOperation": (StoreUnavailableError, "the object is the target of a copy under way"),
    "PublicAccessNotPermitted": (AccessDeniedError, _NO_CREDENTIALS),
}
_BY_STATUS: dict[int, tuple[type[StorageError], str]] = {
    401: (AccessDeniedError, "the store refused the credentials"),
    403: (AccessDeniedError, "the store refused the credentials, or they do not allow this"),
    404: (NotFoundError, "no such object"),
    408: (StoreTimeoutError, "the store gave up waiting for the request"),
    412: (VersionMismatchError, "the object has changed"),
    416: (IntegrityError, "the object is shorter than expected"),
    429: (StoreUnavailableError, "the store is throttling requests"),
}


class Token(TypedDict):
    """An access token as the native client takes it."""

    token: str
    expires_at: datetime


class AzureConnection:
    """One container. Safe in threads and after a fork: each process makes its own client."""

    def __init__(
        self, *, profile: str, container: str, options: Mapping[str, Any], credentials: ProviderConfig | None
    ) -> None:
        self.profile = profile
        self.container_name = container
        self._options = options
        self._credentials = credentials
        if credentials is not None and credentials.type not in ("AzureCredentials", "DefaultAzureCredentials"):
            raise ConfigError(f"{credentials.type} gives no credentials for Azure")
        if not _CONTAINER_NAME.fullmatch(container):
            message = "no container can have this name: it is made of lower-case letters, digits and single hyphens"
            raise ConfigError(f"profiles.{profile}.storage_provider.options.base_path: {container!r}: {message}")
        self.timeout = timeouts(options)
        """Seconds to connect, and seconds the store may stay silent."""
        self.native_timeout = native_timeouts(options)
        self.has_tokens = credentials is not None and credentials.type == "DefaultAzureCredentials"
        self._containers: dict[int, ContainerClient] = {}
        self._tokens: dict[int, Any] = {}

    @property
    def endpoint(self) -> str:
        """The account's URL, without what may be secret in it."""
        return urlunsplit(urlsplit(self._url)._replace(query="", fragment="")).rstrip("/")

    @property
    def account_name(self) -> str:
        """The account's name, as the connection string or the URL tells it."""
        parts = urlsplit(self._url)
        host = parts.hostname or ""
        # https://account.blob.core.windows.net, or http://127.0.0.1/account
        told = host.partition(".")[0] if ".blob." in host else parts.path.strip("/").partition("/")[0]
        return self._connection_values.get("AccountName") or told or host

    def signing(self) -> dict[str, Any]:
        """How the native client is to sign its requests, where it needs no token."""
        values = self._connection_values
        signature = values.get("SharedAccessSignature") or urlsplit(self._url).query
        if "AccountKey" in values:
            return {"account_key": values["AccountKey"], "credential_type": "access_key"}
        if signature:
            return {"sas_key": signature.removeprefix("?"), "credential_type": "sas_token"}
        return {} if self.has_tokens else {"skip_signature": True}

    @property
    def container(self) -> ContainerClient:
        """This process's SDK client of the container. No request is made."""
        process = os.getpid()
        client = self._containers.get(process)
        # Two threads may both make the first one; one of the two is kept. A lock could stay locked after a fork.
        return client if client is not None else self._containers.setdefault(process, self._make_client())

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

    def close(self) -> None:
        """Give up the connections of this process."""
        client = self._containers.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def token(self) -> Token:
        """An access token for the native client."""
        with self.errors():
            token = self._token_credential().get_token(_SCOPE)
            return {"token": token.token, "expires_at": datetime.fromtimestamp(token.expires_on, UTC)}

    @property
    def _url(self) -> str:
        return str(self._connection_values.get("BlobEndpoint") or self._options["endpoint_url"])

    @property
    def _connection_string(self) -> str:
        if self._credentials is None or self._credentials.type != "AzureCredentials":
            return ""
        return str(self._credentials.options["connection"])

    @property
    def _connection_values(self) -> dict[str, str]:
        """The parts of the connection string."""
        pairs = (part.partition("=") for part in self._connection_string.split(";"))
        return {name.strip(): value.strip() for name, _, value in pairs if name.strip()}

    def _make_client(self) -> ContainerClient:
        session = requests.Session()
        # With the default of ten, every thread beyond the tenth opens a connection for each request.
        connections = int(self._options.get("max_pool_connections", 64))
        session.mount(self.endpoint, UnrepeatedReads(self.profile, connections))
        connect_timeout, read_timeout = self.timeout
        waits = {"connection_timeout": connect_timeout, "read_timeout": read_timeout}
        settings: dict[str, Any] = {
            "transport": RequestsTransport(session=session, **waits),
            "retry_total": 0,  # the retrying provider around this one repeats calls
            "max_single_get_size": PIECE,
            "max_chunk_get_size": PIECE,
            **waits,
        }
        try:
            if self.has_tokens and not self.endpoint.startswith("https://"):
                message = "access tokens are sent over TLS only: endpoint_url must start with https://"
                raise AccessDeniedError(message, store=self.profile)
            if self._connection_string:
                return ContainerClient.from_connection_string(self._connection_string, self.container_name, **settings)
            credential = self._token_credential() if self.has_tokens else None
            return ContainerClient(self._url, self.container_name, credential, **settings)
        except ValueError:
            raise AccessDeniedError("the credentials cannot be used: they are malformed", store=self.profile) from None

    def _token_credential(self) -> Any:
        """What gives this process access tokens. It keeps them and renews them in time, with connections of its own."""
        process = os.getpid()
        if process not in self._tokens:
            # It takes a third of a second, and few profiles need it.
            from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - see above

            assert self._credentials is not None
            self._tokens.setdefault(process, DefaultAzureCredential(**self._credentials.options))
        return self._tokens[process]


def condition(*, if_absent: bool = False, expected: Version | None = None) -> dict[str, Any]:
    """The SDK's arguments for the version a key must have."""
    if expected is not None:
        return {"etag": f'"{expected.tag}"', "match_condition": MatchConditions.IfNotModified}
    return {"match_condition": MatchConditions.IfMissing} if if_absent else {}


def _translate(error: Exception) -> tuple[type[StorageError], str] | None:
    if isinstance(error, exceptions.HttpResponseError) and error.status_code is not None:
        code = getattr(error, "error_code", None)
        # An enumeration's member or its value, by version of the SDK.
        code = str(getattr(code, "value", None) or code or "")
        return from_status(error.status_code, code)
    if isinstance(error, exceptions.ClientAuthenticationError):
        return AccessDeniedError, _why_unusable(error)
    if isinstance(error, exceptions.AzureError):
        if "timed out" in str(error):
            return StoreTimeoutError, "no answer in time"
        return StoreUnavailableError, "cannot be reached"
    return None


def from_status(status: int, code: str) -> tuple[type[StorageError], str]:
    """The class and the message for an HTTP status and the service's own code for the error."""
    if code in _BY_CODE:
        return _BY_CODE[code]
    if status >= 500:
        return StoreUnavailableError, f"the store failed or is overloaded (status {status})"
    told = code if re.fullmatch(r"\w+", code) else ""
    if status in {401, 403}:
        kind, message = _BY_STATUS[status]
        return kind, f"{message} ({told})" if told else message
    return _BY_STATUS.get(
        status, (StorageError, f"the store refused the request (status {f'{status} {told}'.strip()})")
    )


def _why_unusable(error: exceptions.ClientAuthenticationError) -> str:
    """What is wrong with credentials that no store has seen yet; the error's own text may quote them."""
    if type(error).__name__ == "CredentialUnavailableError" or "failed to retrieve a token" in str(error):
        return "no access token is to be had: run `az login`, give the machine an identity, or set AZURE_CLIENT_ID, …"
    if type(error).__name__ == "AzureSigningError":
        return "the credentials cannot be used: the AccountKey is malformed"
    return "the credentials cannot be used"
