"""What replicas tell of names while the primary is down (R8)."""

from __future__ import annotations

from collections.abc import Iterator

from mscfs.errors import NotFoundError, StorageError, StoreUnavailableError
from mscfs.providers.page import Page, paginate
from mscfs.replicas.freshness import as_primary
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica
from mscfs.types import ObjectMetadata

LASTING = 5.0
"""Seconds after which an outage of the primary is none of the moments, as when it is throttled, that a change outlives
by being tried again: its probes have failed since."""


def refuse_in_outage(manager: ReplicaManager, key: str) -> None:
    """Raise StoreUnavailableError at once when a change of a key would only wait for a primary that is down."""
    health = manager.primary_source.health
    if health.down_for >= LASTING:
        raise StoreUnavailableError(f"it is down: {health.last_error}", store=manager.profile, key=key)


def find_on_replicas(manager: ReplicaManager, key: str) -> ObjectMetadata | None:
    """The file or directory of a name (a key without final slash), as the first replica that has it tells.

    None when a replica answered, none has it and nothing says that the primary does. Raises StorageError when nobody
    could answer, or the primary is known to hold what no replica has yet.
    """
    answered = False
    trouble: StorageError = StoreUnavailableError("no store that could tell answers", store=manager.profile, key=key)
    for replica in manager.replicas:
        if not replica.health.may_try():
            continue
        try:
            found = _find(manager, replica, key)
        except StorageError as error:
            replica.failed(error)
            trouble = error if error.transient else trouble
        else:
            replica.health.succeeded()
            if found is not None:
                return found
            answered = True
            if manager.is_behind(replica.profile, key) and not manager.is_deleted(replica.profile, key):
                raise StoreUnavailableError("only the primary holds it so far", store=manager.profile, key=key)
    if not answered:
        raise trouble
    return None


def pages_of_primary(manager: ReplicaManager, directory: str) -> Iterator[Page]:
    """The primary's listing and nobody else's. It is asked even if it was down a moment ago."""
    try:
        yield from manager.primary.list_pages(directory)
    except StorageError as error:
        manager.primary_source.failed(error)
        raise
    manager.primary_source.health.succeeded()


def pages_of_replica(manager: ReplicaManager, directory: str) -> Iterator[Page]:
    """The listing of the first healthy replica, without what was deleted here."""
    trouble: StorageError = StoreUnavailableError("no replica answers", store=manager.profile, key=directory)
    for replica in manager.replicas:
        if not replica.health.may_try():
            continue
        try:
            # Its copies stand for the primary's objects, which its own columns could not say.
            copies = manager.listing_on(replica, lambda provider: provider.list_directory(directory))
        except StorageError as error:
            replica.failed(error)
            trouble = error
            continue
        replica.health.succeeded()
        yield from paginate(copies, directory, links=not manager.capabilities.real_directories)
        return
    raise trouble


def _find(manager: ReplicaManager, replica: Replica, key: str) -> ObjectMetadata | None:
    provider = replica.provider
    if not manager.is_deleted(replica.profile, key + "/"):
        try:
            return provider.head_directory(key + "/")
        except NotFoundError:
            pass
    if not manager.is_behind(replica.profile, key):
        try:
            return as_primary(provider.head(key), replica.profile)
        except NotFoundError:
            pass
    return None
