"""Server-side copies of Azure, which may go on after the call that starts them."""

from __future__ import annotations

import time
from collections.abc import Callable

from azure.storage.blob import BlobClient, BlobProperties

from mscfs.errors import StoreTimeoutError, StoreUnavailableError

COPY_SECONDS = 15 * 60.0
"""How long a copy may take. Within one account it is usually done at once."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0


def wait_for_copy(
    target: BlobClient,
    *,
    store: str,
    key: str,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> BlobProperties:
    """The properties of a copy once it is complete.

    A copy that takes longer than `COPY_SECONDS` is aborted, which leaves an empty object, and StoreTimeoutError is
    raised; StoreUnavailableError when the service gives it up. Otherwise raises what the SDK raises.
    """
    deadline = clock() + COPY_SECONDS
    pause = _FIRST_PAUSE
    while True:
        properties = target.get_blob_properties()
        if properties.copy.status in (None, "success"):
            return properties
        if properties.copy.status != "pending":
            raise StoreUnavailableError(f"the copy ended as {properties.copy.status}", store=store, key=key)
        if clock() >= deadline:
            target.abort_copy(properties)
            raise StoreTimeoutError("the copy takes too long", store=store, key=key)
        sleep(pause)
        pause = min(_LONGEST_PAUSE, pause * 2)
