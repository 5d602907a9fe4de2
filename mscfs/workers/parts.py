"""The uploads in parts that this worker process has open."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mscfs.errors import StoreUnavailableError
from mscfs.providers.base import MultipartUpload, StorageProvider
from mscfs.types import ByteRange
from mscfs.workers.protocol import (
    AbortParts,
    BeginParts,
    CompleteParts,
    PartDone,
    PartsBegun,
    PartsRequest,
    SendPart,
    UploadDone,
    unpack_text,
)


class OpenUploads:
    """Performs what is asked of uploads in parts; any number of threads may. They end with the process."""

    def __init__(self, store: StorageProvider) -> None:
        self._store = store
        self._uploads: dict[int, MultipartUpload] = {}

    def perform(self, request: PartsRequest) -> PartsBegun | PartDone | UploadDone:
        """Do what is asked. Raises StorageError; StoreUnavailableError for an upload of a process that is gone."""
        key = unpack_text(request.key)
        match request:
            case BeginParts():
                upload = self._store.start_upload(key, metadata=request.metadata)
                self._uploads[request.id] = upload
                return PartsBegun(request.id, upload.token)
            case SendPart():
                part = ByteRange(request.offset, request.size)
                self._opened(request.upload, key).put_slice(request.number, Path(unpack_text(request.path)), part)
                return PartDone(request.id)
            case CompleteParts():
                upload = self._opened(request.upload, key)
                written = upload.complete(if_absent=request.if_absent, expected=request.expected)
                self._uploads.pop(request.upload, None)
                return UploadDone(request.id, replace(written, key=""))
            case AbortParts():
                known = self._uploads.pop(request.upload, None)
                if known is not None:
                    known.abort()
                elif request.token:
                    self._store.abort_upload(key, request.token)
                return PartDone(request.id)

    def _opened(self, upload: int, key: str) -> MultipartUpload:
        try:
            return self._uploads[upload]
        except KeyError:
            message = "the upload ended with its worker process"
            raise StoreUnavailableError(message, store=self._store.profile, key=key) from None
