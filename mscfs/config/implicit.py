"""Profiles that exist without being configured."""

from __future__ import annotations

import re

from mscfs.config.values import ProfileConfig, ProviderConfig

FILESYSTEM_PROFILE = "__filesystem__"
_BUCKET = re.compile(r"_(s3|gs)-([^/\x00-\x1f]+)")


def implicit_profile(name: str) -> ProfileConfig | None:
    """The profile that a reserved name stands for; None for other names.

    `__filesystem__` is the local file system; `_s3-BUCKET` and `_gs-BUCKET` are buckets with the SDK's own settings.
    """
    if name == FILESYSTEM_PROFILE:
        return ProfileConfig(name, ProviderConfig("file", {"base_path": "/"}))
    match = _BUCKET.fullmatch(name)
    if match is None:
        return None
    scheme, bucket = match.groups()
    return ProfileConfig(name, ProviderConfig("s3" if scheme == "s3" else "gcs", {"base_path": bucket}))
