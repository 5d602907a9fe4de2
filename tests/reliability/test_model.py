"""Random histories of two mounts, the stores behind them, faults and kills, compared with the contract (R1 to R8, W1 to
W8).

Two hosts (`host`) mount one primary with two replicas; somebody else changes the stores. What a mount shows must be
what the primary held within `metadata_ttl`; a handle reads one version; what close() acknowledged is on the primary;
a conflict is told and overwrites nothing; a killed mount loses nothing and finishes or undoes what was under way.

The long form: python -m tests.reliability.model --steps 100000
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import mscfs.journal.process
import mscfs.providers.memory
from mscfs.errors import NotFoundError, StoreTimeoutError, StoreUnavailableError
from mscfs.types import Version
from mscfs.vfs import streams
from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from tests.reliability.host import Host, KilledError, Loop, Stores
from tests.reliability.reference import Held, Node, Primary, View
from tests.replicas.stores import content
from tests.replicas.test_model import Ticking
from tests.vfs.test_names import ME, names

NAMES = ["a", "b"]
WHOLE = 1 << 20
GONE = {errno.ESTALE, errno.ENOENT}
"""What an answer may be when another version, or none, is there."""
TROUBLE = {errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EHOSTDOWN, errno.ENODEV, errno.EHOSTUNREACH}

names_of_files = st.sampled_from(NAMES)
hosts = st.sampled_from([0, 0, 1])
sizes = st.sampled_from([0, 1, 5, 12, 20, 40, 70_000])
soon = st.one_of(st.none(), st.none(), st.integers(0, 12))
"""At which of the next steps a host is killed."""


FIGURES: Counter[str] = Counter()
"""What was done and what went wrong on purpose, in all histories of this process."""


class Mounts(RuleBasedStateMachine):
    """See the module. `ttl` of the first host varies; the second asks at every open."""

    @initialize(ttl=st.sampled_from([0, 60]), tells_hashes=st.booleans(), cached=st.booleans())
    def begin(self, *, ttl: int, tells_hashes: bool, cached: bool) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="mscfs-model-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(mscfs.providers.memory, "time", Ticking())
        self.patch.setattr(streams, "PART_SIZE", 8)
        self.patch.setattr(streams, "FIRST_AT", 16)
        self.patch.setattr(mscfs.journal.process, "_own_token", None)
        self.patch.setattr(mscfs.journal.process, "_token", None)
        self.loop = Loop()
        self.stores = Stores(tells_hashes=tells_hashes)
        self.primary = Primary({name: [(float("-inf"), None)] for name in NAMES})
        self.now = 0.0
        self.number = 0
        self.is_down = False
        self.troubled: set[str] = set()
        """The stores that fail now."""
        self.foreign: set[str] = set()
        """Names of which a replica held what the primary never did: with the primary down nobody can tell."""
        self.cached = cached
        self.unwished: set[str] = set()
        """Names that one replica may lack without a wish: a killed host had read and cached them before the wish was in
        its journal, or see `changed_elsewhere`."""
        self.views = [View(ttl), View(0)]
        self.hosts = [
            Host(self.loop, self.stores, self.directory / str(at), cached=cached, metadata_ttl=view.ttl)
            for at, view in enumerate(self.views)
        ]
        self.versions: dict[str, Version | None] = dict.fromkeys(NAMES)
        """What the primary held before the last call."""
        self.handles: list[tuple[int, int, Node, bool]] = []
        """Host, number, node, whether it may write."""
        for host in self.hosts:
            host.start()

    def teardown(self) -> None:
        if not hasattr(self, "hosts"):
            return
        try:
            self.all_is_well_again()
            self.settle()
        finally:
            for host in self.hosts:
                host.kill()
            self.loop.stop()
            self.patch.undo()
            shutil.rmtree(self.directory)

    # -- what the model says --------------------------------------------------------------------------------------

    def fresh(self, size: int) -> bytes:
        self.number += 1
        return f"{self.number:05}".encode() * (size // 5 + 1)

    def believable(self, at: int, name: str) -> list[Held | None]:
        return self.views[at].believable(self.primary, name, self.now, unbounded=self.is_down)

    def is_sure(self, node: Node) -> bool:
        """Whether the primary holds what the node is pinned to, beyond doubt, and can be asked."""
        held = self.primary.at_present(node.key)
        return not self.is_down and node.candidates == [held]

    def version(self, name: str) -> Version | None:
        try:
            return self.stores.primary.inner.head(name).version
        except NotFoundError:
            return None

    def written(self, at: int, name: str, data: bytes | None) -> Held | None:
        held = self.primary.change(name, data, self.now)
        self.versions[name] = self.version(name)
        self.unwished.discard(name)
        self.views[at].changed(self.primary, name)
        return held

    # -- how hosts are asked --------------------------------------------------------------------------------------

    def ask(self, at: int, function: Callable[..., Any], *arguments: Any, die_at: int | None = None) -> Any:
        name = function.__name__
        FIGURES["operations"] += 1
        try:
            answer = self.hosts[at].call(function, *arguments, die_at=die_at)
        except KilledError:
            FIGURES[f"killed in {name}"] += 1
            raise
        except OSError as error:
            FIGURES[f"{name}: {errno.errorcode.get(error.errno or 0, error.errno)}"] += 1
            raise
        FIGURES[name] += 1
        return answer

    def fails_rightly(self, error: OSError, *, may_be_gone: bool) -> None:
        """An error is believed: a conflict where there may be one, trouble where there is some."""
        if error.errno in GONE and may_be_gone:
            return
        # A version that the primary has no more may be on the store that is in trouble.
        assert self.is_down or (may_be_gone and self.troubled), f"{error!r} although all is well"
        assert error.errno in TROUBLE | (GONE if may_be_gone else set()), repr(error)

    def look_up(self, at: int, name: str):
        """Attributes; None: there is no such file, or nobody can tell; checked."""
        try:
            return self.found_or_error(at, name)
        except OSError:
            return None

    def found_or_error(self, at: int, name: str):
        """Attributes, or None: there is no such file; checked. OSError: nobody can tell."""
        believable = self.believable(at, name)
        local = self.views[at].local(name)
        try:
            found = self.ask(at, self.hosts[at].fs.lookup, ROOT, name)
        except FileNotFoundError:
            assert local is None
            assert None in believable
            return None
        except OSError as error:
            self.fails_rightly(error, may_be_gone=False)
            raise
        if local is not None:
            assert found.number == local.number
        else:
            is_odd = self.is_down and name in self.foreign
            sizes = {len(held.data) for held in believable if held is not None}
            assert is_odd or found.size in sizes, f"host {at} shows {name} with {found.size} bytes, not {believable}"
        return found

    # -- files ----------------------------------------------------------------------------------------------------

    @rule(at=hosts, name=names_of_files, mode=st.sampled_from([os.O_RDONLY, os.O_RDONLY, os.O_RDWR, os.O_TRUNC]))
    def open(self, at: int, name: str, mode: int) -> None:
        flags = mode if mode != os.O_TRUNC else os.O_WRONLY | os.O_TRUNC
        for _ in range(3):
            found = self.look_up(at, name)
            if found is None:
                if flags != os.O_RDONLY:
                    self.create(at, name, False, None)
                return
            believable = [held for held in self.believable(at, name) if held is not None]
            try:
                handle, _ = self.ask(at, self.hosts[at].fs.open, found.number, flags)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    continue  # the kernel looks the name up again
                self.fails_rightly(error, may_be_gone=False)
                return
            break
        else:
            raise AssertionError("open does not come to an end")
        view = self.views[at]
        node = view.nodes.get(found.number)
        if node is None and self.is_down and name in self.foreign:
            self.ask(at, self.hosts[at].fs.release, handle)  # what a replica alone knows is nobody's truth
            if flags & os.O_TRUNC:
                view.orphans.append((name, b"", list(believable)))
            return
        if node is None:
            node = view.nodes[found.number] = Node(name, found.number, list(believable))
        elif not node.is_dirty and not node.is_new:
            # The inode was kept, so it is of the version that it was of.
            assert any(held in believable for held in node.candidates)
        node.handles += 1
        self.handles.append((at, handle, node, bool(flags & os.O_ACCMODE)))
        if flags & os.O_TRUNC:
            self.emptied(at, handle, node)

    @rule(at=hosts, name=names_of_files, exclusive=st.booleans(), die_at=soon)
    def create(self, at: int, name: str, exclusive: bool, die_at: int | None) -> None:
        try:
            if self.found_or_error(at, name) is not None:
                return
        except OSError:
            return  # the kernel goes no further
        view = self.views[at]
        flags = os.O_RDWR | (os.O_EXCL if exclusive else 0)
        doomed = view.hidden.get(name, [])
        try:
            handle, _, found = self.ask(at, self.hosts[at].fs.create, ROOT, name, 0o644, flags, ME, die_at=die_at)
        except KilledError:
            self.restart(at, {name: [b""]} if exclusive else {})
            return
        except FileExistsError:
            assert exclusive
            assert self.primary.at_present(name) is not None
            return
        except OSError as error:
            self.fails_rightly(error, may_be_gone=False)
            return
        node = Node(name, found.number, [None], handles=1, staged=b"", is_dirty=True, replaces=True, bases=[None])
        if exclusive:
            assert self.primary.at_present(name) in [None, *doomed]
            held = self.written(at, name, b"")
            node.replaces, node.bases, node.candidates = False, [held], [held]
            view.hidden.pop(name, None)
        else:
            self.vacated(at, name)
            assert found.number not in view.nodes
        view.nodes[found.number] = node
        self.handles.append((at, handle, node, True))

    def some_handle(self, data: st.DataObject, *, writable: bool = False) -> tuple[int, int, Node, bool] | None:
        suitable = [handle for handle in self.handles if handle[3] or not writable]
        if not suitable:
            at, name = data.draw(hosts), data.draw(names_of_files)
            self.open(at, name, os.O_RDWR)
            suitable = self.handles[-1:]
        return data.draw(st.sampled_from(suitable)) if suitable else None

    @rule(data=st.data(), offset=st.integers(0, 45), size=st.sampled_from([1, 8, 70_000]))
    def read(self, data: st.DataObject, offset: int, size: int) -> None:
        chosen = self.some_handle(data)
        if chosen is not None:
            self.check_read(*chosen[:3], offset, size)

    def check_read(self, at: int, handle: int, node: Node, offset: int, size: int) -> None:
        """R1: of one version; that of the open, or what was written here since."""
        try:
            read = bytes(self.ask(at, self.hosts[at].fs.read, handle, offset, size))
        except OSError as error:
            assert node.staged is None
            self.fails_rightly(error, may_be_gone=not self.is_sure(node))
            return
        if node.staged is not None:
            assert read == node.staged[offset : offset + size]
            return
        left = node.matching(read, offset, size)
        assert left, f"{read[:20]!r} at {offset} is of no version that was opened"
        node.candidates = left

    @rule(data=st.data(), offset=st.one_of(st.none(), st.integers(0, 45)), size=st.sampled_from([1, 5, 12, 40, 70_000]))
    def write(self, data: st.DataObject, offset: int | None, size: int) -> None:
        chosen = self.some_handle(data, writable=True)
        if chosen is None:
            return
        at, handle, node, _ = chosen
        fresh = self.fresh(size)
        if offset is None:
            offset = len(node.staged) if node.staged is not None else 0
        try:
            self.ask(at, self.hosts[at].fs.write, handle, offset, fresh)
        except OSError as error:
            assert node.staged is None
            self.fails_rightly(error, may_be_gone=not self.is_sure(node))
            return
        self.changed(
            at,
            handle,
            node,
            lambda before: before[:offset].ljust(offset, b"\0") + fresh + before[offset + len(fresh) :],
        )

    def changed(self, at: int, handle: int, node: Node, change: Callable[[bytes], bytes]) -> None:
        """A file was written to: what is staged now is a change of one version."""
        staged = bytes(self.ask(at, self.hosts[at].fs.read, handle, 0, WHOLE))
        if node.staged is None:
            fits = [held for held in node.candidates if change(held.data if held else b"") == staged]
            assert fits, "what was written is on top of no version that was opened"
            node.bases, node.candidates = fits, fits
        else:
            assert change(node.staged) == staged
        node.staged, node.is_dirty = staged, True
        node.is_detached = self.hosts[at].fs.handles.file(handle).inode.detached

    def emptied(self, at: int, handle: int, node: Node) -> None:
        if node.staged is None:
            node.bases = node.candidates
        node.staged, node.is_dirty, node.replaces = b"", True, True
        node.is_detached = self.hosts[at].fs.handles.file(handle).inode.detached

    @rule(data=st.data(), size=sizes)
    def ftruncate(self, data: st.DataObject, size: int) -> None:
        chosen = self.some_handle(data, writable=True)
        if chosen is None:
            return
        at, handle, node, _ = chosen

        async def ftruncate() -> None:
            await self.hosts[at].fs.set_attributes(node.number, Change(size=size), by_handle=True)

        try:
            self.ask(at, ftruncate)
        except OSError as error:
            assert node.staged is None
            self.fails_rightly(error, may_be_gone=not self.is_sure(node))
            return
        if size == 0:
            self.emptied(at, handle, node)
        else:
            self.changed(at, handle, node, lambda before: before[:size].ljust(size, b"\0"))

    # -- closing --------------------------------------------------------------------------------------------------

    def may_upload(self, node: Node) -> bool:
        return node.replaces or self.primary.at_present(node.key) in node.bases

    def may_conflict(self, node: Node) -> bool:
        present = self.primary.at_present(node.key)
        return not node.replaces and any(base != present for base in node.bases)

    def uploaded(self, at: int, node: Node) -> None:
        assert node.staged is not None
        held = self.written(at, node.key, node.staged)
        node.bases, node.candidates, node.replaces, node.is_dirty = [held], [held], False, False
        self.views[at].hidden.pop(node.key, None)

    @rule(data=st.data(), die_at=soon)
    def flush(self, data: st.DataObject, die_at: int | None) -> None:
        """W1, W5: on the primary, or the reason why not."""
        chosen = self.some_handle(data)
        if chosen is None:
            return
        at, handle, node, _ = chosen
        is_due = node.is_dirty and not node.is_unlinked
        try:
            self.ask(at, self.hosts[at].fs.flush, handle, die_at=die_at)
        except KilledError:
            self.restart(at, {node.key: [node.staged or b""]} if is_due and self.may_upload(node) else {})
            return
        except OSError as error:
            assert is_due
            self.fails_rightly(error, may_be_gone=self.may_conflict(node))
            return
        if is_due:
            assert self.may_upload(node), "something newer was overwritten"
            self.uploaded(at, node)

    @rule(data=st.data(), die_at=soon)
    def close(self, data: st.DataObject, die_at: int | None) -> None:
        chosen = self.some_handle(data)
        if chosen is not None:
            self.close_handle(chosen, die_at)

    def close_handle(self, chosen: tuple[int, int, Node, bool], die_at: int | None = None) -> None:
        """release(): the kernel has flushed before; that may have failed."""
        at, handle, node, _ = chosen
        view = self.views[at]
        is_last = node.handles == 1
        is_due = is_last and node.is_dirty and not node.is_unlinked
        doomed = [held for held in view.hidden.get(node.key, []) if is_last and node.is_unlinked]
        doomed = [held for held in doomed if held in node.candidates]
        try:
            self.ask(at, self.hosts[at].fs.release, handle, die_at=die_at)
        except KilledError:
            self.restart(at, {node.key: [node.staged or b""]} if is_due and self.may_upload(node) else {})
            return
        except OSError as error:
            assert doomed
            self.fails_rightly(error, may_be_gone=False)
            doomed = []
        self.handles.remove(chosen)
        node.handles -= 1
        # With more than one base thinkable the primary tells which it was.
        is_certain = not self.may_conflict(node) or self.version(node.key) != self.versions[node.key]
        if is_due and is_certain and not self.is_down and self.may_upload(node):
            self.uploaded(at, node)
        if doomed:
            self.vacated(at, node.key)
        if is_last:
            if is_due and node.is_dirty and node.staged is not None:
                view.orphans.append((node.key, node.staged, node.bases))
            del view.nodes[node.number]

    # -- names ----------------------------------------------------------------------------------------------------

    @rule(at=hosts, name=names_of_files)
    def stat(self, at: int, name: str) -> None:
        self.look_up(at, name)

    @rule(at=hosts)
    def list_names(self, at: int) -> None:
        believable = {name: self.believable(at, name) for name in NAMES}
        try:
            listed = self.ask(at, names, self.hosts[at].fs)
        except OSError as error:
            self.fails_rightly(error, may_be_gone=False)
            return
        assert len(listed) == len(set(listed))
        for name in NAMES:
            if self.views[at].local(name) is not None:
                assert name in listed
            elif name in listed:
                is_odd = self.is_down and name in self.foreign
                assert is_odd or any(held is not None for held in believable[name]), f"{name} is listed"
            else:
                assert None in believable[name], f"{name} is not listed"
        assert set(listed) <= set(NAMES)

    def node_of(self, at: int, number: int) -> Node | None:
        return self.views[at].nodes.get(number)

    @rule(at=hosts, name=names_of_files, die_at=soon)
    def unlink(self, at: int, name: str, die_at: int | None) -> None:
        """W8: the name is gone at once; open handles keep reading."""
        found = self.look_up(at, name)
        if found is None:
            return
        view, node = self.views[at], self.node_of(at, found.number)
        is_new = node is not None and node.is_new
        try:
            self.ask(at, self.hosts[at].fs.unlink, ROOT, name, die_at=die_at)
        except KilledError:
            self.restart(at, {} if is_new else {name: [None]})
            return
        except OSError as error:
            self.fails_rightly(error, may_be_gone=node is None and found.number not in view.nodes)
            return
        if node is not None:
            node.is_unlinked = True
        if is_new:
            return
        if node is not None and node.staged is None:
            view.hidden.setdefault(name, []).extend(held for held in node.candidates if held is not None)
            return
        self.written(at, name, None)

    def vacated(self, at: int, name: str) -> None:
        """An object that was unlinked while it was open has gone: its name is taken anew, or its last handle closed."""
        doomed = self.views[at].hidden.pop(name, [])
        # With more than one version thinkable the primary tells whether it was the one.
        if self.primary.at_present(name) in doomed and (len(doomed) == 1 or content(self.stores.primary, name) is None):
            self.written(at, name, None)

    @rule(at=hosts, source=names_of_files, die_at=soon)
    def rename(self, at: int, source: str, die_at: int | None) -> None:
        """W7: at once, or not at all."""
        target = NAMES[1 - NAMES.index(source)]
        self.look_up(at, target)  # it may list the directory, and tell of the source what was not known
        found = self.look_up(at, source)
        if found is None:
            return
        there = self.look_up(at, target)
        node = self.node_of(at, found.number)
        believable = node.candidates if node is not None else self.believable(at, source)
        replaced = self.node_of(at, there.number) if there is not None else None
        is_new = node is not None and node.is_new
        # What the primary has under the new name may not come again: a new file takes its place at once.
        takes_a_place = there is not None and (replaced is None or not replaced.is_new)
        is_new = is_new and not takes_a_place
        is_due = node is not None and node.is_dirty and not is_new
        fits = self.may_upload(node) if node is not None and is_due else True
        conflicts = node is not None and is_due and self.may_conflict(node)
        try:
            self.ask(at, self.hosts[at].fs.rename, ROOT, source, ROOT, target, 0, die_at=die_at)
        except KilledError:
            if is_new or not fits:
                self.restart(at, {})
                return
            held = self.primary.at_present(source)
            data = node.staged if node is not None and is_due else held.data if held is not None else None
            before = self.primary.at_present(target)
            self.restart(
                at, {source: [None, *([data] if is_due else [])], target: [data, before.data if before else None]}
            )
            return
        except OSError as error:
            if is_due and not conflicts and not self.is_down:
                raise
            unsure = conflicts or any(held != self.primary.at_present(source) for held in believable)
            self.fails_rightly(error, may_be_gone=unsure)
            return
        if node is not None and is_due:
            assert fits
            self.uploaded(at, node)
        if replaced is not None:
            replaced.is_unlinked = True
        if is_new:
            self.vacated(at, target)
        self.views[at].hidden.pop(target, None)
        if not is_new:
            moved = self.primary.at_present(source)
            assert moved is not None
            assert moved in believable or is_due
            held = self.written(at, target, moved.data)
            self.written(at, source, None)
            if node is not None:
                node.candidates = [held]
                node.bases = [held]
        if node is not None:
            node.key = target

    # -- elsewhere ------------------------------------------------------------------------------------------------

    @rule(name=names_of_files, size=sizes)
    def somebody_else_writes(self, name: str, size: int) -> None:
        held = self.changed_elsewhere(name, self.fresh(size))
        assert held is not None
        self.stores.primary.inner.put(name, held.data)

    @rule(name=names_of_files)
    def somebody_else_deletes(self, name: str) -> None:
        if self.primary.at_present(name) is not None:
            self.changed_elsewhere(name, None)
            self.stores.primary.inner.delete(name)

    def changed_elsewhere(self, name: str, data: bytes | None) -> Held | None:
        """A copy that waits now brings the change to its replica; that one then serves all reads, so that no read finds
        the other replica stale (R6)."""
        waiting = {replica for host in self.hosts for replica in host.wished(name)}
        if len(waiting) == 1:
            self.unwished.add(name)
        return self.primary.change(name, data, self.now)

    @rule(store=st.sampled_from(["near", "far"]), name=names_of_files, garbage=st.booleans())
    def somebody_else_spoils_a_replica(self, store: str, name: str, garbage: bool) -> None:
        replica = getattr(self.stores, store).inner
        self.foreign.add(name)
        if garbage:
            replica.put(name, b"g" * 777)
        else:
            replica.delete(name)

    @rule(at=hosts, limit=st.integers(1, 5))
    def wishes_are_carried_out(self, at: int, limit: int) -> None:
        self.hosts[at].work(limit)

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.loop.pass_time(seconds)
        self.now += seconds

    # -- faults ---------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(["data", "near", "far", "near"]), silent=st.booleans())
    def a_store_goes_down(self, name: str, silent: bool) -> None:
        store = next(store for store in self.stores.everyone() if store.profile == name)
        store.recover()
        error = StoreTimeoutError("silent", store=name) if silent else StoreUnavailableError("refused", store=name)
        store.go_down(error)
        FIGURES[f"{name} went down"] += 1
        self.troubled.add(name)
        self.is_down = self.is_down or name == "data"

    @precondition(lambda self: not self.is_down)
    @rule(name=st.sampled_from(["near", "far"]), at=st.integers(0, 40), truncates=st.booleans())
    def a_replica_breaks_off(self, name: str, at: int, truncates: bool) -> None:
        store = next(store for store in self.stores.everyone() if store.profile == name)
        FIGURES[f"{name} breaks off"] += 1
        self.troubled.add(name)
        if truncates:
            store.truncated_at = at
        else:
            store.on("get", StoreUnavailableError("reset", store=name), at=at)

    @rule()
    def all_is_well_again(self) -> None:
        for store in self.stores.everyone():
            store.recover()
        if self.is_down:
            self.time_passes(200)
        self.is_down = False
        self.troubled.clear()

    @rule(at=hosts)
    def kill(self, at: int) -> None:
        FIGURES["killed at rest"] += 1
        self.hosts[at].kill()
        self.restart(at, {})

    def restart(self, at: int, alternatives: dict[str, list[bytes | None]]) -> None:
        """After a kill: mount again. The primary must hold what it held, or what was under way (W4)."""
        if self.is_down:
            self.all_is_well_again()
        view = self.views[at]
        if self.cached:
            self.unwished.update(NAMES)
        self.handles = [handle for handle in self.handles if handle[0] != at]
        hidden = view.hidden
        kept = self.kept(at)
        self.hosts[at].start()
        for name in NAMES:
            before = self.primary.at_present(name)
            allowed = [before.data if before is not None else None, *alternatives.get(name, [])]
            if before in hidden.get(name, []):
                # Of several thinkable versions only the one that was open there goes.
                allowed = [None] if len(hidden[name]) == 1 else [*allowed, None]
            allowed += [data for key, data, bases in kept if key == name and before in bases]
            found = content(self.stores.primary, name)
            assert found in allowed, f"{name} holds {found!r} after a kill, not one of {allowed!r}"
            if self.version(name) != self.versions[name]:  # it may be of the same bytes
                self.primary.change(name, found, self.now)
                self.versions[name] = self.version(name)
        self.views[at] = View(view.ttl)
        self.views[at].starts(self.primary)

    def kept(self, at: int) -> list[tuple[str, bytes, list[Held | None]]]:
        """What the host has staged and may upload at its next mount, and what each was made from."""
        return self.views[at].orphans + [
            (node.key, node.staged, node.bases)
            for node in self.views[at].nodes.values()
            if node.is_dirty and node.staged is not None and not node.is_unlinked
        ]

    # -- always ---------------------------------------------------------------------------------------------------

    @invariant()
    def the_primary_is_what_the_model_says(self) -> None:
        """W1, W3, W5, W8."""
        FIGURES["steps"] += 1
        if hasattr(self, "hosts"):
            found = {name: content(self.stores.primary, name) for name in NAMES}
            expected = {name: self.primary.at_present(name) for name in NAMES}
            assert found == {name: held.data if held is not None else None for name, held in expected.items()}
            self.versions = {name: self.version(name) for name in NAMES}

    def settle(self) -> None:
        """In the end everything is closed, read and carried out: all stores hold what the primary holds (W2, R6)."""
        while self.handles:
            self.close_handle(self.handles[-1])
        self.time_passes(200)
        for at in (0, 1):
            for name in NAMES:
                self.open(at, name, os.O_RDONLY)
        for at, handle, node, writable in list(self.handles):
            assert self.is_sure(node)
            self.check_read(at, handle, node, 0, WHOLE)
            self.close_handle((at, handle, node, writable))
        for host in self.hosts:
            while host.work(100):
                pass
        for name in NAMES:
            held = self.primary.at_present(name)
            if held is None or name in self.foreign | self.unwished:
                continue  # what was taken from one replica is found missing only when it is read from
            for store in (self.stores.near, self.stores.far):
                assert content(store, name) == held.data, f"{store.profile} lacks {name}"


TestMounts = pytest.mark.slow(pytest.mark.timeout(600)(Mounts.TestCase))
TestMounts.settings = settings(
    max_examples=50, stateful_step_count=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
