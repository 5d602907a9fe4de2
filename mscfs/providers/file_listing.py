"""Listing a directory tree in the order in which object stores list keys."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator

from mscfs.providers.beneath import Base, closing, is_draft
from mscfs.providers.file_draft import version_of
from mscfs.providers.file_metadata import describe, type_of
from mscfs.providers.page import DIRECTORY, FILE, PAGE_SIZE, SYMLINK, Detail, Entry, Page, PageBuilder
from mscfs.types import ObjectMetadata

_Place = tuple[bytes, ObjectMetadata | None]
"""A key in the order and its object; None for a directory, whose key ends in `/`."""

_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK}

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
    for descriptor, names in _opened(base, directory):
        for name in names:
            described = _described(descriptor, directory, os.fsdecode(name))
            if described is not None:
                yield described


def pages(base: Base, directory: str) -> Iterator[Page]:
    """The same in columns."""
    for descriptor, names in _opened(base, directory):
        builder, details = PageBuilder(), dict[tuple[int, int, int], Detail]()
        for name in names:
            entry = _entry(descriptor, name, details)
            if entry is not None:
                builder.add(entry)
            if len(builder) >= PAGE_SIZE:
                yield builder.build()
        yield builder.build()


def _opened(base: Base, directory: str) -> Iterator[tuple[int, list[bytes]]]:
    """The open directory and its names in order, once; nothing if it is not there."""
    descriptor = _open(base, directory)
    if descriptor is None:
        return
    with closing(descriptor):
        with os.scandir(descriptor) as found:
            names = sorted(os.fsencode(entry.name) for entry in found if not is_draft(entry.name))
        yield descriptor, names


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


def _entry(descriptor: int, name: bytes, details: dict[tuple[int, int, int], Detail]) -> Entry | None:
    """What `describe` says, for a page; files of one owner and mode share their detail."""
    try:
        status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        mode = status.st_mode
        target = os.readlink(name, dir_fd=descriptor) if stat.S_ISLNK(mode) else None
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINVAL}:
            return None  # removed or replaced since the directory was read
        raise
    kind = _KINDS.get(stat.S_IFMT(mode))
    if kind is None:
        return None
    owned = (stat.S_IMODE(mode), status.st_uid, status.st_gid)
    detail = details.get(owned)
    if detail is None:
        detail = details[owned] = Detail(*owned)
    if target is not None:
        detail = Detail(*owned, symlink_target=target)
    version = version_of(status)
    if kind == DIRECTORY:
        return Entry(name, kind, 0, version.modified_ns, b"", detail)
    return Entry(name, kind, version.size, version.modified_ns, version.tag.encode(), detail)
