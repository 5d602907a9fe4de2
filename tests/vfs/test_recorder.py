"""What is told of names on its way to the disk: R8, L4."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from mscfs.providers.page import Page
from mscfs.vfs import recorder as module
from mscfs.vfs.inodes import InodeTable
from mscfs.vfs.lastknown import LastKnown
from mscfs.vfs.listings import Listing
from mscfs.vfs.recorder import Recorder
from tests.vfs.inline import inline
from tests.vfs.test_lastknown import entry, names_of, page, rowids

pytestmark = pytest.mark.trio


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.db"


@pytest.fixture
def recorder(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    async def run_blocking(call: Any, *arguments: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return call(*arguments)

    monkeypatch.setattr(module, "BATCH", 3)
    made = Recorder(LastKnown(path), run_blocking, clock=lambda: 0.0)
    yield made
    made.close()


def listing(taken: float) -> Listing:
    directory = InodeTable().root
    return Listing(directory, array("I"), taken, 0)


def told(recorder: Recorder, coming: Listing, pages: list[Page]) -> None:
    for one in pages:
        recorder.page(coming, one)
        coming.pages += 1


def held(recorder: Recorder) -> int:
    """Pages that are in memory."""
    return sum(len(coming.pages) for coming in recorder._coming.values()) + sum(
        len(batch.coming.pages) for batch in recorder._listed
    )


def pages_of(names: str, tag: str = "t") -> list[Page]:
    return [page(entry(name, tag)) for name in names]


async def test_L4_a_listing_is_not_held_until_its_end(recorder: Recorder, path: Path) -> None:
    """A million names of which nothing changed took a hundred megabytes until the last had come."""
    for round_, tag in enumerate("tu"):
        coming = listing(float(round_))
        for number in range(40):
            told(recorder, coming, [page(entry(f"{number:02}", tag))])
            await recorder.write()
            assert held(recorder) < 3
        recorder.complete(coming)
        await recorder.write()
        assert names_of(recorder._last_known) == [f"{number:02}".encode() for number in range(40)]
        assert recorder.knows("")
    assert recorder._names == 0


async def test_R8_a_listing_that_is_given_up_leaves_the_last_one(recorder: Recorder, path: Path) -> None:
    first = listing(1.0)
    told(recorder, first, pages_of("abcd"))
    recorder.complete(first)
    for is_written in (True, False):
        given_up = listing(2.0)
        told(recorder, given_up, pages_of("ABCDE"))
        if is_written:
            await recorder.write()
        recorder.ended(given_up)
        await recorder.write()
    assert names_of(recorder._last_known) == [b"a", b"b", b"c", b"d"]
    assert set(rowids(path)) == {0, 1, 2, 3}
    assert recorder._names == 0


@pytest.mark.parametrize("is_written", [False, True])
async def test_R8_a_directory_that_is_moved_while_it_is_listed(
    recorder: Recorder, path: Path, is_written: bool
) -> None:
    coming = listing(1.0)
    told(recorder, coming, pages_of("abcd"))
    if is_written:
        await recorder.write()
    recorder.forget_below("")
    told(recorder, coming, pages_of("efgh"))
    await recorder.write()
    recorder.complete(coming)
    await recorder.write()
    # All of it or nothing, never a part.
    assert recorder.knows("") == is_written
    if is_written:
        assert names_of(recorder._last_known) == [name.encode() for name in "abcdefgh"]
    again = listing(2.0)
    told(recorder, again, pages_of("ijkl"))
    recorder.complete(again)
    await recorder.write()
    assert recorder.knows("")
    assert names_of(recorder._last_known) == [b"i", b"j", b"k", b"l"]
    assert set(rowids(path)) == {0, 1, 2, 3}
    assert recorder._names == 0


@pytest.mark.parametrize("is_written", [False, True])
async def test_L4_a_directory_that_is_removed_leaves_nothing(recorder: Recorder, path: Path, is_written: bool) -> None:
    for round_ in range(3):
        empty = listing(float(round_))
        empty.directory.name = f"temporary-{round_}/"
        recorder.emptied(empty)
        recorder.told(empty.directory.key, b"file", entry("file"), 1.0)
        if is_written:
            await recorder.write()
            assert recorder.knows(empty.directory.key)
        recorder.removed(empty.directory.key)
        recorder.told(empty.directory.key, b"file", None, 2.0)
        await recorder.write()
        assert not recorder._directories
        assert recorder._last_known is not None
        assert recorder._last_known.directories() == {}
    assert not rowids(path)


async def test_L4_a_disk_that_is_too_slow_for_a_listing_keeps_none_of_it(
    recorder: Recorder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 10)
    coming = listing(1.0)
    told(recorder, coming, pages_of("abcdefghijklmnop"))
    assert held(recorder) <= 10
    recorder.complete(coming)
    await recorder.write()
    assert not recorder.knows("")
    assert not rowids(path)
    assert recorder._names == 0


async def test_R8_what_is_told_after_the_clock_was_set_back_wins(
    recorder: Recorder, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for now, tag in ((2_000_000.0, "old"), (1_000_000.0, "new")):
        monkeypatch.setattr(module.time, "time", lambda now=now: now)
        mount = Recorder(LastKnown(path), inline, clock=lambda: 5.0)
        await mount.open()
        for name in "ab":
            mount.told("", name.encode(), entry(name, tag), 6.0)
        await mount.write()
        coming = listing(7.0)
        told(mount, coming, pages_of("c", tag))
        mount.complete(coming)
        await mount.write()
        mount.told("", b"b", None if tag == "new" else entry("b", tag), 8.0)
        await mount.write()
        mount.close()
    snapshot = LastKnown(path).read("")
    assert snapshot is not None
    assert [tag for page in snapshot.pages for tag in page.tags] == [b"new"]
    assert snapshot.names == {b"b": None}
