"""Who may use a state directory together: mounts that see whether the others live.

Journal rows and staging directories name their process, and the next mount brings home what belongs to one that has
ended (W4). Mounts of one pid namespace tell that of each other and share a state directory. Mounts in two containers
with a volume in common, or on two hosts, would take each other for dead and upload files that are still being written:
the second one is refused. So is a command that deals with what was left behind.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mscfs.errors import MountError
from mscfs.journal import boot

OWNER = "owner"
"""The file that every user holds locked. It says where they run, and the pid of the one that came last."""
_LINE = 200


@contextmanager
def shared(directory: Path) -> Iterator[None]:
    """Use a state directory as long as the context lasts.

    Raises MountError when another machine or container does, and when its disk is full.
    """
    with ExitStack() as stack:
        try:
            descriptor = os.open(directory / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            _join(descriptor, directory)
        except OSError as error:
            raise MountError(f"{directory}: {error.strerror}; what is not uploaded yet is kept there") from error
        yield


def here() -> str:
    """The pid namespace of this process, told apart from those of other machines and of earlier boots."""
    return f"{boot()}/{Path('/proc/self/ns/pid').readlink()}"


def _join(descriptor: int, directory: Path) -> None:
    with suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sign(descriptor)  # nobody else is there
    # Giving up the one lock for the other is not one step: who came in between has signed, and is found here.
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    place, _, pid = os.pread(descriptor, 1000, 0).decode(errors="replace").strip().partition(" ")
    if place != here():
        raise MountError(
            f"{directory} is in use by a mount in another container or on another host (pid {pid} there): "
            "go there, or use another state directory here (XDG_STATE_HOME, or StateDirectory= under systemd)"
        )
    _sign(descriptor)


def _sign(descriptor: int) -> None:
    # Always as long as before: who reads at the same time finds a whole line.
    os.pwrite(descriptor, f"{here()} {os.getpid():<20}\n".ljust(_LINE).encode(), 0)
