"""Keeping secrets out of everything that is shown (contract L5)."""

from __future__ import annotations

import re
from collections.abc import Mapping
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
# Up to the last "@": a password may itself hold "/", "?", "#" or "@".
_URL = re.compile(r"([a-z][a-z0-9+.-]*://)(.*@)?([^?#]*)([?#].*)?", re.IGNORECASE | re.DOTALL)


def is_secret_name(name: str) -> bool:
    """Whether an option of this name may hold a secret, judged by its name alone."""
    return name not in _HARMLESS_NAMES and _SECRET_NAME.search(name) is not None


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
    url = _URL.fullmatch(text)
    if url is not None:
        scheme, user, rest, query = url.groups()
        text = scheme + (f"{MASK}@" if user else "") + rest + (f"{query[0]}{MASK}" if query else "")
    return MASK if _SECRET_TEXT.search(text) else text
