"""The mounts of this user on this machine: one small file for each in the runtime directory."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from mscfs.directories import runtime_directory, write_private
from mscfs.journal import is_alive, process_token

# Where mounts of root live that were started by systemd or from fstab, without a login session's runtime directory.
SYSTEM_DIRECTORY = Path("/run/mscfs")


class MountRecord(msgspec.Struct, frozen=True):
    """One running mount. `process` tells its process apart from a later one with the same pid."""

    profile: str
    mountpoint: str
    """Absolute, without symbolic links."""
    pid: int
    process: str
    socket: str
    started: float
    """Seconds since the epoch."""
    config_file: str = ""
    shutdown_timeout: float = 90.0
    """How long the mount may take to end, in seconds (contract L2)."""


def register(
    profile: str, mountpoint: Path, *, started: float, config_file: Path | None, shutdown_timeout: float
) -> MountRecord:
    """Record the mount of this process."""
    record = MountRecord(
        profile=profile,
        mountpoint=str(mountpoint),
        pid=os.getpid(),
        process=process_token(),
        socket=str(socket_path()),
        started=started,
        config_file=str(config_file or ""),
        shutdown_timeout=shutdown_timeout,
    )
    write_private(runtime_directory() / f"{os.getpid()}.mount", json.dumps(msgspec.to_builtins(record)))
    return record


def unregister() -> None:
    """Forget the mount of this process. Its record may be gone with the directory, as at the end of a login."""
    with suppress(OSError):
        (runtime_directory() / f"{os.getpid()}.mount").unlink()


def socket_path() -> Path:
    """Where the control socket of this process's mount belongs (a process has one mount at most)."""
    return runtime_directory() / f"{os.getpid()}.socket"


def mounts() -> list[MountRecord]:
    """The running mounts, oldest first."""
    return [record for record in _records() if is_alive(record.process)]


def left() -> list[MountRecord]:
    """What killed mounts left of themselves, oldest first. Their mountpoints may be there still."""
    return [record for record in _records() if not is_alive(record.process)]


def forget(record: MountRecord) -> None:
    """Remove what a killed mount left, and nobody needs any more."""
    for directory in _directories():
        path = directory / f"{record.pid}.mount"
        if _read(path) == record:
            path.unlink(missing_ok=True)
            Path(record.socket).unlink(missing_ok=True)


def find(mountpoint: Path) -> MountRecord | None:
    """The running mount at a place (absolute, without symbolic links); the youngest, if an older one still drains."""
    return next((record for record in reversed(mounts()) if record.mountpoint == str(mountpoint)), None)


def find_profile(profile: str) -> list[MountRecord]:
    """The running mounts of a profile."""
    return [record for record in mounts() if record.profile == profile]


def _records() -> list[MountRecord]:
    found = (_read(path) for directory in _directories() for path in directory.glob("*.mount"))
    return sorted((record for record in found if record is not None), key=lambda record: record.started)


def _directories() -> set[Path]:
    own = {runtime_directory()}
    if os.geteuid() == 0 and SYSTEM_DIRECTORY.is_dir():
        own.add(SYSTEM_DIRECTORY)
    return own


def _read(path: Path) -> MountRecord | None:
    # A record that vanishes or cannot be read is no mount: its writer replaces files as a whole.
    with suppress(OSError, ValueError):
        return msgspec.convert(json.loads(path.read_text()), MountRecord)
    return None
