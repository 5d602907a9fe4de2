"""What S3 and the AWS SDK say when something goes wrong, in our words.

No text of theirs is repeated: it may hold signatures, tokens and URLs.
"""

from __future__ import annotations

import re

from botocore import exceptions
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from mscfs.errors import (
    AccessDeniedError,
    IntegrityError,
    KeyTooLongError,
    NoSpaceError,
    NotFoundError,
    QuotaExceededError,
    StorageError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnsupportedError,
    VersionMismatchError,
)

_Meaning = tuple[type[StorageError], str]

_THROTTLED = (StoreUnavailableError, "the store is throttling requests")
_REFUSED = (AccessDeniedError, "the store refused the credentials")
_EXPIRED = (AccessDeniedError, "the credentials have expired")
_ELSEWHERE = (StoreMissingError, "the bucket is in another region: set region_name")
_DAMAGED = (IntegrityError, "the store received other bytes than were sent")
_QUOTA = (QuotaExceededError, "the store's quota is used up")
_CONFLICT = (StoreUnavailableError, "another writer is at the same object")

_BY_CODE: dict[str, _Meaning] = {
    "AccessDenied": (AccessDeniedError, "the store denied access"),
    "AccountProblem": (AccessDeniedError, "the account has a problem"),
    "AllAccessDisabled": (AccessDeniedError, "the store denied access"),
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "BadDigest": _DAMAGED,
    "ConditionalRequestConflict": _CONFLICT,
    "EntityTooLarge": (UnsupportedError, "the object is too large for this store"),
    "EntityTooSmall": (StorageError, "a part of the upload is too small"),
    "ExpiredToken": _EXPIRED,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "IncompleteBody": _DAMAGED,
    "InvalidAccessKeyId": _REFUSED,
    "InvalidBucketName": (StoreMissingError, "this cannot be the name of a bucket"),
    "InvalidDigest": _DAMAGED,
    "InvalidObjectState": (AccessDeniedError, "the object is archived: restore it first"),
    "InvalidRange": (IntegrityError, "the object is shorter than expected"),
    "InvalidToken": _REFUSED,
    "KeyTooLongError": (KeyTooLongError, "the key is too long"),
    "MetadataTooLarge": (UnsupportedError, "this store keeps no more than 2 KB of metadata"),
    "NoSuchBucket": (StoreMissingError, "the bucket does not exist"),
    "NoSuchKey": (NotFoundError, "no such object"),
    "NoSuchUpload": (StorageError, "the upload is gone"),
    "NotImplemented": (UnsupportedError, "this store cannot do that"),
    "OperationAborted": _CONFLICT,
    "PermanentRedirect": _ELSEWHERE,
    "PreconditionFailed": (VersionMismatchError, "the object has changed"),
    "QuotaExceeded": _QUOTA,
    "RequestLimitExceeded": _THROTTLED,
    "RequestTimeTooSkewed": (AccessDeniedError, "the clock of this machine or of the store is wrong"),
    "RequestTimeout": (StoreTimeoutError, "the store gave up waiting for the request"),
    "SignatureDoesNotMatch": _REFUSED,
    "SlowDown": _THROTTLED,
    "Throttling": _THROTTLED,
    "TokenRefreshRequired": _EXPIRED,
    "XAmzContentChecksumMismatch": _DAMAGED,
    "XAmzContentSHA256Mismatch": _DAMAGED,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "XMinioStorageFull": (NoSpaceError, "the store is full"),
}
_BY_STATUS: dict[int, _Meaning] = {
    301: _ELSEWHERE,
    307: _ELSEWHERE,
    401: _REFUSED,
    403: (AccessDeniedError, "the store denied access"),
    404: (NotFoundError, "no such object"),
    408: (StoreTimeoutError, "the store gave up waiting for the request"),
    409: _CONFLICT,
    412: (VersionMismatchError, "the object has changed"),
    416: (IntegrityError, "the object is shorter than expected"),
    429: _THROTTLED,
    501: (UnsupportedError, "this store cannot do that"),
    507: (NoSpaceError, "the store is full"),
}
_CODE = re.compile(r"<Code>(\w+)</Code>")
_NO_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.ProfileNotFound,
    exceptions.ConfigNotFound,
    exceptions.ConfigParseError,
    exceptions.SSOError,
    exceptions.TokenRetrievalError,
    exceptions.InvalidConfigError,
)
_SILENT = (exceptions.ReadTimeoutError, exceptions.ConnectTimeoutError)
_CUT = (
    exceptions.IncompleteReadError,
    exceptions.ResponseStreamingError,
    exceptions.FlexibleChecksumError,
    ResponseParserError,
)


def from_status(status: int, body: str) -> _Meaning:
    """The class and the message for an answer's HTTP status and its body (XML, maybe empty)."""
    told = _CODE.search(body)
    return from_code(status, told[1] if told else "")


def from_code(status: int, code: str) -> _Meaning:
    """The class and the message for an answer's HTTP status and the store's own code for the error."""
    if meaning := _BY_CODE.get(code) or _BY_STATUS.get(status):
        return meaning
    if status >= 500:
        return StoreUnavailableError, f"the store failed or is overloaded (status {status})"
    told = f" {code}" if re.fullmatch(r"[A-Za-z]+", code) else ""
    return StorageError, f"the store refused the request (status {status}{told})"


def is_status(error: Exception, status: int) -> bool:
    """Whether boto3 raised this because the store answered with that HTTP status."""
    if not isinstance(error, exceptions.ClientError):
        return False
    return bool(error.response["ResponseMetadata"]["HTTPStatusCode"] == status)


def from_sdk(error: Exception) -> _Meaning | None:
    """The class and the message for what boto3 raises; None for what is none of its errors."""
    cause = error.kwargs.get("error") if isinstance(error, exceptions.HTTPClientError) else None
    if isinstance(cause, StorageError):
        # Of a source that failed while it was sent.
        error = cause
    if isinstance(error, StorageError):
        return type(error), error.message
    if isinstance(error, _SILENT) or (isinstance(cause, HTTPError) and _holds_timeout(cause)):
        return StoreTimeoutError, "no answer in time"
    if isinstance(error, exceptions.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        return from_code(status, str(error.response.get("Error", {}).get("Code", "")))
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDeniedError, f"no usable AWS credentials were found ({type(error).__name__})"
    if isinstance(error, exceptions.CredentialRetrievalError | exceptions.MetadataRetrievalError):
        return StoreUnavailableError, f"the AWS credentials cannot be had ({error.kwargs.get('provider', 'metadata')})"
    if isinstance(error, exceptions.ParamValidationError):
        return UnsupportedError, "this store's metadata are ASCII"
    if isinstance(error, RuntimeError) and "still expired" in str(error):
        return _EXPIRED
    if isinstance(error, _CUT):
        return IntegrityError, "the answer ended early, or its checksum is wrong"
    if isinstance(error, exceptions.SSLError):
        return StoreUnavailableError, "the store's certificate is not trusted"
    if isinstance(error, exceptions.BotoCoreError | HTTPError):
        return StoreUnavailableError, "cannot be reached"
    return None


def _holds_timeout(error: HTTPError) -> bool:
    """Whether urllib3 gave up because the store took nothing of the body any more."""
    return any(isinstance(argument, TimeoutError) for argument in error.args)
