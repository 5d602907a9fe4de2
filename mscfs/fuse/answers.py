"""Attributes as the kernel gets them."""

from __future__ import annotations

import stat

import pyfuse3

from mscfs.vfs.attributes import Attributes
from mscfs.vfs.paths import to_bytes

BLOCK_SIZE = 512
PREFERRED_BLOCK = 4096
DIRECTORY_BLOCK = 131072
"""The C library takes it for the size of its readdir buffer, and the kernel for that of its request: about 700 entries
at once."""


def to_entry(attributes: Attributes) -> pyfuse3.EntryAttributes:
    """The answer to a lookup or stat."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = attributes.number
    entry.st_mode = attributes.mode
    entry.st_size = attributes.size
    entry.st_uid = attributes.uid
    entry.st_gid = attributes.gid
    entry.st_nlink = attributes.links
    entry.st_atime_ns = attributes.atime_ns
    entry.st_mtime_ns = attributes.mtime_ns
    entry.st_ctime_ns = attributes.ctime_ns
    entry.st_blksize = DIRECTORY_BLOCK if stat.S_ISDIR(attributes.mode) else PREFERRED_BLOCK
    entry.st_blocks = -(-attributes.size // BLOCK_SIZE)
    entry.entry_timeout = entry.attr_timeout = attributes.timeout
    return entry


def no_entry(seconds: float) -> pyfuse3.EntryAttributes:
    """The answer that a name does not exist, which the kernel may believe for so long."""
    entry = pyfuse3.EntryAttributes()
    entry.st_ino = 0
    entry.entry_timeout = entry.attr_timeout = seconds
    return entry


def make_kernel_ask(directory: int, name: str) -> None:
    """Have the kernel forget what it was told of a name.

    Not at once: it does so when no call about the name is under way, and this may be part of such a call.
    """
    pyfuse3.invalidate_entry_async(directory, to_bytes(name), ignore_enoent=True)
