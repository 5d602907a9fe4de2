"""Beginning again when an object is replaced between the request for its version and the request for its bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from mscfs.errors import VersionMismatchError

ROUNDS = 5

Result = TypeVar("Result")


def while_replaced(read: Callable[[], Result]) -> Result:
    """Call `read` until it sees one version from beginning to end; VersionMismatchError after five rounds."""
    for _ in range(ROUNDS - 1):
        try:
            return read()
        except VersionMismatchError:
            continue
    return read()
