"""An upload in parts to a directory: the parts are written into one draft as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable

from mscfs.errors import StorageError
from mscfs.providers.base import MultipartUpload
from mscfs.providers.beneath import storage_errors
from mscfs.providers.file_draft import Draft
from mscfs.types import ObjectMetadata, Version

Publish = Callable[[Draft, bool, Version | None], ObjectMetadata]


class FileUpload(MultipartUpload):
    """Parts that were begun in their order are the file already; others are put in order at the end, by the kernel.

    `new_draft` opens another draft for the same key, `publish` lets one appear.
    """

    def __init__(self, new_draft: Callable[[], Draft], publish: Publish, *, store: str, key: str) -> None:
        self._new_draft = new_draft
        self._publish = publish
        self._store = store
        self._key = key
        self._draft: Draft | None = new_draft()
        self._lock = threading.Lock()
        self._parts: dict[int, tuple[int, int]] = {}
        """Offset and size of each part in the draft."""
        self._end = 0

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        size = memoryview(data).nbytes
        with self._lock:
            offset = self._end
            self._end += size
            self._parts[number] = (offset, size)
        with storage_errors(store=self._store, key=self._key):
            self._opened().write(data, offset)

    def complete(self, *, if_absent: bool = False, expected: Version | None = None) -> ObjectMetadata:
        draft = self._opened()
        with storage_errors(store=self._store, key=self._key):
            if self._in_order():
                done = self._publish(draft, if_absent, expected)
            else:
                with self._new_draft() as ordered:
                    for number in sorted(self._parts):
                        ordered.append_from(draft.descriptor, *self._parts[number])
                    done = self._publish(ordered, if_absent, expected)
        self.abort()
        return done

    def abort(self) -> None:
        with self._lock:
            draft, self._draft = self._draft, None
        if draft is not None:
            draft.close()

    def _opened(self) -> Draft:
        if self._draft is None:
            raise StorageError("the upload has ended", store=self._store, key=self._key)
        return self._draft

    def _in_order(self) -> bool:
        end = 0
        for number in sorted(self._parts):
            offset, size = self._parts[number]
            if offset != end:
                return False
            end += size
        return end == self._end
