"""Answers of the Azure SDK's transport that break off, told at once.

The SDK would ask twice more, with pauses, whatever it was told about retries: a silent store would cost a reader more
time than another store has left to serve it (contract R5). Errors of ours are the ones that it passes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import ReadTimeoutError

from mscfs.errors import IntegrityError, StorageError, StoreTimeoutError, StoreUnavailableError


class UnrepeatedReads(HTTPAdapter):
    """For the session of one profile's client, with so many connections at most."""

    def __init__(self, profile: str, connections: int) -> None:
        super().__init__(pool_maxsize=connections)
        self._profile = profile

    def send(self, *arguments: Any, **more: Any) -> requests.Response:
        """Send a request. The body of what is returned raises StorageError where it breaks off."""
        answer = super().send(*arguments, **more)
        answer.iter_content = self._in_our_words(answer.iter_content)  # type: ignore[method-assign]
        return answer

    def _in_our_words(self, pieces: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
        def iterate(*arguments: Any, **more: Any) -> Iterator[Any]:
            try:
                yield from pieces(*arguments, **more)
            except requests.RequestException as error:
                kind, message = _meaning(error)
                raise kind(message, store=self._profile) from None

        return iterate


def _meaning(error: requests.RequestException) -> tuple[type[StorageError], str]:
    if error.args and isinstance(error.args[0], ReadTimeoutError):
        return StoreTimeoutError, "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
        return IntegrityError, "the answer ended early"
    return StoreUnavailableError, "the connection was lost"
