"""What is done and over leaves nothing in memory (L4): not even what Python's collector could find.

It finds young cycles soon. What has been in use for a while it looks at about once in 200 million objects, so that such
things must not be part of cycles when they are let go. Each piece of work is done many times, with names of its own,
and grows old in the middle.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from tests.vfs.inline import World, world
from tests.vfs.test_listings import settled
from tests.vfs.test_names import ME

WARM_UP, TIMES = 5, 30


def grow_old() -> None:
    """All that is in use now is out of the collector's sight from now on."""
    gc.collect()
    gc.freeze()


async def file(w: World, parent: int, name: str, data: bytes = b"content") -> None:
    handle, _, made = await w.fs.create(parent, name, 0o644, os.O_WRONLY, ME)
    await w.fs.write(handle, 0, data)
    grow_old()
    await w.fs.flush(handle)
    grow_old()
    await w.fs.release(handle)
    w.fs.forget(made.number, 1)


async def made_and_unlinked(w: World, number: int) -> None:
    await file(w, ROOT, f"new-{number}")
    await w.fs.unlink(ROOT, f"new-{number}")


async def written_and_renamed_over_another(w: World, number: int) -> None:
    await file(w, ROOT, f"temporary-{number}")
    await w.fs.rename(ROOT, f"temporary-{number}", ROOT, "target", 0)


async def unlinked_while_open(w: World, number: int) -> None:
    handle, _, made = await w.fs.create(ROOT, f"open-{number}", 0o644, os.O_RDWR, ME)
    await w.fs.write(handle, 0, b"content")
    await w.fs.flush(handle)
    await w.fs.unlink(ROOT, f"open-{number}")
    await w.fs.read(handle, 0, 10)
    grow_old()
    await w.fs.release(handle)
    w.fs.forget(made.number, 1)


async def read(w: World, number: int) -> None:
    w.parts.manager.primary.put(f"read-{number}", b"x" * 100_000)
    found = await w.fs.lookup(ROOT, f"read-{number}")
    handle, _ = await w.fs.open(found.number, os.O_RDONLY)
    for offset in range(0, 100_000, 10_000):
        await w.fs.read(handle, offset, 10_000)
    grow_old()
    await w.fs.release(handle)
    w.fs.forget(found.number, 1)
    w.parts.manager.primary.delete(f"read-{number}")


async def replaced_elsewhere_while_open(w: World, number: int) -> None:
    primary = w.parts.manager.primary
    primary.put("replaced", b"one %d" % number)
    found = await w.fs.lookup(ROOT, "replaced")
    handle, _ = await w.fs.open(found.number, os.O_RDONLY)
    await w.fs.read(handle, 0, 100)
    primary.put("replaced", b"another %d" % number)
    again = await w.fs.lookup(ROOT, "replaced")
    grow_old()
    await w.fs.release(handle)
    w.fs.forget(found.number, 1)
    w.fs.forget(again.number, 1)


async def asked_for_in_vain(w: World, number: int) -> None:
    with pytest.raises(FileNotFoundError):
        await w.fs.lookup(ROOT, f"absent-{number}")


async def directory_made_listed_and_removed(w: World, number: int) -> None:
    made = await w.fs.make_directory(ROOT, f"directory-{number}", 0o755, ME)
    await file(w, made.number, "inside")
    handle = w.fs.open_directory(made.number)
    assert len((await w.fs.read_directory(handle, 0)).slots) == 1
    grow_old()
    w.fs.close_directory(handle)
    await w.fs.unlink(made.number, "inside")
    await w.fs.remove_directory(ROOT, f"directory-{number}")
    w.fs.forget(made.number, 1)


async def directory_moved(w: World, number: int) -> None:
    made = await w.fs.make_directory(ROOT, f"old-{number}", 0o755, ME)
    await file(w, made.number, "inside")
    await w.fs.rename(ROOT, f"old-{number}", ROOT, f"moved-{number}", 0)
    grow_old()
    await w.fs.unlink(made.number, "inside")
    await w.fs.remove_directory(ROOT, f"moved-{number}")
    w.fs.forget(made.number, 1)


async def link_made_read_and_unlinked(w: World, number: int) -> None:
    made = await w.fs.symlink(ROOT, f"link-{number}", "target", ME)
    assert await w.fs.readlink(made.number) == "target"
    grow_old()
    await w.fs.unlink(ROOT, f"link-{number}")
    w.fs.forget(made.number, 1)


async def attributes_set(w: World, number: int) -> None:
    await file(w, ROOT, f"attributes-{number}")
    found = await w.fs.lookup(ROOT, f"attributes-{number}")
    await w.fs.set_attributes(found.number, Change(mode=0o600, mtime_ns=number))
    await w.fs.set_attributes(found.number, Change(size=3))
    grow_old()
    await w.fs.unlink(ROOT, f"attributes-{number}")
    w.fs.forget(found.number, 1)


async def overwritten_in_place(w: World, number: int) -> None:
    w.parts.manager.primary.put("in place", b"before %d" % number)
    found = await w.fs.lookup(ROOT, "in place")
    handle, _ = await w.fs.open(found.number, os.O_RDWR)
    await w.fs.write(handle, 3, b"!")
    await w.fs.fsync(handle)
    grow_old()
    await w.fs.release(handle)
    w.fs.forget(found.number, 1)


WORK = (
    made_and_unlinked,
    written_and_renamed_over_another,
    unlinked_while_open,
    read,
    replaced_elsewhere_while_open,
    asked_for_in_vain,
    directory_made_listed_and_removed,
    directory_moved,
    link_made_read_and_unlinked,
    attributes_set,
    overwritten_in_place,
)


def ours() -> Counter[str]:
    """The objects of this program that are alive, by type."""
    return Counter(type(one).__qualname__ for one in gc.get_objects() if str(type(one).__module__).startswith("mscfs."))


@pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])
@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
async def test_L4_nothing_is_left_of(
    tmp_path: Any, objects: bool, work: Callable[[World, int], Awaitable[None]]
) -> None:
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:

        async def left_after(numbers: range) -> Counter[str]:
            for number in numbers:
                await work(w, number)
            await settled()
            await w.parts.recorder.write()
            await w.parts.replicator.write_gathered()
            gc.collect()
            gc.unfreeze()
            return ours()

        gc.disable()
        try:
            before = await left_after(range(WARM_UP))
            after = await left_after(range(WARM_UP, WARM_UP + TIMES))
        finally:
            gc.unfreeze()
            gc.enable()
        # A few may be on their way out; what is left behind is left each time.
        assert {name: count for name, count in (after - before).items() if count >= TIMES // 2} == {}
