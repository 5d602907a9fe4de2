"""What the stores are asked about one name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import trio

from mscfs.errors import InvalidKeyError, NotFoundError, StorageError, StoreUnavailableError
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.outage import find_on_replicas
from mscfs.types import ObjectMetadata
from mscfs.vfs.answers import directory_metadata
from mscfs.vfs.silence import Silence
from mscfs.vfs.transport import RunBlocking

log = logging.getLogger(__name__)

ROUNDS = 3
"""How often a primary is asked that does not answer and is not known to be down. Failing so often in a row, it is."""

WARNED = 1000
"""The names that a mount warns of, one by one."""


class Questions:
    """See the module. A name is a key without final slash; all answers are of the moment.

    `asks_markers`: the user metadata of directories matter, which only their markers tell.
    """

    def __init__(
        self, manager: ReplicaManager, run_blocking: RunBlocking, silence: Silence, *, asks_markers: bool = False
    ) -> None:
        self._manager = manager
        self._directory = _marked_directory if asks_markers else _directory
        self._ask_primary = silence.watched(run_blocking, manager.profile)
        self._ask_anyone = silence.watched(run_blocking, "")
        self._warned: set[str] = set()

    @property
    def is_down(self) -> bool:
        """Whether the primary is known to be down: nobody waits for it then."""
        return not self._manager.primary_source.health.healthy

    @property
    def has_replicas(self) -> bool:
        """Whether anybody but the primary could answer."""
        return bool(self._manager.replicas)

    async def primary(self, key: str) -> ObjectMetadata | None:
        """The primary's word on a name; a transient StorageError while it is down."""
        if self.is_down:
            source = self._manager.primary_source
            raise StoreUnavailableError(f"it is down: {source.health.last_error}", store=source.profile, key=key)
        if self._manager.capabilities.real_directories:
            return await self._ask_primary(_file_or_directory, self._manager, key)
        # An object store may hold both `a` and `a/b`; the two questions go out together (N2: the directory wins).
        answers: dict[str, ObjectMetadata | None] = {}
        errors: list[StorageError] = []

        async def ask(question: Callable[[ReplicaManager, str], ObjectMetadata | None], name: str) -> None:
            try:
                answers[name] = await self._ask_primary(question, self._manager, key)
            except StorageError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, self._directory, "directory")
            nursery.start_soon(ask, _object, "file")
        if errors:
            raise errors[0]
        if answers["directory"] is not None and answers["file"] is not None and self._is_news(key):
            log.warning("both %r and keys below it exist: the directory is shown, the object is hidden", key)
        return answers["directory"] or answers["file"]

    def _is_news(self, key: str) -> bool:
        """Whether nothing was said of this name yet: it may be asked about at every open."""
        if key in self._warned or len(self._warned) == WARNED:
            return False
        self._warned.add(key)
        return True

    async def replicas(self, key: str) -> ObjectMetadata | None:
        """The replicas' word on a name; StorageError when nobody can tell."""
        return await self._ask_anyone(find_on_replicas, self._manager, key)

    async def anyone(self, key: str) -> ObjectMetadata | None:
        """The primary's word on an object, or a replica's when it is down."""
        try:
            return await self._ask_anyone(self._manager.head, key)
        except (NotFoundError, InvalidKeyError):
            return None

    async def marker(self, directory: str) -> ObjectMetadata | None:
        """The primary's word on a directory that exists, with the user metadata of its marker."""
        return await self._ask_primary(_marker, self._manager, directory)


def _object(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    try:
        return manager.told(key)
    except (NotFoundError, InvalidKeyError):
        return None


def _directory(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    try:
        return manager.told_directory(key + "/")
    except (NotFoundError, InvalidKeyError):
        return None


def _marker(manager: ReplicaManager, directory: str) -> ObjectMetadata:
    try:
        metadata = manager.head_marker(directory).metadata
    except (NotFoundError, InvalidKeyError):
        metadata = None
    return replace(directory_metadata(directory), metadata=metadata or {})


def _marked_directory(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    found = _marker(manager, key + "/")
    return found if found.metadata or _directory(manager, key) else None


def _file_or_directory(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    return _object(manager, key) or _directory(manager, key)
