"""Recovery as it is when a mount begins and its primary answers."""

from __future__ import annotations

from pathlib import Path

from mscfs.journal import Journal
from mscfs.replicas.manager import ReplicaManager
from mscfs.vfs.recovery import Recovered, Recovery


def recover(manager: ReplicaManager, journal: Journal, staging: Path) -> Recovered:
    """Settle everything that can be settled now."""
    recovery = Recovery(manager, journal, staging)
    recovery.begin()
    while not recovery.is_over and recovery.step():
        pass
    return recovery.result
