"""What the shell offers when somebody presses Tab."""

from __future__ import annotations

from mscfs.config.load import load_config
from mscfs.errors import ConfigError
from mscfs.telemetry import registry


def profiles(incomplete: str) -> list[str]:
    """Names of profiles; none when the configuration cannot be read, for nobody sees a message here."""
    try:
        return sorted(name for name in load_config().profiles if name.startswith(incomplete))
    except ConfigError:
        return []


def mountpoints(incomplete: str) -> list[str]:
    """Where something is mounted."""
    return [record.mountpoint for record in registry.mounts() if record.mountpoint.startswith(incomplete)]


def profiles_and_mountpoints(incomplete: str) -> list[str]:
    """For commands that take either."""
    return [*mountpoints(incomplete), *profiles(incomplete)]
