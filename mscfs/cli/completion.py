"""What the shell offers when somebody presses Tab."""

from __future__ import annotations

import typer

from mscfs.errors import ConfigError, MscfsError
from mscfs.telemetry import registry


def profiles(incomplete: str) -> list[str]:
    """Names of profiles; none when the configuration cannot be read, for nobody sees a message here."""
    from mscfs.config.load import load_config  # noqa: PLC0415 - loads long, and every command knows this module

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


def left_behind(context: typer.Context, incomplete: str) -> list[str]:
    """The IDs of `mscfs recover`, of the profile that stands before."""
    from mscfs.config.load import load_config  # noqa: PLC0415 - see above
    from mscfs.store import open_store  # noqa: PLC0415 - imports the SDKs of the stores in use
    from mscfs.vfs.leftbehind import left_behind as find  # noqa: PLC0415

    try:
        manager = open_store(load_config(), context.params.get("profile") or "")
    except MscfsError:
        return []
    try:
        journal = manager.journal
        if journal is None or not journal.path.exists():
            return []
        return [str(content.id) for content in find(journal) if str(content.id).startswith(incomplete)]
    except MscfsError:
        return []
    finally:
        manager.close()
