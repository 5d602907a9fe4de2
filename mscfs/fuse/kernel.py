"""The kernel's side of a mount."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyfuse3

from mscfs.errors import MountError
from mscfs.fuse.mounts import mounted_at


@contextmanager
def mounted(
    operations: pyfuse3.Operations,
    profile: str,
    mountpoint: Path,
    *,
    read_only: bool,
    allow_other: bool,
    no_exec: bool,
) -> Iterator[None]:
    """Mounted within the context; nothing stays mounted on the way out. Raises MountError."""
    # Whatever it is called, it sets no option.
    source = profile.replace("\\", "\\\\").replace(",", "\\,")
    options = {f"fsname={source}", "subtype=mscfs", "default_permissions", "nosuid", "nodev"}
    if allow_other:
        options.add("allow_other")
    if read_only:
        options.add("ro")
    if no_exec:
        options.add("noexec")
    try:
        pyfuse3.init(operations, str(mountpoint), options)
    except RuntimeError as error:
        hint = " (allow_other needs `user_allow_other` in /etc/fuse.conf)" if allow_other else ""
        raise MountError(f"the kernel refused to mount at {mountpoint}: {error}{hint}") from None
    ours = mounted_at(mountpoint)
    try:
        yield
    finally:
        # Somebody may have detached it and mounted anew: libfuse would take away whatever is there.
        pyfuse3.close(unmount=mounted_at(mountpoint) == ours)
