"""Random histories of a primary and two replicas, compared with a dictionary (R1, R4, R6, R8, W2, W8).

Writes through the manager and behind its back, copies that are interrupted or interleaved with changes, replicas that
fail and return, other tools that copy: a read must never see an old byte or a deleted object, and in the end all wishes
are carried out and the replicas equal.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import mscfs.providers.memory
from mscfs.errors import NotFoundError, StorageError, StoreTimeoutError, StoreUnavailableError, VersionMismatchError
from mscfs.types import ByteRange, Version
from tests.replicas.stores import Stores, content

KEYS = ["a", "b"]
SIZE = 8
keys = st.sampled_from(KEYS)
replicas = st.sampled_from(["one", "two"])
soon = st.integers(0, 14)
"""At which of the next steps of the stores something happens."""
changes = st.sampled_from(["put", "put", "put", "delete", "rename"])


class Killed(BaseException):
    pass


class Ticking:
    """In place of the module `time`: every look at the clock is a second and a bit later."""

    def __init__(self) -> None:
        self._now = 1_700_000_000 * 10**9

    def time_ns(self) -> int:
        self._now += 1_000_000_007
        return self._now


class Replication(RuleBasedStateMachine):
    @initialize(tells_hashes=st.booleans(), propagate_deletes=st.booleans(), reads_always=st.booleans())
    def begin(self, *, tells_hashes: bool, propagate_deletes: bool, reads_always: bool) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(mscfs.providers.memory, "time", Ticking())
        self.stores = Stores(self.directory, propagate_deletes=propagate_deletes, tells_hashes=tells_hashes, piece=3)
        self.reads_always = reads_always
        self.number = 0
        self.model: dict[str, bytes] = {}
        self.believable: dict[str, set[bytes | None]] = {key: {None} for key in KEYS}
        """What the primary held since the last change through the manager."""
        self.foreign: set[tuple[str, str]] = set()
        """Copies by other tools; copies whose primary object was changed behind the manager's back."""
        self.pinned: list[tuple[str, Version, bytes]] = []
        self.primary_down = False
        for key in KEYS:
            self.change_here(key, "put")
        self.work(10)

    def teardown(self) -> None:
        if hasattr(self, "stores"):
            try:
                self.converge()
            finally:
                self.stores.journal.close()
                self.patch.undo()
                shutil.rmtree(self.directory)

    # -- the primary ----------------------------------------------------------------------------------------------

    def fresh_content(self) -> bytes:
        self.number += 1
        return f"{self.number:0{SIZE}}".encode()

    def is_written_here(self, key: str, new: bytes | None) -> None:
        self.believable[key] = {new}
        self.foreign -= {("one", key), ("two", key)}

    def is_changed_elsewhere(self, key: str, new: bytes | None) -> None:
        self.believable[key].add(new)
        self.foreign |= {("one", key), ("two", key)}

    def change_here(self, key: str, change: str) -> None:
        manager = self.stores.manager
        if change == "rename" and key in self.model:
            other = KEYS[1 - KEYS.index(key)]
            self.model[other] = self.model.pop(key)
            manager.rename(key, other)
            self.is_written_here(other, self.model[other])
        elif change == "put":
            self.model[key] = self.fresh_content()
            manager.put(key, self.model[key])
        else:
            self.model.pop(key, None)
            manager.delete(key)
        self.is_written_here(key, self.model.get(key))

    def change_elsewhere(self, key: str, change: str) -> None:
        if change == "put":
            self.model[key] = self.fresh_content()
            self.stores.primary.inner.put(key, self.model[key])
        else:
            self.model.pop(key, None)
            self.stores.primary.inner.delete(key)
        self.is_changed_elsewhere(key, self.model.get(key))

    @precondition(lambda self: not self.primary_down)
    @rule(key=keys, change=changes, at_once=st.booleans())
    def somebody_here_changes_the_primary(self, key: str, change: str, *, at_once: bool) -> None:
        self.change_here(key, change)
        if at_once:
            self.work(10)

    @rule(key=keys, change=changes)
    def somebody_else_changes_the_primary(self, key: str, change: str) -> None:
        self.change_elsewhere(key, change)

    # -- the stores -----------------------------------------------------------------------------------------------

    @rule(
        name=st.sampled_from(["one", "one", "two", "two", "primary"]),
        trouble=st.sampled_from(["silent", "refusing", "breaking off", "truncating"]),
        at=st.integers(0, SIZE),
    )
    def trouble(self, name: str, trouble: str, at: int) -> None:
        store = self.stores.primary if name == "primary" else self.stores.replicas[name]
        if name == "primary":
            self.primary_down = True
        if trouble == "silent":
            store.go_down(StoreTimeoutError("silent", store=name))
        elif trouble == "refusing" or name == "primary":
            store.go_down(StoreUnavailableError("refused", store=name))
        elif trouble == "truncating":
            store.truncated_at = at
        else:
            store.on("get", StoreUnavailableError("reset", store=name), at=at)

    @rule(seconds=st.sampled_from([1, 61]))
    def all_is_well_again(self, seconds: int) -> None:
        for store in self.stores.everyone():
            store.recover()
        if self.primary_down:
            seconds = 61
        self.primary_down = False
        self.stores.clock.now += seconds

    @rule(name=replicas, key=keys, cleans_up=st.booleans())
    def another_tool(self, name: str, key: str, *, cleans_up: bool) -> None:
        replica = self.stores.replicas[name].inner
        if cleans_up:
            replica.delete(key)
        elif key in self.model:
            replica.put(key, self.model[key])
        self.foreign.add((name, key))

    # -- wishes ---------------------------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 4))
    def wishes_are_carried_out(self, limit: int) -> None:
        self.work(limit)

    @rule(at=soon)
    def a_copy_is_killed(self, at: int) -> None:
        def kill() -> None:
            raise Killed

        self.work(1, at=at, action=kill)

    @precondition(lambda self: not self.primary_down)
    @rule(at=soon, change=changes, here=st.booleans())
    def an_object_changes_while_it_is_copied(self, at: int, change: str, *, here: bool) -> None:
        for wish in self.stores.journal.claim(1, even_if_not_due=True):
            self.stores.journal.release(wish)
            change_it = self.change_here if here else self.change_elsewhere
            self.work(1, at=at, action=functools.partial(change_it, wish.key, change))

    def work(self, limit: int, *, at: int = 0, action: Callable[[], object] | None = None) -> None:
        journal, script = self.stores.journal, self.stores.script
        for wish in journal.claim(limit, even_if_not_due=True):
            if action is not None:
                script.actions = {len(script.steps) + at: action}
            try:
                self.stores.step(wish.replica, wish.key, delete=wish.kind == "delete")
            except StorageError as error:
                journal.postpone(wish, str(error))
            except Killed:
                journal.release(wish)
            else:
                journal.finish(wish)
            finally:
                script.actions = {}

    # -- reads ----------------------------------------------------------------------------------------------------

    @rule(offset=st.integers(0, SIZE), size=st.integers(0, SIZE))
    def read(self, offset: int, size: int) -> None:
        for key in KEYS:
            for byte_range in (None, ByteRange(offset, size)):
                part = slice(None) if byte_range is None else slice(offset, offset + size)
                if self.primary_down:
                    self.read_without_primary(key, byte_range, part)
                elif key in self.model:
                    assert self.stores.read(key, byte_range) == self.model[key][part]
                else:
                    with pytest.raises(NotFoundError):
                        self.stores.read(key, byte_range)

    def read_without_primary(self, key: str, byte_range: ByteRange | None, part: slice) -> None:
        try:
            read = self.stores.read(key, byte_range)
        except StorageError:
            return
        if not self.is_foreign(key):
            assert read in {held and held[part] for held in self.believable[key]}

    def is_foreign(self, key: str) -> bool:
        return any((name, key) in self.foreign for name in self.stores.replicas)

    @precondition(lambda self: not self.primary_down)
    @rule(key=keys)
    def open(self, key: str) -> None:
        if key in self.model:
            described = self.stores.manager.head(key)
            assert described.content_length == SIZE
            self.pinned.append((key, described.version, self.model[key]))

    @rule(offset=st.integers(0, SIZE - 1), size=st.integers(1, SIZE - 1))
    def read_what_was_opened(self, offset: int, size: int) -> None:
        for key, version, held in self.pinned[-4:]:
            try:
                read = self.stores.read(key, ByteRange(offset, size), version)
            except (NotFoundError, VersionMismatchError, StoreUnavailableError):
                assert self.model.get(key) != held or self.primary_down, "the primary has it"
                continue
            # Judged by its age alone, another tool's copy may be newer than the handle, and nobody can tell.
            unsure = self.primary_down and not self.stores.tells_hashes and self.is_foreign(key)
            assert unsure or read == held[offset : offset + size]

    @precondition(lambda self: not self.primary_down)
    @rule()
    def names(self) -> None:
        assert {entry.key for entry in self.stores.manager.list()} == set(self.model)

    # -- always ---------------------------------------------------------------------------------------------------

    @invariant()
    def reads_are_right(self) -> None:
        if hasattr(self, "stores") and self.reads_always:
            self.read(2, 5)

    @invariant()
    def the_primary_is_what_the_model_says(self) -> None:
        if hasattr(self, "stores"):
            assert {key: content(self.stores.primary, key) for key in KEYS} == {
                key: self.model.get(key) for key in KEYS
            }

    def converge(self) -> None:
        """W2: when all stores are well again, every wish is carried out and the replicas equal the primary."""
        for store in self.stores.everyone():
            store.recover()
        self.stores.clock.now += 1000
        for _ in range(5):
            self.work(100)
        assert self.stores.journal.pending() == 0
        for name, store in self.stores.replicas.items():
            for key in KEYS:
                if (name, key) in self.foreign:
                    continue
                if key in self.model:
                    assert content(store, key) == self.model[key]
                elif self.stores.propagate_deletes:
                    assert content(store, key) is None
        for key in KEYS:
            for name, store in self.stores.replicas.items():
                self.stores.step(name, key)
                if key in self.model:
                    assert content(store, key) == self.model[key]


TestReplication = Replication.TestCase
TestReplication.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
