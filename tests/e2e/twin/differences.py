"""Where a mount differs from a local directory, on purpose: the test allows this and nothing else.

`docs/semantics.md` shows the same list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.e2e.twin.calls import Result


@dataclass(frozen=True)
class Difference:
    """`allows` is given the name of the call, what the local directory and what the mount answered."""

    text: str
    allows: Callable[[str, Result, Result], bool]


def refused(call: str, number: str) -> Callable[[str, Result, Result], bool]:
    """The mount refuses what the local directory does."""
    return lambda name, local, mount: name == call and not local.error and mount.error == number


DIFFERENCES = [
    Difference("Hard links are refused: `link` is EPERM.", refused("link", "EPERM")),
    Difference("Pipes, sockets and devices cannot be made: `mkfifo` is EPERM.", refused("mkfifo", "EPERM")),
    Difference("`renameat2` with RENAME_EXCHANGE is EINVAL.", refused("exchange", "EINVAL")),
    Difference("Files cannot be made without a name: O_TMPFILE is ENOTSUP.", refused("tmpfile", "ENOTSUP")),
    Difference(
        "`posix_fallocate` of a file that is open for writing only is EBADF: libc emulates it by reading.",
        refused("fallocate", "EBADF"),
    ),
    Difference(
        "A directory's link count is 1, as on btrfs, and its size 0.",
        lambda name, local, mount: (
            name in {"stat", "lstat"}
            and local.value is not None
            and mount.value is not None
            and local.value[0] == "directory"
            and {**dict(local.value[1]), "links": 1} == dict(mount.value[1])
        ),
    ),
    Difference(
        "`listxattr` names the attributes `user.mscfs.*`.",
        lambda name, local, mount: (
            name in {"listxattr", "flistxattr"}
            and not local.error
            and set(local.value) == {key for key in mount.value or () if not key.startswith("user.mscfs.")}
        ),
    ),
]
