"""What must be right before a mount starts; every check that fails is one line that says what to do (contract L1)."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from mscfs.cli.mount_table import MSCFS_TYPE, in_time, probe, real_path, unmount
from mscfs.config.values import Config
from mscfs.directories import state_directory
from mscfs.errors import MountError
from mscfs.fuse.mounts import mounted_at
from mscfs.telemetry import registry

FUSE_DEVICE = Path("/dev/fuse")
FUSE_CONFIG = Path("/etc/fuse.conf")
_CAP_SYS_ADMIN = 21
_PROBE_TIMEOUT = 5.0


def check_fuse(*, allow_other: bool) -> None:
    """Whether this process can mount with FUSE at all. Raises MountError."""
    in_container = "in a container, start it with --device /dev/fuse --cap-add SYS_ADMIN"
    if not FUSE_DEVICE.exists():
        raise MountError(f"{FUSE_DEVICE} is not there: load the module with `modprobe fuse`; {in_container}")
    try:
        os.close(os.open(FUSE_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise MountError(f"{FUSE_DEVICE} cannot be opened ({error.strerror}): mount as root; {in_container}") from None
    if os.geteuid() == 0:
        if not _may_mount():
            raise MountError(f"root may not mount here (no CAP_SYS_ADMIN); {in_container}")
        return
    if shutil.which("fusermount3") is None:
        raise MountError("fusermount3 is not installed: install the package fuse3, or mount as root")
    if allow_other and "user_allow_other" not in _words(FUSE_CONFIG):
        raise MountError(f"allow_other needs the line `user_allow_other` in {FUSE_CONFIG}, or root")


def check_mountpoint(path: Path) -> Path:
    """The mountpoint without symbolic links, free to mount on. What a killed mscfs left there is detached first.

    Raises MountError.
    """
    path = real_path(path)
    entry = mounted_at(path)
    if entry is not None:
        if entry.type != MSCFS_TYPE or probe(path, timeout=_PROBE_TIMEOUT) != "dead":
            raise MountError(_busy(path, entry.type))
        unmount(path, lazy=True)
    try:
        is_directory = stat.S_ISDIR(path.stat().st_mode)
    except FileNotFoundError:
        raise MountError(f"{path} does not exist: make it with `mkdir -p {path}`") from None
    except OSError as error:
        raise MountError(f"{path} cannot be used: {error.strerror}") from None
    if not is_directory:
        raise MountError(f"{path} is not a directory")
    if not os.access(path, os.W_OK | os.X_OK):
        raise MountError(f"{path} is not writable for you: choose a directory of your own, or mount as root")
    return path


def check_own_directories(config: Config, profile: str, mountpoint: Path, *directories: Path) -> None:
    """Whether the mount would hide what it works with: a store's directory, or mscfs's own. Raises MountError."""
    for name in stores_of(config, profile):
        provider = config.profiles[name].storage_provider
        if provider.type == "file" and _lies_in(str(provider.options.get("base_path") or "/"), mountpoint):
            raise MountError(f"{mountpoint} would hide the files of profile '{name}': mount somewhere else")
    for directory in directories:
        if _lies_in(str(directory), mountpoint):
            raise MountError(f"{mountpoint} would hide {directory}, where mscfs works: mount somewhere else")


def check_state_directory() -> Path:
    """The state directory, fit to be written to. Raises MountError."""
    try:
        state = state_directory()
        problem = "" if os.access(state, os.W_OK | os.X_OK) else f"{state}: it cannot be written to"
    except OSError as error:
        problem = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if problem:
        advice = "choose a directory of yours on a local disk with XDG_STATE_HOME (under systemd: StateDirectory=)"
        raise MountError(f"{problem}; what is not uploaded yet is kept there: {advice}")
    return state


def stores_of(config: Config, profile: str) -> tuple[str, ...]:
    """The profile and its replicas, by name."""
    return (profile, *(replica.profile for replica in config.profiles[profile].replicas))


def is_empty(path: Path) -> bool:
    """Whether a directory has no entries."""
    with os.scandir(path) as entries:
        return next(entries, None) is None


def _busy(path: Path, kind: str) -> str:
    if kind == "autofs":
        # The kernel lets only the process group of the automounter look below it, and the daemon has its own.
        return f"{path} is an automount point, where mscfs cannot mount: leave `x-systemd.automount` out of fstab"
    if kind != MSCFS_TYPE:
        return f"{path} is already a mount point ({kind}): choose another directory, or unmount it first"
    record = registry.find(path)
    what = f"profile '{record.profile}', pid {record.pid}" if record else "by another user"
    return f"{path} is already mounted ({what}): run `mscfs umount {path}` first"


def _lies_in(path: str, directory: Path) -> bool:
    # A directory that is silent (NFS) keeps whoever looks at it waiting for ever. Then the name has to do.
    found = [os.path.abspath(path)]  # noqa: PTH100 - looks at nothing
    in_time(lambda: found.append(os.path.realpath(path)), _PROBE_TIMEOUT)
    return Path(found[-1]).is_relative_to(directory)


def _may_mount() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_ADMIN & 1)
    return True


def _words(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines()]
    except OSError:
        return []
