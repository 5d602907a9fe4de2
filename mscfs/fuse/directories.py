"""Answers to readdir: the hot loop of every walk through a tree.

pyfuse3's readdir is always readdirplus: each entry comes with its attributes and counts as a lookup. What was only
listed goes from the columns into one reused answer, of which only what differs is set: about a microsecond an entry.
"""

from __future__ import annotations

import pyfuse3

from mscfs.fuse.answers import BLOCK_SIZE, DIRECTORY_BLOCK, PREFERRED_BLOCK, to_entry
from mscfs.providers.page import DIRECTORY, SYMLINK
from mscfs.vfs.entries import BLOCK, BLOCK_BITS
from mscfs.vfs.filesystem import Filesystem
from mscfs.vfs.inodes import Inode
from mscfs.vfs.names import Rows
from mscfs.vfs.paths import to_bytes


def reply(filesystem: Filesystem, token: pyfuse3.ReaddirToken, rows: Rows) -> None:
    """Give the kernel as many of the rows as it takes; each counts as a lookup. Gives way to no other task."""
    if rows.loose:
        _reply_inodes(filesystem, token, rows)
        return
    if filesystem.reads_kept:
        _reply_kept(filesystem, token, rows)
        return
    entries, started_ns = rows.entries, filesystem.started_ns
    names, states, kinds, details = entries.names, entries.states, entries.kinds, entries.details
    sizes, modified, lookups, blocks = entries.sizes, entries.modified, entries.lookups, entries.blocks
    position, new_references = rows.position, 0
    answer = pyfuse3.EntryAttributes()
    answer.entry_timeout = answer.attr_timeout = rows.timeout
    last_kind, last_detail, last_modified = 0, None, -1
    for slot in rows.slots:
        position += 1
        if states[slot]:
            inode = filesystem.present(entries, slot)
            if inode is not None and not _give(filesystem, token, inode, position):
                break
            continue
        kind, detail, size, time = kinds[slot], details[slot], sizes[slot], modified[slot]
        if not time and kind == DIRECTORY:
            time = started_ns  # no store told of its time
        if kind != last_kind or detail is not last_detail:
            answer.st_mode, answer.st_uid, answer.st_gid = filesystem.ownership(kind, detail)
            answer.st_blksize = DIRECTORY_BLOCK if kind == DIRECTORY else PREFERRED_BLOCK
            last_kind, last_detail = kind, detail
        if kind == SYMLINK and detail is not None and detail.symlink_target is not None:
            size = len(detail.symlink_target)
        if time != last_modified:
            answer.st_mtime_ns = answer.st_ctime_ns = answer.st_atime_ns = last_modified = time
        answer.st_ino = (blocks[slot >> BLOCK_BITS] << BLOCK_BITS) + (slot & BLOCK - 1)
        answer.st_size = size
        answer.st_blocks = (size + BLOCK_SIZE - 1) // BLOCK_SIZE
        if not pyfuse3.readdir_reply(token, names[slot], answer, position):
            break
        if not lookups[slot]:
            new_references += 1
        lookups[slot] += 1
    entries.references += new_references


def _reply_kept(filesystem: Filesystem, token: pyfuse3.ReaddirToken, rows: Rows) -> None:
    """The same where user metadata tell attributes, one by one."""
    entries = rows.entries
    for position, slot in enumerate(rows.slots, rows.position + 1):
        if entries.states[slot]:
            inode = filesystem.present(entries, slot)
            if inode is not None and not _give(filesystem, token, inode, position):
                return
            continue
        if not pyfuse3.readdir_reply(token, entries.names[slot], to_entry(filesystem.listed(entries, slot)), position):
            return
        entries.refer(slot)


def _reply_inodes(filesystem: Filesystem, token: pyfuse3.ReaddirToken, rows: Rows) -> None:
    for position, inode in enumerate(rows.loose, rows.position + 1):
        # It may have lost its name since the last call.
        if filesystem.is_present(inode) and not _give(filesystem, token, inode, position):
            return


def _give(filesystem: Filesystem, token: pyfuse3.ReaddirToken, inode: Inode, position: int) -> bool:
    entry = to_entry(filesystem.reference(inode))
    if pyfuse3.readdir_reply(token, to_bytes(inode.name), entry, position):
        return True
    filesystem.dereference(inode)
    return False
