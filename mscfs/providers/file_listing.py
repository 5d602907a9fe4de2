"""Listing a directory tree in the order in which object stores list keys."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from mscfs.providers.beneath import Base, closing, is_draft
from mscfs.providers.file_metadata import describe, type_of
from mscfs.types import ObjectMetadata


def walk(base: Base, prefix: str, start_after: str) -> Iterator[ObjectMetadata]:
    """All objects below `base` whose key starts with `prefix`, in byte order; one directory in memory for each level."""
    levels = [iter(_sorted_entries(base, prefix[: prefix.rfind("/") + 1]))]
    first, after = os.fsencode(prefix), os.fsencode(start_after)
    while levels:
        entry = next(levels[-1], None)
        if entry is None:
            levels.pop()
            continue
        key = os.fsencode(entry.key)
        if entry.is_directory:
            # Below it only if its keys can start with the prefix and can lie behind `start_after`.
            may_match = key.startswith(first) or first.startswith(key)
            if may_match and (key > after or after.startswith(key)):
                levels.append(iter(_sorted_entries(base, entry.key)))
        elif key.startswith(first) and key > after:
            yield entry


def entries(base: Base, directory: str) -> list[ObjectMetadata]:
    """The files, links and sub-directories of one directory, in the order of the disk; none if it is not there."""
    found = []
    try:
        descriptor = base.open_directory(directory.removesuffix("/"))
    except (FileNotFoundError, NotADirectoryError):
        return []
    with closing(descriptor), os.scandir(descriptor) as scanned:
        for entry in scanned:
            if is_draft(entry.name):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                target = os.readlink(entry.name, dir_fd=descriptor) if stat.S_ISLNK(status.st_mode) else None
            except FileNotFoundError:
                continue  # gone since the directory was read
            if type_of(status) is not None:
                found.append(describe(directory + entry.name, status, symlink_target=target))
    return found


def _sorted_entries(base: Base, directory: str) -> list[ObjectMetadata]:
    # A directory's key ends in `/`: exactly where its keys lie among the others.
    return sorted(entries(base, directory), key=lambda entry: os.fsencode(entry.key))
