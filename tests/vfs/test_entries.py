"""The columns of listed names: numbers, lookup counts, inodes made of slots and put back, compared with a model."""

from __future__ import annotations

import stat
import tracemalloc
from types import SimpleNamespace

import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mscfs.providers.page import DIRECTORY, FILE, MAYBE_LINK, SYMLINK, Detail, Entry, PageBuilder, to_entry
from mscfs.types import ObjectMetadata, from_ns
from mscfs.vfs.entries import BLOCK, Entries
from mscfs.vfs.inodes import InodeTable
from mscfs.vfs.listings import Listing
from mscfs.vfs.namespace import Namespace
from mscfs.vfs.recorder import Recorder


def page(*entries: Entry):
    builder = PageBuilder()
    for entry in entries:
        builder.add(entry)
    return builder.build()


def file(name: str, size: int = 1, tag: str = "t", kind: int = FILE, detail: Detail | None = None) -> Entry:
    return Entry(name.encode(), kind, size, 10**18, tag.encode(), detail)


@pytest.fixture
def table():
    return InodeTable()


@pytest.fixture
def entries(table):
    return table.entries_of(table.root)


def listed(entries: Entries) -> list[str]:
    return [entries.names[slot].decode() for slot in entries.sequence if not entries.states[slot] & 4]


def test_a_page_of_new_names_is_taken_at_once(entries):
    assert entries.append(page(file("a", 5), file("d", 0, "", DIRECTORY)))
    slot = entries.find(b"a")
    assert entries.read(slot) == file("a", 5)
    assert entries.find(b"x") == -1
    assert entries.live == 2
    assert listed(entries) == ["a", "d"]
    assert not entries.append(page(file("a"), file("b")))
    assert not entries.append(page(file("x"), file("x")))


def test_a_number_tells_its_slot_across_blocks(table, entries):
    for first in range(0, 3 * BLOCK, 1000):
        entries.append(page(*(file(f"{number:05}", number) for number in range(first, first + 1000))))
    numbers = [entries.number(slot) for slot in range(len(entries.names))]
    assert len(set(numbers)) == len(numbers)
    for slot, number in enumerate(numbers):
        assert table.place(number) == (entries, slot)
    with pytest.raises(OSError, match="not known"):
        table.place(numbers[-1] + 1)


def test_the_same_names_are_renewed_at_once(entries):
    entries.append(page(file("a", 1), file("b", 1), file("c", 1)))
    entries.cached[:] = b"\1\1\1"
    entries.begin(5.0)
    assert entries.renew(page(file("b", 2, "u"), file("c", 1)))
    assert (entries.sizes[1], entries.tags[1]) == (2, b"u")
    assert bytes(entries.cached) == b"\1\0\1"  # another version: the kernel's pages are not of it
    assert list(entries.unseen()) == [0]
    assert entries.moment(1) == 5.0
    assert not entries.renew(page(file("b", 2, "u"))), "it was told of already"
    assert not entries.renew(page(file("x")))


def test_what_a_failed_listing_told_is_not_believed_after_the_next_began(entries):
    entries.append(page(file("a"), file("b")))
    entries.begin(1.0)
    entries.renew(page(file("a")))  # and then it failed
    entries.begin(2.0)
    assert entries.moment(entries.find(b"a")) == 1.0
    entries.begin(3.0)
    assert entries.moment(entries.find(b"a")) == float("-inf")


def test_what_is_known_of_an_unchanged_version_is_kept(entries):
    entries.append(page(file("link", 0, "e", MAYBE_LINK)))
    entries.put(0, file("link", 0, "e", SYMLINK, Detail(metadata={}, symlink_target=b"target")))
    assert entries.size(0) == len("target")
    entries.begin(1.0)
    again = file("link", 0, "e", MAYBE_LINK)
    assert entries.fits(0, again)
    entries.write(0, again)
    assert entries.kinds[0] == SYMLINK
    assert not entries.fits(0, file("link", 0, "other", MAYBE_LINK))
    assert not entries.fits(0, file("link", 7, "f"))


def test_a_slot_is_used_again_only_when_nothing_refers_to_it(table, entries):
    entries.append(page(file("a"), file("b")))
    entries.refer(0)
    table.lose(table.root, "a")
    table.lose(table.root, "b")
    entries.begin(1.0)
    assert entries.add(file("c")) == 1
    assert entries.add(file("d")) == 2
    assert table.place(entries.number(0)) == (entries, 0)
    table.forget(entries.number(0), 1)
    with pytest.raises(OSError, match="not known"):
        table.place(entries.number(0))
    entries.begin(2.0)
    assert entries.add(file("e")) == 0


def test_a_slot_does_not_come_twice_in_one_listing(table, entries):
    entries.append(page(file("a")))
    table.lose(table.root, "a")
    entries.add(file("b"))
    assert listed(entries) == ["b"]


def come_and_go(table, entries, times: int) -> None:
    for number in range(times):
        slot = entries.add(file(f"temporary-{number}"))
        entries.refer(slot)
        table.lose(table.root, f"temporary-{number}")
        table.forget(entries.number(slot), 1)


def test_L4_names_that_come_and_go_take_no_more_room_each_time(table, entries):
    """Checkpoints that are written under a temporary name and renamed, in a directory that nobody lists again."""
    entries.begin(1.0)
    entries.append(page(file("a"), file("b")))
    table.root.listing = Listing(table.root, entries.sequence, 1.0, 0)
    read_half = table.root.listing
    come_and_go(table, entries, 10_000)
    assert len(entries.names) < 2000
    assert len(entries.sequence) < 2000
    entries.add(file("c"))
    assert listed(entries) == ["a", "b", "c"]
    assert table.root.listing.sequence is entries.sequence, "who opens the directory now reads what is there now"
    assert list(read_half.sequence[:2]) == [0, 1], "who reads it already goes on where he was"
    assert len(set(read_half.sequence)) == len(read_half.sequence)


def test_L4_a_sequence_that_a_listing_extends_is_left_to_it(table, entries):
    entries.begin(1.0)
    listing = table.root.coming = Listing(table.root, entries.sequence, 1.0, 0)
    come_and_go(table, entries, 3000)
    assert entries.sequence is listing.sequence
    table.root.coming = None
    come_and_go(table, entries, 1)
    assert len(entries.sequence) <= 1


def test_L4_that_an_object_has_no_metadata_is_kept_once():
    found = [ObjectMetadata(name, 1, from_ns(0), metadata={}) for name in "ab"]
    first, second = (to_entry(one, one.key.encode(), links=False) for one in found)
    assert first.detail is second.detail is not None


def test_an_inode_has_the_number_and_the_references_of_its_slot(table, entries):
    entries.append(page(file("a", 3)))
    entries.refer(0, 2)
    inode = table[entries.number(0)]
    assert (inode.number, inode.lookups, inode.size, inode.name) == (entries.number(0), 2, 3, "a")
    assert table[entries.number(0)] is inode
    with inode.used():
        table.drop_if_idle(inode)
        assert table.get(inode.number) is inode
    table.drop_if_idle(inode)
    assert table.get(inode.number) is None
    assert entries.lookups[0] == 2
    table.forget(entries.number(0), 2)
    assert entries.references == 0


def test_an_inode_that_knows_more_than_the_columns_stays(table, entries):
    entries.append(page(file("a")))
    entries.refer(0)
    inode = table[entries.number(0)]
    inode.overrides.mode = 0o600
    table.drop_if_idle(inode)
    assert table.get(inode.number) is inode
    table.forget(inode.number, 1)
    assert table.get(inode.number) is None


def test_an_inode_that_lost_its_name_keeps_its_number_to_itself(table, entries):
    entries.append(page(file("a")))
    entries.refer(0)
    inode = table[entries.number(0)]
    inode.handles.add(object())
    table.detach(inode)
    entries.begin(1.0)
    assert table.add(table.root, "a", stat.S_IFREG).number != inode.number
    inode.handles.clear()
    table.forget(inode.number, 1)
    assert table.get(inode.number) is None


def test_the_kernels_page_cache_is_remembered_in_the_columns(table, entries):
    entries.append(page(file("a")))
    entries.refer(0)
    inode = table[entries.number(0)]
    inode.cached_version = inode.metadata.version.token
    table.drop_if_idle(inode)
    assert table[entries.number(0)].cached_version == inode.cached_version


def test_a_directory_that_the_kernel_forgot_is_given_back(table):
    directory = table.add(table.root, "d", stat.S_IFDIR)
    entries = table.entries_of(directory)
    entries.append(page(*(file(str(number)) for number in range(2000))))
    numbers = [entries.number(slot) for slot in range(2000)]
    for slot in range(2000):
        entries.refer(slot)
    table.drop_if_idle(directory)
    assert table.get(directory.number) is directory
    for number in numbers:
        table.forget(number, 1)
    assert table.get(directory.number) is None
    with pytest.raises(OSError, match="not known"):
        table.place(numbers[0])


@pytest.mark.slow
def test_a_million_listed_names_fit_in_400_megabytes(table, entries):
    count = 200_000
    tracemalloc.start()
    try:
        for first in range(0, count, 1000):
            entries.append(
                page(
                    *(
                        file(f"validation-image-{number:08}.jpg", number, f"{number:032x}")
                        for number in range(first, first + 1000)
                    )
                )
            )
            for slot in range(first, first + 1000):
                entries.refer(slot)
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / count <= 400


NAMES = st.sampled_from("abcdef")
VERSIONS = st.integers(0, 3)
KINDS = st.sampled_from(["file", "directory"])


class Model(RuleBasedStateMachine):
    """A directory under random listings, lookups, opens, changes and forgetting."""

    @initialize()
    def begin(self) -> None:
        self.now, self.store = 0.0, {}
        self.table = InodeTable()
        self.namespace = Namespace(
            self.table,
            SimpleNamespace(is_down=False),
            Recorder(None, None, clock=lambda: self.now),
            None,
            None,
            asking_is_cheap=False,
            ttl=1000,
            clock=lambda: self.now,
            suspect=lambda _: None,
            on_outdated=lambda *_: None,
        )
        self.root = self.table.root
        self.held: dict[int, int] = {}
        """The kernel's references by number."""
        self.kernel: dict[str, int] = {}
        """The number that the kernel last had for a name."""
        self.opened: list = []
        self.list_everything({}, 2)

    def metadata(self, name: str, kind: str, version: int) -> ObjectMetadata:
        key = name + "/" if kind == "directory" else name
        size = 0 if kind == "directory" else version
        return ObjectMetadata(key, size, from_ns(10**18), tag=f"{version}", type=kind)

    @rule(
        store=st.dictionaries(NAMES, st.tuples(st.sampled_from(["file", "directory"]), VERSIONS)), cut=st.integers(1, 3)
    )
    def list_everything(self, store, cut) -> None:
        self.now += 1
        for name, known in self.store.items():
            opened = self.kernel.get(name) in self.opened_numbers()
            if name not in store or store[name][0] != known[0] or (opened and store[name] != known):
                self.kernel.pop(name, None)  # it may get another number
        self.store = store
        entries = self.table.entries_of(self.root)
        entries.begin(self.now)
        listing = Listing(self.root, entries.sequence, self.now, self.namespace._serial)
        rows = [
            file(name, version if kind == "file" else 0, str(version), FILE if kind == "file" else DIRECTORY)
            for name, (kind, version) in sorted(store.items())
        ]
        for first in range(0, len(rows), cut):
            self.namespace.take(listing, page(*rows[first : first + cut]))
        trio.run(self.namespace.complete, listing)
        listing.is_complete = True
        self.namespace.ended(listing)
        self.check_names()

    def check_names(self) -> None:
        entries = self.table.entries_of(self.root)
        seen = [entries.names[slot].decode() for slot in entries.sequence if not entries.states[slot] & 4]
        seen += [inode.name for inode in self.namespace.loose(self.root)]
        assert sorted(seen) == sorted(self.store)

    async def _find(self, name: str):
        return await self.namespace.find(self.root, name)

    @rule(name=NAMES)
    def look_up(self, name) -> None:
        try:
            found = trio.run(self._find, name)
        except FileNotFoundError:
            assert name not in self.store
            return
        kind, version = self.store[name]
        if isinstance(found, tuple):
            entries, slot = found
            entries.refer(slot)
            number, size = entries.number(slot), entries.size(slot)
            assert (entries.kinds[slot] == DIRECTORY) == (kind == "directory")
        else:
            found.lookups += 1
            number, size = found.number, found.size
            assert found.is_directory == (kind == "directory")
        assert size == (0 if kind == "directory" else version)
        old = self.kernel.get(name)
        if old in self.held:
            assert number == old
        self.kernel[name] = number
        self.held[number] = self.held.get(number, 0) + 1

    def opened_numbers(self) -> set[int]:
        return {inode.number for inode, _ in self.opened}

    @rule(data=st.data())
    def forget(self, data) -> None:
        if self.held:
            number = data.draw(st.sampled_from(sorted(self.held)))
            count = data.draw(st.integers(1, self.held[number]))
            self.table.forget(number, count)
            self.held[number] -= count
            if not self.held[number]:
                del self.held[number]

    @rule(data=st.data())
    def open_one(self, data) -> None:
        if self.held:
            inode = self.table[data.draw(st.sampled_from(sorted(self.held)))]
            handle = object()
            inode.handles.add(handle)
            self.opened.append((inode, handle))

    @rule()
    def close_one(self) -> None:
        if self.opened:
            inode, handle = self.opened.pop(0)
            assert self.table.get(inode.number) is inode
            inode.handles.discard(handle)
            self.table.drop_if_idle(inode)

    @rule(name=NAMES, version=VERSIONS)
    def write(self, name, version) -> None:
        if self.store.get(name, ("file",))[0] == "directory":
            return
        self.now += 1
        inode = self.table.child(self.root, name) or self.table.add(self.root, name, stat.S_IFREG)
        self.store[name] = ("file", version)
        self.namespace.changed(inode, self.metadata(name, "file", version))
        self.table.drop_if_idle(inode)
        self.check_names()

    @rule(name=NAMES)
    def remove(self, name) -> None:
        inode = self.table.child(self.root, name)
        if inode is None:
            assert name not in self.store
            return
        del self.store[name]
        self.kernel.pop(name, None)
        self.namespace.removed(self.root, name)
        self.table.detach(inode)
        self.check_names()

    @invariant()
    def numbers_mean_what_the_kernel_holds(self) -> None:
        if not hasattr(self, "table"):
            return
        for number, count in self.held.items():
            inode = self.table.get(number)
            lookups = inode.lookups if inode is not None else None
            if lookups is None:
                entries, slot = self.table.place(number)
                lookups = entries.lookups[slot]
            assert lookups == count
        entries = self.root.entries
        if entries is not None:
            assert entries.live == len(entries._index[0])
            places = [number for number in self.table._inodes if self.table._place(number)]
            assert entries.references == sum(map(bool, entries.lookups)) + len(places)

    def teardown(self) -> None:
        if not hasattr(self, "table"):
            return
        while self.opened:
            self.close_one()
        for number, count in self.held.items():
            self.table.forget(number, count)
        self.held.clear()
        self.list_everything({}, 2)
        assert len(self.table) == 1
        assert self.root.entries.references == 0


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
