"""Keeping secrets out of everything that is shown (contract L5)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"secret|passw|passphrase|pwd|token|sas|private|connection|credential|signature|assertion|bearer|jwt|cookie"
    r"|authorization|header|key$|^info$|^auth$|^pass$",
    re.IGNORECASE,
)
# Options of the supported providers whose names match the pattern and which hold nothing secret.
_HARMLESS_NAMES = frozenset(
    {"max_pool_connections", "skip_signature", "signature_version", "credential_file_path", "credentials_provider"}
)
_SECRET_TEXT = re.compile(
    r"(?:key|signature|sig|secret|password|passwd|token)\s*=|-----BEGIN[ A-Z]*PRIVATE KEY", re.IGNORECASE
)


def is_secret_name(name: str) -> bool:
    """Whether an option of this name may hold a secret, judged by its name alone."""
    return name not in _HARMLESS_NAMES and _SECRET_NAME.search(name) is not None


def secret_depth(location: Sequence[str | int]) -> int | None:
    """The index of the first step of a key path whose name suggests a secret; a profile may have any name."""
    for index, step in enumerate(location):
        if isinstance(step, str) and is_secret_name(step) and (index, location[0]) != (1, "profiles"):
            return index
    return None


def mask(value: Any) -> Any:
    """A copy that is safe to show, at any depth.

    Values of names that suggest a secret become `***`, whatever they hold; of URLs the user information and the
    query (where signatures live); of other strings those that look like a connection string or a private key.
    """
    if isinstance(value, Mapping):
        return {
            name: MASK if item is not None and is_secret_name(str(name)) else mask(item) for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(item) for item in value]
    return _mask_text(value) if isinstance(value, str) else value


def mask_all(value: Any, *, keep: frozenset[str] = frozenset()) -> Any:
    """As `mask`, but every value is hidden save those of the top-level names in `keep`: for unknown classes."""
    return {name: mask(item) if name in keep else MASK for name, item in value.items()}


def _mask_text(text: str) -> str:
    before, scheme, rest = text.partition("://")
    if scheme:
        # The last "@": a password may itself hold one.
        user, _, rest = rest.rpartition("@")
        if re.search("[?#]", user):
            return f"{before}://{MASK}"  # either a "?" in the password or an "@" in the query
        place, *query = re.split("([?#])", rest, maxsplit=1)
        text = f"{before}://{MASK + '@' if user else ''}{place}{query[0] + MASK if query else ''}"
    return MASK if _SECRET_TEXT.search(text) else text
