"""Whatever a mount does to a file while a copy of it is on its way to a replica: R4, R6, W7, W8.

The copy is made in a thread that stops at one of its requests, each in turn; there the mount does its work, and the
copy goes on. `tests/replicas/test_step.py` has the same for what others do to the primary in the middle of a piece.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from mscfs.errors import StorageError
from mscfs.providers.base import StorageProvider
from mscfs.replicas.step import bring_up_to_date
from mscfs.vfs.inodes import ROOT
from tests.vfs.inline import World, world
from tests.vfs.test_names import ME, names, read_file, write_file

OLD, NEW, OTHER, BEFORE = b"old content", b"new content", b"other stuff", b"an older one"
assert len(OLD) == len(NEW) == len(OTHER), "nothing is told by its size"

REQUESTS = frozenset({"head", "get", "put", "delete", "set_posix_attributes"})


class Interleaving:
    """Lets `event` happen at step `at` of what is done inside `watched`; `steps` counts them."""

    def __init__(self) -> None:
        self.steps = 0
        self._at = -1
        self._event: Callable[[], Awaitable[object]] | None = None

    async def watched(self, call: Callable[[], object], event: Callable[[], Awaitable[object]], at: int) -> None:
        self.steps, self._event, self._at = 0, event, at
        try:
            with suppress(StorageError):
                await trio.to_thread.run_sync(call)
        finally:
            self._event = None

    def step(self) -> None:
        event = self._event
        if event is None:
            return
        self.steps += 1
        if self.steps - 1 == self._at:
            self._event = None  # what the event does is no step
            try:
                trio.from_thread.run(event)
            finally:
                self._event = event


class Tapped:
    """A provider whose requests are steps: their beginning, and their end."""

    def __init__(self, inner: StorageProvider, interleaving: Interleaving) -> None:
        self.inner = inner
        self._interleaving = interleaving

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in REQUESTS:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._interleaving.step()
            try:
                return found(*arguments, **named)
            finally:
                self._interleaving.step()

        return call


@dataclass
class Scene:
    """A directory with a file `a`, whose copy is on its way, and a file `other`."""

    w: World
    directory: str
    number: int

    @property
    def key(self) -> str:
        return f"{self.directory}/a"

    @property
    def primary(self) -> StorageProvider:
        return self.w.parts.manager.primary


async def change_in_place(scene: Scene) -> None:
    handle, _ = await scene.w.fs.open((await scene.w.fs.lookup(scene.number, "a")).number, os.O_RDWR)
    await scene.w.fs.write(handle, 0, NEW)
    await scene.w.fs.flush(handle)
    await scene.w.fs.release(handle)


async def replace(scene: Scene) -> None:
    handle, _, _ = await scene.w.fs.create(scene.number, "a", 0o644, os.O_WRONLY | os.O_TRUNC, ME)
    await scene.w.fs.write(handle, 0, NEW)
    await scene.w.fs.flush(handle)
    await scene.w.fs.release(handle)


async def unlink(scene: Scene) -> None:
    await scene.w.fs.unlink(scene.number, "a")


async def unlink_an_open_file(scene: Scene) -> None:
    number = (await scene.w.fs.lookup(scene.number, "a")).number
    handle, _ = await scene.w.fs.open(number, os.O_RDONLY)
    await scene.w.fs.unlink(scene.number, "a")
    assert bytes(await scene.w.fs.read(handle, 0, 99)) == OLD
    await scene.w.fs.release(handle)


async def make_anew(scene: Scene) -> None:
    await scene.w.fs.unlink(scene.number, "a")
    await write_file(scene.w.fs, scene.number, "a", NEW)


async def rename_away(scene: Scene) -> None:
    await scene.w.fs.rename(scene.number, "a", scene.number, "b", 0)


async def rename_over(scene: Scene) -> None:
    await scene.w.fs.rename(scene.number, "other", scene.number, "a", 0)


async def move_the_directory(scene: Scene) -> None:
    await scene.w.fs.rename(ROOT, scene.directory, ROOT, f"{scene.directory}-moved", 0)


async def move_the_directory_and_back(scene: Scene) -> None:
    await move_the_directory(scene)
    await scene.w.fs.rename(ROOT, f"{scene.directory}-moved", ROOT, scene.directory, 0)


async def behind_overwrite(scene: Scene) -> None:
    scene.primary.put(scene.key, NEW)


async def behind_delete(scene: Scene) -> None:
    scene.primary.delete(scene.key)


async def behind_rename_over(scene: Scene) -> None:
    scene.primary.rename(f"{scene.directory}/other", scene.key)


EVENTS = [
    change_in_place,
    replace,
    unlink,
    unlink_an_open_file,
    make_anew,
    rename_away,
    rename_over,
    move_the_directory,
    move_the_directory_and_back,
    behind_overwrite,
    behind_delete,
    behind_rename_over,
]


@pytest.mark.parametrize(
    ("stores", "event"),
    [
        *(("objects", event) for event in EVENTS),
        *(("objects, deletes propagated", event) for event in (unlink, make_anew, rename_away, move_the_directory)),
        *(("file", event) for event in (change_in_place, unlink, rename_over, move_the_directory)),
    ],
)
async def test_R4_R6_W8_a_copy_under_way_ends_as_the_newest_or_not_at_all(tmp_path, stores, event):
    options = {"objects": stores != "file", "propagate_deletes": stores.endswith("propagated")}
    async with world(tmp_path, metadata_ttl=0, **options) as w:
        interleaving = tap(w)
        for before in (None, BEFORE):
            at, steps = 0, 1
            while at < steps:
                await copy_with_an_event(
                    w, interleaving, f"{'stale' if before else 'missing'}-{at:02}", before, event, at
                )
                at, steps = at + 1, interleaving.steps
            assert steps > 6


def tap(w: World) -> Interleaving:
    interleaving = Interleaving()
    manager = w.parts.manager
    for source in (manager.primary_source, *manager.replicas):
        object.__setattr__(source, "provider", Tapped(source.provider, interleaving))
    return interleaving


async def copy_with_an_event(
    w: World, interleaving: Interleaving, directory: str, before: bytes | None, event: Any, at: int
) -> None:
    manager, journal = w.parts.manager, w.parts.journal
    key = f"{directory}/a"
    if before is not None:
        manager.primary.put(key, before)
        bring_up_to_date(manager, "near", key)
    manager.primary.put(key, OLD)
    manager.primary.put(f"{directory}/other", OTHER)
    scene = Scene(w, directory, (await w.fs.lookup(ROOT, directory)).number)
    assert await read_file(w.fs, (await w.fs.lookup(scene.number, "a")).number) == OLD
    await w.parts.replicator.write_gathered()
    (claimed,) = journal.claim(9, replicas=["near"])
    assert claimed.key == key

    def copy() -> None:
        bring_up_to_date(manager, "near", key)
        journal.finish(claimed)

    await interleaving.watched(copy, lambda: event(scene), at)
    journal.release(claimed)
    for _ in range(2):
        await serves_what_the_primary_holds(scene)
        await carry_out_all_wishes(w)
    await serves_what_the_primary_holds(scene)
    is_told = not event.__name__.startswith("behind")
    for replica in manager.replicas:
        for entry in [entry for entry in replica.provider.list(directory) if not entry.is_directory]:
            on_primary = content(manager.primary, entry.key)
            if on_primary is not None:
                assert content(replica.provider, entry.key) == on_primary, (replica.profile, entry.key, at)
            elif is_told:
                assert journal.is_deleted(replica.profile, entry.key), (replica.profile, entry.key, at)
                assert not manager.propagate_deletes, (replica.profile, entry.key, at)


async def serves_what_the_primary_holds(scene: Scene) -> None:
    """Names and contents, wherever the directory is by now."""
    fs, primary = scene.w.fs, scene.primary
    held = {entry.key: content(primary, entry.key) for entry in primary.list(scene.directory) if not entry.is_directory}
    seen = {}
    for directory in [name for name in await names(fs) if name in {scene.directory, f"{scene.directory}-moved"}]:
        number = (await fs.lookup(ROOT, directory)).number
        for name in await names(fs, number):
            seen[f"{directory}/{name}"] = await read_file(fs, (await fs.lookup(number, name)).number)
    assert seen == held


async def carry_out_all_wishes(w: World) -> None:
    await w.parts.replicator.write_gathered()
    while claims := w.parts.journal.claim(99, even_if_not_due=True):
        for claim in claims:
            bring_up_to_date(w.parts.manager, claim.replica, claim.key, delete=claim.kind == "delete")
            w.parts.journal.finish(claim)


def content(store: StorageProvider, key: str) -> bytes | None:
    with suppress(StorageError):
        return store.get(key).read_all()
    return None
