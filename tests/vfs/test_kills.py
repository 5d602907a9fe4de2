"""A mount killed at every step of every operation that the journal takes part in: W1, W2, W4, W7, W8.

A step is a write to the journal, before it begins and after it was committed, or a change on a store, before and
after. An operation is run once to count its steps, and then once for each of them, with the process dead from there on:
nothing it does any more reaches the journal, a store or the staging directory. The recovery of the next mount is killed
at its first step, that of the one after at its second, and so on; the first one that lives must have put it right.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trio.testing

from mscfs.journal.database import Database
from mscfs.providers.base import StorageProvider
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.step import bring_up_to_date
from mscfs.store import open_store
from mscfs.vfs import streams
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.staging import StagingArea, staging_directories
from mscfs.vfs.staging_log import StagingLog
from tests.vfs.inline import World, make_config, world
from tests.vfs.recovering import recover
from tests.vfs.test_names import ME, read_file, walk, write_file

FIRST_LIFE = "1-2-3"
"""The token of a process that is gone."""
CHANGES = frozenset(
    {"put", "copy", "rename", "rename_directory", "delete", "make_directory", "remove_directory", "complete"}
)
OLD, NEW, OTHER = b"old", b"new content", b"another file"

Content = dict[str, bytes]


class Killed(BaseException):
    pass


class Life:
    """Counts steps, and ends at step `end`."""

    def __init__(self) -> None:
        self.end = -1
        self.steps: list[str] = []
        self.is_over = False
        self.is_counting = False
        self._lock = threading.Lock()

    def step(self, what: str) -> None:
        with self._lock:
            if self.is_over:
                raise Killed
            if self.is_counting:
                if len(self.steps) == self.end:
                    self.is_over = True
                    raise Killed
                self.steps.append(what)


@dataclass
class Mortal:
    """A provider, or an upload, whose changes are steps."""

    inner: Any
    life: Life

    def rename(self, source: str, target: str, **conditions: Any) -> Any:
        if self.inner.capabilities.real_directories:
            return self.__getattr__("rename")(source, target, **conditions)
        return StorageProvider.rename(self, source, target, **conditions)  # type: ignore[arg-type]

    def start_upload(self, *arguments: Any, **named: Any) -> Any:
        return Mortal(self.inner.start_upload(*arguments, **named), self.life)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in CHANGES:
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self.life.step(f"{name} {arguments}")
            done = found(*arguments, **named)
            self.life.step(f"{name} {arguments} is done")
            return done

        return call


@contextmanager
def mortal(life: Life, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is done in the block is done by a process that may die."""
    transaction = Database.transaction

    @contextmanager
    def noticed(self: Database, *, durable: bool = True) -> Iterator[Any]:
        life.step(f"a transaction of {self._what}")
        with transaction(self, durable=durable) as connection:
            yield connection
        life.step(f"it is committed to {self._what}")

    def unless_dead(call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: None if life.is_over else call(*arguments)

    def close_area(self: StagingArea) -> None:
        for staging in self._files if life.is_over else ():
            os.close(staging.fd)
        close_if_alive(self)

    close_if_alive = unless_dead(StagingArea.close)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", noticed)
        for where, name in ((StagingLog, "write"), (StagingLog, "close"), (StagingArea, "discard")):
            patch.setattr(where, name, unless_dead(getattr(where, name)))
        patch.setattr(StagingArea, "close", close_area)
        for module in ("mscfs.journal.journal", "mscfs.fuse.assembly"):
            patch.setattr(f"{module}.process_token", lambda: FIRST_LIFE)
        with suppress(Killed):
            try:
                yield
            except BaseExceptionGroup as group:
                _, rest = group.split(Killed)
                if rest is not None:
                    raise


@dataclass(frozen=True)
class Operation:
    """`prepare` and `act` get the mount; `before` is on the primary until then, and `after` once it is acknowledged.

    `killed`: what may be there instead after a kill and recovery; by default the one or the other.
    """

    act: Callable[[World, Any], Awaitable[object]]
    before: Content
    after: Content
    prepare: Callable[[World], Awaitable[Any]] | None = None
    killed: tuple[Content, ...] = ()


async def create(w: World, flags: int = 0, content: bytes = NEW, name: str = "a") -> int:
    handle, _, _ = await w.fs.create(ROOT, name, 0o644, os.O_RDWR | flags, ME)
    await w.fs.write(handle, 0, content)
    return handle


async def close(w: World, handle: int) -> None:
    await w.fs.flush(handle)
    await w.fs.release(handle)


async def open_a(w: World, flags: int = 0) -> int:
    handle, _ = await w.fs.open((await w.fs.lookup(ROOT, "a")).number, os.O_RDWR | flags)
    return handle


async def change_in_place(w: World) -> int:
    handle = await open_a(w)
    await w.fs.write(handle, 0, NEW)
    return handle


async def replace(w: World) -> int:
    handle = await open_a(w, os.O_TRUNC)
    await w.fs.write(handle, 0, NEW)
    return handle


async def create_exclusively(w: World, _: object) -> None:
    await close(w, await create(w, os.O_EXCL))


async def create_a_large_file(w: World) -> int:
    handle = await create(w, content=LARGE)
    await trio.testing.wait_all_tasks_blocked(0.01)
    return handle


async def rename(w: World, _: object) -> None:
    await w.fs.rename(ROOT, "a", ROOT, "b", 0)


async def write_and_rename(w: World, _: object) -> None:
    await write_file(w.fs, ROOT, "a", NEW)
    await w.fs.rename(ROOT, "a", ROOT, "b", 0)


async def move(w: World, _: object) -> None:
    await w.fs.rename(ROOT, "d", ROOT, "e", 0)


async def unlink(w: World, _: object) -> None:
    await w.fs.unlink(ROOT, "a")


async def unlink_and_close(w: World, handle: int) -> None:
    await w.fs.unlink(ROOT, "a")
    await w.fs.release(handle)


async def make_anew(w: World, handle: int) -> None:
    """Over the object that an open handle still reads."""
    await w.fs.unlink(ROOT, "a")
    await write_file(w.fs, ROOT, "a", NEW)
    await w.fs.release(handle)


async def back_fill(w: World, _: object) -> None:
    assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == OLD
    await w.parts.replicator.write_gathered()
    await carry_out_all_wishes(w)


TREE = {f"d/{number}": b"%d" % number for number in range(3)} | {"d/sub/x": b"x"}
LARGE = bytes(range(256)) * 8

OPERATIONS = {
    # What was closed goes home, whenever it was killed (W4).
    "close of a new file": Operation(close, {}, {"a": NEW}, create, ({"a": NEW},)),
    "close of a file to be replaced": Operation(close, {"a": OLD}, {"a": NEW}, replace, ({"a": NEW},)),
    "close of a file changed in place": Operation(close, {"a": OLD}, {"a": NEW}, change_in_place, ({"a": NEW},)),
    "close of a large file": Operation(close, {}, {"a": LARGE}, create_a_large_file, ({"a": LARGE},)),
    "O_EXCL, write and close": Operation(create_exclusively, {}, {"a": NEW}, killed=({}, {"a": b""}, {"a": NEW})),
    "rename": Operation(rename, {"a": OLD}, {"b": OLD}),
    "rename over a file": Operation(rename, {"a": OLD, "b": OTHER}, {"b": OLD}),
    "write and rename": Operation(
        write_and_rename, {"b": OTHER}, {"b": NEW}, killed=({"a": NEW, "b": OTHER}, {"b": NEW})
    ),
    "rename of a directory": Operation(move, TREE, {f"e{key[1:]}": content for key, content in TREE.items()}),
    "unlink": Operation(unlink, {"a": OLD}, {}),
    "unlink of an open file": Operation(unlink_and_close, {"a": OLD}, {}, open_a),
    "unlink and create": Operation(make_anew, {"a": OLD}, {"a": NEW}, open_a, ({"a": OLD}, {}, {"a": NEW})),
    "back-fill": Operation(back_fill, {"a": OLD}, {"a": OLD}),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])
async def test_W1_W2_W4_W7_W8_killed_at_each_step(tmp_path, monkeypatch, objects, name):
    monkeypatch.setattr(streams, "FIRST_AT", 1024)
    monkeypatch.setattr(streams, "PART_SIZE", 512)
    operation = OPERATIONS[name]
    steps = await live_and_die(tmp_path, monkeypatch, objects, operation, None)
    assert any("journal" in step for step in steps), steps
    for end in range(len(steps)):
        await live_and_die(tmp_path, monkeypatch, objects, operation, end)


async def live_and_die(
    root: Path, monkeypatch: pytest.MonkeyPatch, objects: bool, operation: Operation, end: int | None
) -> list[str]:
    """The steps until then; `end` None: a whole life."""
    root = root / str(end)
    root.mkdir()
    life = Life()
    acknowledged = False
    with mortal(life, monkeypatch):
        async with world(root, objects=objects, metadata_ttl=60) as w:
            manager = w.parts.manager
            for key, held in operation.before.items():
                manager.primary.put(key, held)
                if operation.act is not back_fill:
                    bring_up_to_date(manager, "near", key)
            make_mortal(manager, life)
            prepared = await operation.prepare(w) if operation.prepare else None
            life.end, life.is_counting = -1 if end is None else end, True
            await operation.act(w, prepared)
            acknowledged, life.is_counting = not life.is_over, False
    assert acknowledged == (end is None), life.steps
    if objects:  # on `file` there are few halves: it is long, and shows nothing else
        kills = itertools.count()
        while recovery_is_killed(root, monkeypatch, next(kills)):
            pass
    async with world(root, objects=objects, metadata_ttl=0) as w:
        recover(w.parts.manager, w.parts.journal, w.parts.area.directory.parent)
        await check(w, operation, acknowledged=acknowledged, steps=life.steps)
    return life.steps


def recovery_is_killed(root: Path, monkeypatch: pytest.MonkeyPatch, end: int) -> bool:
    """At its step `end`, if it has so many."""
    life = Life()
    life.end, life.is_counting = end, True
    with mortal(life, monkeypatch):
        manager = open_store(make_config(root, objects=True), "data")
        make_mortal(manager, life)
        assert manager.journal is not None
        try:
            recover(manager, manager.journal, staging_directories(manager.journal.path))
        finally:
            manager.close()
    return life.is_over


def make_mortal(manager: ReplicaManager, life: Life) -> None:
    for source in (manager.primary_source, *manager.replicas):
        object.__setattr__(source, "provider", Mortal(source.provider, life))


async def check(w: World, operation: Operation, *, acknowledged: bool, steps: list[str]) -> None:
    manager, journal = w.parts.manager, w.parts.journal
    held = contents(manager.primary)
    killed = operation.killed or (operation.before, operation.after)
    assert held in ((operation.after,) if acknowledged else killed), steps
    assert (journal.uploads(), journal.parts()) == ([], []), steps
    assert (journal.renames(), journal.moves(), journal.deletes()) == ([], [], []), steps
    assert [path for path in w.parts.area.directory.parent.iterdir() if path != w.parts.area.directory] == []
    for key, content in held.items():
        assert await read_file(w.fs, (await walk(w.fs, key)).number) == content, steps
    await w.parts.replicator.write_gathered()
    await carry_out_all_wishes(w)
    for replica in manager.replicas if acknowledged else manager.replicas[:1]:
        copies = contents(replica.provider)
        # A read of an empty file waits for no store, so that what nobody acknowledged may not be there yet.
        wanted = {key: held[key] for key in held if acknowledged or held[key]}
        assert {key: copies.get(key) for key in wanted} == wanted, (replica.profile, steps)
        assert all(journal.is_deleted(replica.profile, key) for key in copies.keys() - held.keys()), steps


def contents(store: StorageProvider) -> Content:
    return {entry.key: store.get(entry.key).read_all() for entry in store.list() if not entry.is_directory}


async def carry_out_all_wishes(w: World) -> None:
    w.parts.journal.release_dead_claims()
    while claims := w.parts.journal.claim(99, even_if_not_due=True):
        for claim in claims:
            bring_up_to_date(w.parts.manager, claim.replica, claim.key, delete=claim.kind == "delete")
            w.parts.journal.finish(claim)
