"""Extended attributes that tell where a file is: `getfattr -d FILE`."""

from __future__ import annotations

import json

from mscfs.errors import NotFoundError, StorageError
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.placement import Placement, locate
from mscfs.types import OWN_XATTRS
from mscfs.vfs.paths import to_bytes
from mscfs.vfs.transport import RunBlocking

OURS = to_bytes(OWN_XATTRS)
EVERYWHERE = ("profile", "key")
FILES_ONLY = ("source", "version", "replicas")


class XattrReader:
    """Answers getxattr(2) and listxattr(2).

    `profile` and `key` for every name; for files also `source` (the profile that serves it now), `version` (the
    primary's) and `replicas` (JSON: profile to fresh, stale, missing or down). The last three ask every store, with a
    `run_blocking` that waits for no store for ever.
    """

    def __init__(self, manager: ReplicaManager, run_blocking: RunBlocking) -> None:
        self._manager = manager
        self._run_blocking = run_blocking

    def names(self, key: str) -> list[bytes]:
        """The names a file or directory has."""
        names = EVERYWHERE if _is_directory(key) else EVERYWHERE + FILES_ONLY
        return [to_bytes(OWN_XATTRS + name) for name in names]

    async def get(self, key: str, name: str) -> bytes | None:
        """One value; None when there is no such attribute."""
        if not name.startswith(OWN_XATTRS):
            return None
        name = name.removeprefix(OWN_XATTRS)
        if name == "profile":
            return to_bytes(self._manager.profile)
        if name == "key":
            return to_bytes(key)
        if name not in FILES_ONLY or _is_directory(key):
            return None
        try:
            placements: list[Placement] = await self._run_blocking(locate, self._manager, key)
        except NotFoundError:
            return b""  # not uploaded yet
        except StorageError as error:
            return to_bytes(str(error))
        if name == "source":
            return to_bytes(next((placement.profile for placement in placements if placement.serves), ""))
        if name == "version":
            return to_bytes(placements[-1].version)
        return json.dumps({placement.profile: placement.state for placement in placements[:-1]}).encode()


def _is_directory(key: str) -> bool:
    return not key or key.endswith("/")
