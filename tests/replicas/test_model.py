"""Random histories of a primary and two replicas, compared with a dictionary (R1, R4, R6, R8, W2, W8).

Writes through the manager and behind its back, copies that are interrupted or interleaved with changes, replicas that
fail and return, other tools that copy: a read must never see an old byte or a deleted object, and in the end all wishes
are carried out and the replicas equal.
"""

from __future__ import annotations

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
    @initialize(tells_hashes=st.booleans(), propagate_deletes=st.booleans())
    def begin(self, *, tells_hashes: bool, propagate_deletes: bool) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(mscfs.providers.memory, "time", Ticking())
        self.stores = Stores(self.directory, propagate_deletes=propagate_deletes, tells_hashes=tells_hashes, piece=3)
        self.number = 0
        self.model: dict[str, bytes] = {}
        self.believable: dict[str, set[bytes | None]] = {key: {None} for key in KEYS}
        """What the primary held since the last change through the manager."""
        self.foreign: set[tuple[str, str]] = set()
        """Copies by other tools; copies whose primary object was changed behind the manager's back."""
        self.pinned: list[tuple[str, Version, bytes]] = []
        self.primary_down = False

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

    @precondition(lambda self: not self.primary_down)
    @rule(key=keys)
    def put(self, key: str) -> None:
        self.model[key] = self.fresh_content()
        self.stores.manager.put(key, self.model[key])
        self.is_written_here(key, self.model[key])

    @precondition(lambda self: not self.primary_down)
    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.model.pop(key, None)
        self.stores.manager.delete(key)
        self.is_written_here(key, None)

    @precondition(lambda self: not self.primary_down)
    @rule(source=keys, destination=keys)
    def rename(self, source: str, destination: str) -> None:
        if source == destination or source not in self.model:
            return
        self.model[destination] = self.model.pop(source)
        self.stores.manager.rename(source, destination)
        self.is_written_here(source, None)
        self.is_written_here(destination, self.model[destination])

    def put_elsewhere(self, key: str) -> None:
        self.model[key] = self.fresh_content()
        self.stores.primary.inner.put(key, self.model[key])
        self.is_changed_elsewhere(key, self.model[key])

    def delete_elsewhere(self, key: str) -> None:
        self.model.pop(key, None)
        self.stores.primary.inner.delete(key)
        self.is_changed_elsewhere(key, None)

    @rule(key=keys, deletes=st.booleans())
    def somebody_else_changes_the_primary(self, key: str, *, deletes: bool) -> None:
        (self.delete_elsewhere if deletes else self.put_elsewhere)(key)

    @precondition(lambda self: not self.primary_down)
    @rule(silent=st.booleans())
    def the_primary_goes_down(self, *, silent: bool) -> None:
        self.primary_down = True
        kind = StoreTimeoutError if silent else StoreUnavailableError
        self.stores.primary.go_down(kind("down", store="primary"))

    @precondition(lambda self: self.primary_down)
    @rule()
    def the_primary_returns(self) -> None:
        self.primary_down = False
        self.stores.primary.recover()
        self.stores.clock.now += 61

    # -- the replicas ---------------------------------------------------------------------------------------------

    @rule(name=replicas, silent=st.booleans())
    def a_replica_goes_down(self, name: str, *, silent: bool) -> None:
        kind = StoreTimeoutError if silent else StoreUnavailableError
        self.stores.replicas[name].go_down(kind("down", store=name))

    @rule(name=replicas, at=st.integers(0, SIZE), truncates=st.booleans())
    def a_replica_breaks_off(self, name: str, at: int, *, truncates: bool) -> None:
        store = self.stores.replicas[name]
        if truncates:
            store.truncated_at = at
        else:
            store.on("get", StoreUnavailableError("reset", store=name), at=at)

    @rule(name=replicas)
    def a_replica_returns(self, name: str) -> None:
        self.stores.replicas[name].recover()

    @rule(seconds=st.integers(1, 100))
    def time_passes(self, seconds: int) -> None:
        self.stores.clock.now += seconds

    @rule(name=replicas, key=keys)
    def another_tool_copies(self, name: str, key: str) -> None:
        if key in self.model:
            self.stores.replicas[name].inner.put(key, self.model[key])
            self.foreign.add((name, key))

    @rule(name=replicas, key=keys)
    def another_tool_cleans_up(self, name: str, key: str) -> None:
        self.stores.replicas[name].inner.delete(key)
        self.foreign.add((name, key))

    # -- wishes ---------------------------------------------------------------------------------------------------

    @rule(limit=st.integers(1, 3), even_if_not_due=st.booleans())
    def wishes_are_carried_out(self, limit: int, *, even_if_not_due: bool) -> None:
        self.work(limit, even_if_not_due=even_if_not_due)

    @rule(at=soon)
    def a_copy_is_killed(self, at: int) -> None:
        def kill() -> None:
            raise Killed

        self.work(1, even_if_not_due=True, at=at, action=kill)

    @precondition(lambda self: not self.primary_down)
    @rule(at=soon, deletes=st.booleans(), here=st.booleans())
    def an_object_changes_while_it_is_copied(self, at: int, *, deletes: bool, here: bool) -> None:
        wish = self.stores.journal.claim(1, even_if_not_due=True)
        if not wish:
            return
        self.stores.journal.release(wish[0])
        key = wish[0].key

        def change() -> None:
            if here:
                (self.delete if deletes else self.put)(key)
            else:
                (self.delete_elsewhere if deletes else self.put_elsewhere)(key)

        self.work(1, even_if_not_due=True, at=at, action=change)

    def work(
        self, limit: int, *, even_if_not_due: bool, at: int = 0, action: Callable[[], object] | None = None
    ) -> None:
        journal, script = self.stores.journal, self.stores.script
        for wish in journal.claim(limit, even_if_not_due=even_if_not_due):
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

    @precondition(lambda self: not self.primary_down)
    @rule(key=keys, offset=st.integers(0, SIZE), size=st.integers(0, SIZE), whole=st.booleans())
    def read(self, key: str, offset: int, size: int, *, whole: bool) -> None:
        byte_range = None if whole else ByteRange(offset, size)
        if key not in self.model:
            with pytest.raises(NotFoundError):
                self.stores.read(key, byte_range)
            return
        expected = self.model[key] if whole else self.model[key][offset : offset + size]
        assert self.stores.read(key, byte_range) == expected

    @precondition(lambda self: not self.primary_down)
    @rule(key=keys)
    def open(self, key: str) -> None:
        if key in self.model:
            described = self.stores.manager.head(key)
            assert described.content_length == SIZE
            self.pinned.append((key, described.version, self.model[key]))

    @precondition(lambda self: self.pinned)
    @rule(data=st.data(), offset=st.integers(0, SIZE - 1), size=st.integers(1, SIZE - 1))
    def read_what_was_opened(self, data: st.DataObject, offset: int, size: int) -> None:
        key, version, held = data.draw(st.sampled_from(self.pinned))
        try:
            read = self.stores.read(key, ByteRange(offset, size), version)
        except (NotFoundError, VersionMismatchError, StoreUnavailableError):
            assert self.model.get(key) != held or self.primary_down, "the primary has it"
            return
        tools_copied = any((name, key) in self.foreign for name in self.stores.replicas)
        if not (tools_copied and self.primary_down and not self.stores.tells_hashes):
            assert read == held[offset : offset + size]

    @precondition(lambda self: self.primary_down)
    @rule(key=keys)
    def read_while_the_primary_is_down(self, key: str) -> None:
        try:
            read = self.stores.read(key)
        except StorageError:
            return
        if not any((name, key) in self.foreign for name in self.stores.replicas):
            assert read in self.believable[key]

    @precondition(lambda self: not self.primary_down)
    @rule()
    def names(self) -> None:
        assert {entry.key for entry in self.stores.manager.list()} == set(self.model)

    # -- always ---------------------------------------------------------------------------------------------------

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
            self.work(100, even_if_not_due=True)
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
