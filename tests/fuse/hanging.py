"""A storage provider that hangs while there is a file `hang` beside its directory, and says so with a file `hangs`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mscfs.config.values import ProviderConfig
from mscfs.providers.base import ObjectReader, Source
from mscfs.providers.file import FileProvider
from mscfs.types import ByteRange, ObjectMetadata, Version


class HangingProvider(FileProvider):
    """Contents hang: what a network does that swallows everything, without any time-out of ours."""

    def __init__(self, *, profile: str, options: Mapping[str, Any], credentials: ProviderConfig | None = None) -> None:
        super().__init__(profile=profile, options=options, credentials=credentials)
        self._beside = Path(options["base_path"]).parent

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Version | None = None) -> ObjectReader:
        self._hang()
        return super().get(key, byte_range, expected=expected)

    def put(self, key: str, source: Source, **more: Any) -> ObjectMetadata:
        self._hang()
        return super().put(key, source, **more)

    def _hang(self) -> None:
        while (self._beside / "hang").exists():
            (self._beside / "hangs").touch()
            time.sleep(0.05)
