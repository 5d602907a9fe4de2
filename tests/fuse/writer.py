"""A program that writes to a mount until it is told to stop or may not any more, and records what was acknowledged.

`python -m tests.fuse.writer DIRECTORY RECORD NAME SIZE`: a line `ok KEY NUMBER` for each file whose close() returned 0,
`failed KEY ERRNO` for the one that could not be written, and then it ends. Files `NAME-0`, `NAME-1`, … are new ones,
every third rewrites `NAME-again`. What they hold is known from their keys and numbers: `content`.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import sys
from pathlib import Path

_PIECE = 64 << 10


def content(name: str, number: int, size: int) -> bytes:
    """The bytes of one file: first which one it is, then what follows from that."""
    head = f"{name} {number} {size}\n".encode()
    return (head + hashlib.shake_128(head).digest(size))[:size]


def is_state_of(held: bytes, *, whole: bool) -> bool:
    """Whether these bytes are a file of a writer, or the beginning of one: never a mixture, never garbage."""
    head, newline, _ = held.partition(b"\n")
    if not newline:
        return not whole and re.fullmatch(rb"[-a-z0-9]*( \d*){0,2}", head) is not None
    name, number, size = head.decode().split(" ")
    expected = content(name, int(number), int(size))
    return held == expected if whole else expected.startswith(held)


def main(directory: str, record: str, name: str, size: int) -> None:
    """Write until SIGTERM."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)  # so that a detached mount is still ours
    number = 0
    with Path(record).open("a", buffering=1) as told:
        while not stopped:
            key = f"{name}-again" if number % 3 == 2 else f"{name}-{number}"
            try:
                file = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=place)
                try:
                    data = memoryview(content(name, number, size))
                    for start in range(0, size, _PIECE):
                        os.write(file, data[start : start + _PIECE])
                except BaseException:
                    # close(2) of what could not be written whole: whatever it says, nothing is acknowledged.
                    os.dup2(os.open(os.devnull, os.O_WRONLY), file)
                    raise
                finally:
                    os.close(file)
            except OSError as error:
                told.write(f"failed {key} {error.errno}\n")
                return
            told.write(f"ok {key} {number}\n")
            number += 1


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
