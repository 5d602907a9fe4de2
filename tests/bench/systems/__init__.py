"""The file systems that are compared: one class each, which knows how it is mounted and what it is called."""

from tests.bench.systems.base import Mount, MountFailedError, System
from tests.bench.systems.mscfs import Mscfs
from tests.bench.systems.peers import Gcsfuse, Geesefs, Juicefs, MountS3, Msfs, Rclone, S3fs

__all__ = ["SYSTEMS", "Mount", "MountFailedError", "Mscfs", "System"]

SYSTEMS: dict[str, System] = {
    system.name: system for system in (Mscfs(), Rclone(), S3fs(), MountS3(), Gcsfuse(), Geesefs(), Juicefs(), Msfs())
}
"""In the order of the tables."""
