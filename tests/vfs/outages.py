"""A primary that can be switched off, in a file system without kernel."""

from __future__ import annotations

from typing import Any

from mscfs.errors import StoreUnavailableError
from mscfs.providers.base import StorageProvider


class Switched:
    """A provider all of whose requests fail while `is_on` is False; `asked` counts those that failed.

    `lost`: so many requests fail all the same, as when a connection breaks.
    """

    def __init__(self, inner: StorageProvider) -> None:
        self.inner = inner
        self.is_on = True
        self.asked = 0
        self.lost = 0
        self.only_after = 0
        """A listing that is under way fails after so many pages; 0: not at all."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if not callable(found) or name in {"close", "prepare", "check_new_key"}:  # these ask nobody
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._answer()
            return found(*arguments, **named)

        return call

    def list_pages(self, directory: str = "") -> Any:
        self._answer()
        for count, page in enumerate(self.inner.list_pages(directory)):
            if not self.is_on or (self.only_after and count >= self.only_after):
                self.asked += 1
                raise StoreUnavailableError("switched off", store=self.inner.profile)
            yield page

    def _answer(self) -> None:
        if not self.is_on or self.lost:
            self.asked += 1
            self.lost = max(0, self.lost - 1)
            raise StoreUnavailableError("no answer", store=self.inner.profile)


def switch(w: Any, *, on: bool = True, known: bool = False) -> Switched:
    """Put a switch in front of the primary. `known`: the mount has noticed that it is off."""
    source = w.parts.manager.primary_source
    if not isinstance(source.provider, Switched):
        object.__setattr__(source, "provider", Switched(source.provider))
    source.provider.is_on = on
    for _ in range(3 if known else 0):
        source.health.failed(StoreUnavailableError("switched off", store=source.profile))
    if on:
        source.health.succeeded()
    return source.provider
