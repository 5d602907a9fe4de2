"""The extended attributes `user.*` that programs gave a file, beside those that mscfs needs itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress

from mscfs.types import is_user_xattr

_NONE = frozenset({errno.ENOTSUP, errno.ENOSYS})


def read_xattrs(file: int | str) -> dict[str, bytes]:
    """All of them; none where the file system has none. Raises OSError."""
    try:
        names = os.listxattr(file)
    except OSError as error:
        if error.errno in _NONE:
            return {}
        raise
    found = {}
    for name in names:
        if is_user_xattr(name):
            with suppress(OSError):  # removed meanwhile
                found[name] = os.getxattr(file, name)
    return found


def write_xattrs(file: int | str, xattrs: Mapping[str, bytes]) -> None:
    """Make these all there are. Raises OSError."""
    present = read_xattrs(file)
    for name in present.keys() - xattrs.keys():
        os.removexattr(file, name)
    for name, value in xattrs.items():
        if present.get(name) != value:
            os.setxattr(file, name, value)


def copy_xattrs(directory: int, name: str, target: int) -> None:
    """Give a file those of another one, as far as we may read them and they fit."""
    with suppress(OSError):
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        try:
            for one, value in read_xattrs(source).items():
                os.setxattr(target, one, value)
        finally:
            os.close(source)
