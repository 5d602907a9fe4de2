"""How long a store may keep a request waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SECONDS = 10.0


def timeouts(options: Mapping[str, Any]) -> tuple[float, float]:
    """Seconds to connect, and seconds a store may stay silent: the options of that name."""
    return float(options.get("connect_timeout", _SECONDS)), float(options.get("read_timeout", _SECONDS))


def native_timeouts(options: Mapping[str, Any]) -> tuple[float, float]:
    """The same for the native client, which may have options of its own."""
    own = options.get("rust_client")
    return timeouts({**options, **own} if isinstance(own, Mapping) else options)
