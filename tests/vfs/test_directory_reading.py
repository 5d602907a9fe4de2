"""Directories read while they change: what stays is seen exactly once, wherever a reader stops and goes on."""

from __future__ import annotations

import random

import pytest
import trio

from mscfs.vfs.entries import GONE, UNSURE
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.paths import to_name
from tests.vfs.inline import World, world
from tests.vfs.test_names import ME, write_file

ENTRIES = 1500
"""A page of the memory store has 1,000 entries, and one call gives 1,024 at most."""


class Reader:
    """A program that reads a directory, a few entries at a time as the kernel does."""

    def __init__(self, w: World, number: int) -> None:
        self._fs = w.fs
        self._handle = w.fs.open_directory(number)
        self.position = 0
        self.seen: list[str] = []

    async def read(self, count: int) -> int:
        """Read at most so many entries; returns how many there were, those included that are gone."""
        rows = await self._fs.read_directory(self._handle, self.position)
        entries = rows.entries
        found = [
            None if entries.states[slot] & (GONE | UNSURE) else to_name(entries.names[slot]) for slot in rows.slots
        ]
        found += [inode.name if self._fs.is_present(inode) else None for inode in rows.loose]
        self.seen += [name for name in found[:count] if name is not None]
        self.position += min(count, len(found))
        return min(count, len(found))

    async def read_to_the_end(self, count: int = 1024) -> list[str]:
        while await self.read(count):
            pass
        return self.seen

    def close(self) -> None:
        self._fs.close_directory(self._handle)


async def made(w: World) -> int:
    """A directory with what was in it before the mount began; the numbers are spread over all pages."""
    primary = w.parts.manager.primary
    for number in range(ENTRIES):
        primary.put(f"d/{'gone' if number % 5 == 0 else 'kept'}-{number:06}", b"x")
    return (await w.fs.lookup(ROOT, "d")).number


KEPT = [f"kept-{number:06}" for number in range(ENTRIES) if number % 5]


async def change(w: World, directory: int, chance: random.Random, step: int) -> None:
    """Something that leaves all `kept` names alone, here or on the primary behind the mount's back."""
    name = f"gone-{chance.randrange(0, ENTRIES, 5):06}"
    primary = w.parts.manager.primary
    what = chance.randrange(8)
    try:
        if what == 0:
            await w.fs.unlink(directory, name)
        elif what == 1:
            await write_file(w.fs, directory, f"new-{step:06}", b"new")
        elif what == 2:
            await w.fs.rename(directory, name, directory, f"moved-{step:06}", 0)
        elif what == 3:
            await w.fs.rename(directory, name, ROOT, f"out-{step:06}", 0)
            await w.fs.rename(ROOT, f"out-{step:06}", directory, f"back-{step:06}", 0)
        elif what == 4:
            await w.fs.make_directory(directory, f"sub-{step:06}", 0o755, ME)
        elif what == 5:
            primary.delete(f"d/{name}")
        elif what == 6:
            primary.put(f"d/elsewhere-{step:06}", b"x")
        else:
            other = Reader(w, directory)  # with a `metadata_ttl` of 0 it lists anew
            await other.read_to_the_end()
            assert sorted(name for name in other.seen if name.startswith("kept")) == KEPT
            other.close()
    except FileNotFoundError:
        pass


@pytest.mark.parametrize("metadata_ttl", [0, 60])
@pytest.mark.parametrize("seed", range(2))
async def test_R2_what_stays_is_seen_once_while_names_come_and_go(tmp_path, seed, metadata_ttl):
    chance = random.Random(seed)
    async with world(tmp_path, objects=True, replicas=False, metadata_ttl=metadata_ttl) as w:
        directory = await made(w)
        reader = Reader(w, directory)
        step = 0
        while await reader.read(chance.randrange(1, 200)):
            for _ in range(chance.randrange(4)):
                step += 1
                await change(w, directory, chance, step)
        assert sorted(name for name in reader.seen if name.startswith("kept")) == KEPT
        assert len(reader.seen) == len(set(reader.seen))
        reader.close()


async def test_R2_names_that_come_and_go_while_the_pages_arrive(tmp_path):
    async with world(tmp_path, objects=True, replicas=False, metadata_ttl=60) as w:
        directory = await made(w)
        page, go_on = trio.Event(), trio.Event()

        async def hold(what, *_):
            if what == "page":
                page.set()
                await go_on.wait()

        w.transport.before = hold
        reader = Reader(w, directory)
        await reader.read(10)
        await page.wait()
        w.transport.before = None
        await w.fs.unlink(directory, "gone-000005")  # told of
        await w.fs.unlink(directory, "gone-001200")  # not told of yet
        await w.fs.rename(directory, "gone-001400", directory, "aa-first", 0)
        await w.fs.rename(directory, "gone-000000", directory, "zz-last", 0)
        go_on.set()
        seen = await reader.read_to_the_end()
        assert sorted(name for name in seen if name.startswith("kept")) == KEPT
        assert {"gone-001200", "gone-001400"}.isdisjoint(seen)
        assert len(seen) == len(set(seen))
        reader.close()


async def test_R2_a_reader_goes_on_where_it_was_told_and_begins_anew_at_the_start(tmp_path):
    """telldir(3), seekdir(3) and rewinddir(3)."""
    async with world(tmp_path, objects=True, replicas=False, metadata_ttl=60) as w:
        directory = await made(w)
        reader = Reader(w, directory)
        await reader.read(700)
        place, before = reader.position, list(reader.seen)
        await reader.read_to_the_end()
        await w.fs.unlink(directory, "gone-000005")
        await w.fs.unlink(directory, "gone-001495")
        reader.position, reader.seen = place, before
        seen = await reader.read_to_the_end(333)
        assert sorted(name for name in seen if name.startswith("kept")) == KEPT
        await write_file(w.fs, directory, "new", b"new")
        reader.position, reader.seen = 0, []
        seen = await reader.read_to_the_end()
        assert sorted(name for name in seen if name.startswith("kept")) == KEPT
        assert "new" in seen
        assert "gone-000005" not in seen
        assert len(seen) == len(set(seen))
        reader.close()
