"""A storage provider with a bug, loaded by its dotted class name."""

from __future__ import annotations

from mscfs.providers.file import FileProvider
from mscfs.types import ObjectMetadata


class BuggyProvider(FileProvider):
    """Everything works but one key."""

    def head(self, key: str) -> ObjectMetadata:
        if key == "bug":
            raise ZeroDivisionError("a bug")
        return super().head(key)
