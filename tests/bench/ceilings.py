"""A minimal pyfuse3 file system: what FUSE through Python costs when nothing else has to be done.

    python -m tests.bench.ceilings DIRECTORY MOUNTPOINT

Shows the files of a directory, read-only; replies are slices of memory-mapped files, so that Python copies nothing.
"""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.interruption import ending, scratch
from tests.bench.systems.base import detach, unmount, wait_until_mounted

_READ_AHEAD_KIB = 4096


@contextmanager
def minimal(directory: Path, parent: Path) -> Iterator[Path]:
    """Mount the minimal file system over a directory's files, in a process of its own."""
    with scratch(parent, "minimal-") as own:
        mountpoint, log = own / "mnt", own / "log"
        mountpoint.mkdir()
        command = [sys.executable, "-m", "tests.bench.ceilings", str(directory), str(mountpoint)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            with process, ending(process):
                wait_until_mounted(mountpoint, process, log)
                _raise_read_ahead(mountpoint)
                yield mountpoint
                unmount(mountpoint)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(10)
        finally:
            detach(mountpoint)


def _raise_read_ahead(mountpoint: Path) -> None:
    device = mountpoint.stat().st_dev
    with suppress(OSError):  # as root only
        Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb").write_text(str(_READ_AHEAD_KIB))


def main() -> None:
    """Serve until unmounted."""
    import pyfuse3
    import trio

    directory, mountpoint = Path(sys.argv[1]), sys.argv[2]
    files = sorted(path for path in directory.iterdir() if path.is_file())
    contents = []
    for path in files:
        with path.open("rb") as file:
            contents.append(memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)))
    first = pyfuse3.ROOT_INODE + 1
    inodes = {os.fsencode(path.name): first + number for number, path in enumerate(files)}

    class Minimal(pyfuse3.Operations):
        async def getattr(self, inode: int, ctx: object = None) -> pyfuse3.EntryAttributes:
            attributes = pyfuse3.EntryAttributes()
            attributes.st_ino = inode
            attributes.st_mode = 0o40755 if inode == pyfuse3.ROOT_INODE else 0o100644
            attributes.st_size = 0 if inode == pyfuse3.ROOT_INODE else len(contents[inode - first])
            attributes.attr_timeout = attributes.entry_timeout = 60
            return attributes

        async def lookup(self, parent: int, name: bytes, ctx: object = None) -> pyfuse3.EntryAttributes:
            if name not in inodes:
                raise pyfuse3.FUSEError(errno.ENOENT)
            return await self.getattr(inodes[name])

        async def open(self, inode: int, flags: int, ctx: object = None) -> pyfuse3.FileInfo:
            return pyfuse3.FileInfo(fh=inode, keep_cache=True)

        async def read(self, handle: int, offset: int, size: int) -> memoryview:
            return contents[handle - first][offset : offset + size]

        async def opendir(self, inode: int, ctx: object = None) -> int:
            return inode

        async def readdir(self, handle: int, start: int, token: object) -> None:
            for number, (name, inode) in enumerate(list(inodes.items())[start:], start + 1):
                if not pyfuse3.readdir_reply(token, name, await self.getattr(inode), number):
                    break

    pyfuse3.init(Minimal(), mountpoint, {*pyfuse3.default_options, "fsname=minimal"} - {"default_permissions"})
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=True)


if __name__ == "__main__":
    main()
