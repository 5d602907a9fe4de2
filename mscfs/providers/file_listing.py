"""Listing a directory tree in the order in which object stores list keys."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator

from mscfs.providers.beneath import Base, closing, is_draft
from mscfs.providers.file_metadata import describe, type_of
from mscfs.types import ObjectMetadata

_Place = tuple[bytes, ObjectMetadata | None]
"""A key in the order and its object; None for a directory, whose key ends in `/`."""

_NOTHING_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG})


def walk(base: Base, prefix: str, start_after: str) -> Iterator[ObjectMetadata]:
    """All objects whose key starts with `prefix`, in byte order.

    The names of one directory a level are in memory, since the disk has no order; the rest is read as it is asked for.
    """
    first, after = os.fsencode(prefix), os.fsencode(start_after)
    levels = [_places(base, prefix[: prefix.rfind("/") + 1], first, after)]
    try:
        while levels:
            place, found = next(levels[-1], (b"", None))
            if found is not None:
                yield found
            elif place:
                levels.append(_places(base, os.fsdecode(place), first, after))
            else:
                levels.pop()
    finally:
        for level in reversed(levels):
            level.close()


def entries(base: Base, directory: str) -> Iterator[ObjectMetadata]:
    """The files, links and sub-directories of one directory, by name in byte order; none if it is not there.

    Its names are in memory, since the disk has no order; what they stand for is looked at as it is asked for.
    """
    descriptor = _open(base, directory)
    if descriptor is None:
        return
    with closing(descriptor):
        with os.scandir(descriptor) as found:
            names = sorted((entry.name for entry in found), key=os.fsencode)
        for name in names:
            described = None if is_draft(name) else _described(descriptor, directory, name)
            if described is not None:
                yield described


def _places(base: Base, directory: str, prefix: bytes, after: bytes) -> Generator[_Place, None, None]:
    descriptor = _open(base, directory)
    if descriptor is None:
        return
    above = os.fsencode(directory)
    with closing(descriptor):
        with os.scandir(descriptor) as found:
            # A directory's key ends in `/`: exactly where its keys lie among the others.
            places = sorted(
                above + os.fsencode(entry.name) + (b"/" if entry.is_dir(follow_symlinks=False) else b"")
                for entry in found
                if not is_draft(entry.name)
            )
        for place in places:
            if place.endswith(b"/"):
                # Below it only if its keys can start with the prefix and can lie behind `start_after`.
                may_match = place.startswith(prefix) or prefix.startswith(place)
                if may_match and (place > after or after.startswith(place)):
                    yield place, None
            elif place > after and place.startswith(prefix):
                described = _described(descriptor, directory, os.fsdecode(place[len(above) :]))
                if described is not None and not described.is_directory:
                    yield place, described


def _open(base: Base, directory: str) -> int | None:
    try:
        return base.open_directory(directory.removesuffix("/"))
    except ValueError:
        return None  # NUL
    except OSError as error:
        if error.errno in _NOTHING_THERE:
            return None
        raise


def _described(descriptor: int, directory: str, name: str) -> ObjectMetadata | None:
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        target = os.readlink(name, dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else None
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:
            return None  # removed or replaced since the directory was read
        raise
    return None if type_of(status) is None else describe(directory + name, status, symlink_target=target)
