"""What a file tells about itself: status, user metadata in an extended attribute, the target of a link."""

from __future__ import annotations

import errno
import json
import os
import stat
import time
from collections.abc import Mapping

from mscfs.providers.file_draft import COARSEST_TIME, version_of
from mscfs.types import OWN_XATTRS, STAMP_KEY, ObjectMetadata, ObjectType, Version, from_ns

ATTRIBUTE = f"{OWN_XATTRS}metadata"
_NO_ATTRIBUTES = frozenset({errno.ENOTSUP, errno.ENOSYS})
_SECOND = 1_000_000_000


def type_of(status: os.stat_result) -> ObjectType | None:
    """None for a fifo, socket or device: they are no objects."""
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISLNK(status.st_mode):
        return "symlink"
    return "directory" if stat.S_ISDIR(status.st_mode) else None


def describe(
    key: str,
    status: os.stat_result,
    *,
    metadata: Mapping[str, str] | None = None,
    symlink_target: str | None = None,
) -> ObjectMetadata:
    """The object's metadata; a directory's key gets its `/`."""
    kind = type_of(status)
    assert kind is not None
    directory = kind == "directory"
    version = version_of(status)
    return ObjectMetadata(
        f"{key.removesuffix('/')}/" if directory else key,
        0 if directory else version.size,
        from_ns(version.modified_ns),
        tag="" if directory else version.tag,
        type=kind,
        metadata=metadata,
        modified_ns=version.modified_ns,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        symlink_target=symlink_target,
    )


def describe_path(key: str, place: int) -> ObjectMetadata:
    """The same, user metadata included, of what an O_PATH descriptor names."""
    status = os.fstat(place)
    if stat.S_ISLNK(status.st_mode):
        return describe(key, status, metadata={}, symlink_target=os.readlink("", dir_fd=place))
    return describe(key, status, metadata=read_metadata(f"/proc/self/fd/{place}", status))


def read_metadata(file: int | str, status: os.stat_result) -> dict[str, str]:
    """The user metadata of a file; none where it has none, or where somebody else wrote what is no metadata.

    A stamp that is not true any more is emptied: a copy with another time was changed in place, and must not pass for
    one that another tool made.
    """
    try:
        found = json.loads(os.getxattr(file, ATTRIBUTE))
        if not isinstance(found, dict):
            return {}
        metadata = {str(name): str(value) for name, value in found.items()}
        "".join([*metadata, *metadata.values()]).encode()  # half a surrogate pair is no text, and goes nowhere
    except (OSError, ValueError, RecursionError):
        return {}
    stamped = Version.from_stamp(metadata.get(STAMP_KEY))
    if stamped and stamped.modified_ns and not _is_kept_as(status.st_mtime_ns, stamped.modified_ns):
        metadata[STAMP_KEY] = ""
    return metadata


def write_metadata(descriptor: int, metadata: Mapping[str, str]) -> bool:
    """Replace the user metadata of a file; False where the file system has no extended attributes.

    The time of a copy becomes its primary's, so that it can be judged by its time alone.
    """
    kept = True
    try:
        if metadata:
            os.setxattr(descriptor, ATTRIBUTE, json.dumps(dict(metadata)).encode())
        else:
            os.removexattr(descriptor, ATTRIBUTE)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            kept = not metadata
        elif error.errno != errno.ENODATA:
            raise
    stamped = Version.from_stamp(metadata.get(STAMP_KEY))
    if stamped and stamped.modified_ns > 0:
        _set_time(descriptor, stamped.modified_ns)
    return kept


def _set_time(descriptor: int, modified_ns: int) -> None:
    now = time.time_ns()
    os.utime(descriptor, ns=(now, modified_ns))
    if os.fstat(descriptor).st_mtime_ns < modified_ns:
        # A file system with coarse times cut it off, and a copy may not look older than what it is a copy of.
        os.utime(descriptor, ns=(now, -(-modified_ns // COARSEST_TIME) * COARSEST_TIME))


def _is_kept_as(kept_ns: int, modified_ns: int) -> bool:
    return kept_ns == modified_ns or (kept_ns % _SECOND == 0 and 0 < kept_ns - modified_ns < COARSEST_TIME)
