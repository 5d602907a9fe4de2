"""opendir(3), telldir(3), seekdir(3) and rewinddir(3) through the kernel, in a directory that changes meanwhile."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = pytest.mark.mount

ENTRIES = 3000
"""The kernel takes about 700 at once. By hand: MSCFS_TEST_ENTRIES=100000."""

libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.readdir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
libc.telldir.argtypes = libc.rewinddir.argtypes = libc.closedir.argtypes = libc.readdir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
NAME_AT = 19
"""Bytes before d_name in a struct dirent."""


@contextmanager
def opened(path: Path) -> Iterator[int]:
    stream = libc.opendir(os.fsencode(path))
    assert stream
    try:
        yield stream
    finally:
        libc.closedir(stream)


def read(stream: int, count: int = 1 << 30) -> list[str]:
    names = []
    while len(names) < count:
        entry = libc.readdir(stream)
        if not entry:
            break
        names.append(os.fsdecode(ctypes.string_at(entry + NAME_AT)))
    return names


def test_R2_a_directory_is_read_while_names_come_and_go(make_mount):
    m = make_mount(metadata_ttl=60)
    entries = int(os.environ.get("MSCFS_TEST_ENTRIES", ENTRIES))
    below = m.store("primary") / "d"
    below.mkdir()
    names = [f"{'gone' if number % 10 == 0 else 'kept'}-{number:06}" for number in range(entries)]
    for name in names:
        (below / name).touch()
    kept = [name for name in names if name.startswith("kept")]
    gone = [name for name in names if name.startswith("gone")]

    def stay(seen: list[str]) -> list[str]:
        # What is removed and made anew may be seen twice.
        return sorted(name for name in seen if name.startswith("kept"))

    with opened(m.path / "d") as stream:
        seen = []
        for step in range(0, min(len(gone) - 3, 300), 3):
            seen += read(stream, entries // 100)
            (m.path / "d" / gone[step]).unlink()
            (m.path / "d" / gone[step + 1]).rename(m.path / "d" / f"moved-{step}")
            (m.path / "d" / gone[-1 - step % 50]).touch()
            (m.path / "d" / f"new-{step}").touch()
        place = libc.telldir(stream)
        rest = read(stream)
        assert stay(seen + rest) == kept
        libc.seekdir(stream, place)
        assert stay(seen + read(stream)) == kept
        libc.rewinddir(stream)
        again = read(stream)
        assert stay(again) == kept
        assert sorted(again) == sorted(os.listdir(m.path / "d"))
