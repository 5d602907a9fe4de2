"""The one place that puts a profile together: its primary, its replicas and their journal."""

from __future__ import annotations

from mscfs.config.load import find_profile
from mscfs.config.values import Config
from mscfs.directories import digest, private, state_directory
from mscfs.journal import Journal
from mscfs.providers.registry import load_provider, open_provider
from mscfs.replicas.manager import ReplicaManager, WishSink
from mscfs.replicas.source import Replica, Source


def open_store(config: Config, profile: str, *, record_back_fill: WishSink | None = None) -> ReplicaManager:
    """Open a profile with its replicas. No request is made yet.

    Raises ConfigError for an unknown or unusable profile. The journal lies in the profile's own directory below the
    state directory, named by the primary's identity, so that equal names in two configurations never meet.
    """
    settings = find_profile(config, profile)
    primary = Source(profile, open_provider(config, profile))
    replicas = [
        Replica(
            replica.profile,
            # A read that a replica failed goes to the next store, not to the same one a second later.
            open_provider(config, replica.profile, retry_reads=False),
            read_priority=replica.read_priority,
            read_only=replica.read_only,
            index=index,
        )
        for index, replica in enumerate(settings.replicas)
    ]
    state = private(state_directory() / f"{profile}-{digest(primary.provider.identity)}")
    return ReplicaManager(
        primary,
        replicas,
        Journal(state / "journal.db"),
        read_consistency=settings.mscfs.read_consistency,
        propagate_deletes=settings.mscfs.propagate_deletes,
        record_back_fill=record_back_fill,
    )


def load_store(config: Config, profile: str) -> None:
    """Import what the stores of a profile need, for processes that are forked afterwards. Raises ConfigError."""
    for name in (profile, *(replica.profile for replica in find_profile(config, profile).replicas)):
        load_provider(config, name)
