"""Paths and URLs of the library: what key and what profile they mean, and which keys a pattern matches."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike

from mscfs.config.implicit import FILESYSTEM_PROFILE
from mscfs.errors import UsageError

SCHEME = "msc://"
_BUCKET_SCHEMES = ("s3", "gs")
_MAGIC = re.compile(r"[*?\[]")

AnyPath = str | PathLike[str]


def to_key(path: AnyPath) -> str:
    """The key of a path inside a profile: the same with and without `/` in front."""
    return os.fspath(path).lstrip("/")


def locate_url(url: AnyPath, path_mapping: Mapping[str, str]) -> tuple[str, str]:
    """The profile and the key that a URL or a local path means.

    `msc://PROFILE/KEY` is taken as it is; anything else goes through `path_mapping` (longest prefix first), and what is
    not mapped is a local path or a bucket with the SDK's own settings. UsageError for other schemes.
    """
    text = os.fspath(url)
    for prefix in sorted(path_mapping, key=len, reverse=True):
        if text.startswith(prefix):
            text = path_mapping[prefix] + text.removeprefix(prefix)
            break
    scheme, separator, rest = text.partition(":/")
    if not separator or not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        return FILESYSTEM_PROFILE, to_key(os.path.abspath(text))  # noqa: PTH100 - links stay as they are
    path = re.sub(r"/+", "/", rest).lstrip("/")
    if scheme == "file":
        return FILESYSTEM_PROFILE, path
    host, _, key = path.partition("/")
    if not host or rest.startswith("//"):
        raise UsageError(f"{text}: names no profile or bucket")
    if scheme == "msc":
        return host, key
    if scheme in _BUCKET_SCHEMES:
        return f"_{scheme}-{host}", key
    known = ", ".join(f"{name}://" for name in ("msc", "file", *_BUCKET_SCHEMES))
    raise UsageError(f"{text}: mscfs knows {known} and local paths")


def match(keys: Iterable[str], pattern: str) -> Iterator[str]:
    """The keys, and the directories they lie in (without `/` at the end), that match a pattern.

    `*`, `?` and `[…]` match inside one segment, `**` as a whole segment matches any number of them. Names that begin
    with a dot are matched only by patterns that begin with one.
    """
    segments = _compile(pattern)
    seen: set[str] = set()
    for key in keys:
        parts = key.rstrip("/").split("/")
        for end in range(1, len(parts) + 1):
            candidate = "/".join(parts[:end])
            if candidate not in seen and _matches(parts[:end], segments):
                seen.add(candidate)
                yield candidate


def literal_prefix(pattern: str) -> str:
    """The directory all matches lie in: what stands before the first segment with a wildcard."""
    segments = pattern.split("/")
    literal = 0
    while literal < len(segments) - 1 and not _MAGIC.search(segments[literal]):
        literal += 1
    return "".join(f"{segment}/" for segment in segments[:literal])


_Segment = re.Pattern[str] | None  # None: any number of segments


def _compile(pattern: str) -> Sequence[_Segment]:
    compiled: list[_Segment] = []
    for segment in pattern.split("/"):
        if segment != "**":
            visible = "" if segment.startswith(".") else r"(?!\.)"
            compiled.append(re.compile(visible + fnmatch.translate(segment)))
        elif not compiled or compiled[-1] is not None:
            compiled.append(None)
    return compiled


def _matches(parts: Sequence[str], segments: Sequence[_Segment]) -> bool:
    if not segments:
        return not parts
    first, rest = segments[0], segments[1:]
    if first is not None:
        return bool(parts) and first.match(parts[0]) is not None and _matches(parts[1:], rest)
    if not rest:
        return bool(parts) and not any(part.startswith(".") for part in parts)
    for skipped in range(len(parts)):
        if _matches(parts[skipped:], rest):
            return True
        if parts[skipped].startswith("."):
            return False
    return False
