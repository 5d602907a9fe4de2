"""The primary's last words on disk: R8."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import msgspec
import pytest

from mscfs.errors import StorageError
from mscfs.providers.page import FILE, Detail, Entry, Page, PageBuilder
from mscfs.vfs.lastknown import LastKnown, Told, seal, unseal


def entry(name: str, tag: str = "t", detail: Detail | None = None) -> Entry:
    return Entry(name.encode(), FILE, 7, 10**18, tag.encode(), detail)


def page(*entries: Entry) -> Page:
    builder = PageBuilder()
    for one in entries:
        builder.add(one)
    return builder.build()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "names.db"


@pytest.fixture
def known(path: Path) -> LastKnown:
    return LastKnown(path)


def test_R8_a_listing_and_what_was_told_since(known: LastKnown, path: Path) -> None:
    pages = [page(entry("a"), entry("b", detail=Detail(mode=0o640, symlink_target=b"\xff"))), page(entry("c"))]
    known.replace("d/", 100.0, pages)
    known.record([Told("d/", b"a", 101.0, None), Told("d/", b"n\xff", 102.0, entry("n", "new"))])
    for reader in (known, LastKnown(path)):
        found = reader.read("d/")
        assert found is not None
        assert list(found.pages) == pages
        assert found.names == {b"a": None, b"n\xff": entry("n", "new")}
        assert found.is_whole
        assert reader.read_name("d/", b"a") == (None,)
        assert reader.read_name("d/", b"b") is None
        assert reader.read("e/") is None
        assert reader.directories() == {"d/": True}
    assert path.stat().st_mode & 0o777 == 0o600


def test_R8_the_younger_word_counts(known: LastKnown) -> None:
    known.record([Told("", b"a", 100.0, entry("a", "late"))])
    known.record([Told("", b"a", 99.0, None)])
    assert known.read_name("", b"a") == (entry("a", "late"),)
    assert known.directories() == {"": False}
    known.record([Told("", b"during", 120.0, entry("during")), Told("", b"before", 105.0, None)])
    known.replace("", 110.0, [page(entry("a", "later"))])
    found = known.read("")
    assert found is not None
    assert found.names == {b"during": entry("during")}


def test_R8_a_shorter_listing_leaves_no_pages_of_the_longer(known: LastKnown) -> None:
    known.replace("", 1.0, [page(entry("a")), page(entry("b"))])
    known.replace("", 2.0, [page(entry("c"))])
    found = known.read("")
    assert found is not None
    assert [one.names for one in found.pages] == [[b"c"]]
    known.replace("", 3.0, [])
    found = known.read("")
    assert found is not None
    assert (list(found.pages), found.is_whole) == ([], True)


def names_of(known: LastKnown, directory: str = "") -> list[bytes]:
    found = known.read(directory)
    assert found is not None
    return [name for one in found.pages for name in one.names] if found.is_whole else [b"(not whole)"]


def test_R8_a_listing_that_is_written_while_it_is_under_way(known: LastKnown, path: Path) -> None:
    pages = [page(entry(name)) for name in "abcde"]
    known.replace("", 1.0, [page(entry(name)) for name in "axyzefg"])
    known.keep("", 7, 0, pages[:2])
    known.keep("", 8, 0, [page(entry("of a listing that is given up"))])
    known.keep("", 7, 2, pages[2:3])
    assert names_of(known) == [b"a", b"x", b"y", b"z", b"e", b"f", b"g"], "it counts when it is complete"
    known.drop(8)
    assert known.replace("", 2.0, pages[3:], listing=7, position=3)
    assert names_of(known) == names_of(LastKnown(path)) == [b"a", b"b", b"c", b"d", b"e"]
    assert set(rowids(path)) == set(range(5)), "and nothing else is left"


@pytest.mark.parametrize("how", ["moved", "made anew", "discarded"])
def test_R8_a_listing_with_holes_is_none(known: LastKnown, how: str) -> None:
    pages = [page(entry(name)) for name in "abc"]
    known.replace("d/", 1.0, pages)
    known.keep("d/", 1, 0, pages[:2])  # the same as before, so that nothing is written
    if how == "moved":
        known.forget_below("d/")
    elif how == "made anew":
        known.replace("d/", 2.0, [])
    else:
        known.discard()
    assert not known.replace("d/", 3.0, pages[2:], listing=1, position=2)
    assert known.directories() == {"d/": False}
    assert names_of(known, "d/") == [b"(not whole)"]
    assert known.replace("d/", 4.0, pages)
    assert names_of(known, "d/") == [b"a", b"b", b"c"]


def test_R8_listings_that_a_kill_left_under_way_are_thrown_away(known: LastKnown, path: Path) -> None:
    known.keep("", 1, 0, [page(entry("a"), entry("b"))])
    known.close()
    assert rowids(path)
    again = LastKnown(path)
    assert again.directories() == {}
    assert not rowids(path)
    assert again.replace("", 1.0, [page(entry("c"))], listing=1)
    assert names_of(again) == [b"c"]


def test_R8_a_directory_that_was_moved_takes_nothing_of_its_predecessor(known: LastKnown) -> None:
    for key in ("d/", "d/e/", "dd/", ""):
        known.replace(key, 1.0, [page(entry("a"))])
        known.record([Told(key, b"b", 2.0, entry("b"))])
    known.forget_below("d/")
    assert known.directories() == {"dd/": True, "": True}
    known.replace("d/", 3.0, [])
    found = known.read("d/")
    assert found is not None
    assert (list(found.pages), found.names) == ([], {})


def test_a_directory_that_was_removed_is_forgotten_alone(known: LastKnown, path: Path) -> None:
    for key in ("d/", "d/e/", "d2/"):
        known.replace(key, 1.0, [page(entry("a"))])
        known.record([Told(key, b"b", 2.0, entry("b"))])
    known.forget(["d/", "never known/"])
    assert known.directories() == {"d/e/": True, "d2/": True}
    known.close()
    with sqlite3.connect(path) as connection:
        for table in ("pages", "names"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (2,)


def test_L4_empty_directories_take_room_too(path: Path) -> None:
    known = LastKnown(path, limit=20_000)
    for number in range(300):
        known.replace(f"{number}/", float(number), [])
    left = [int(key.removesuffix("/")) for key in known.directories()]
    assert 50 < len(left) <= 100
    assert sorted(left) == list(range(300 - len(left), 300))


def test_R8_pages_that_did_not_change_are_not_written_again(known: LastKnown, path: Path) -> None:
    pages = [page(*(entry(f"{number}-{name}") for name in range(100))) for number in range(20)]
    known.replace("", 1.0, pages)
    known.close()
    before = rowids(path)
    pages[3] = page(entry("other"))
    known.replace("", 2.0, pages)
    known.close()
    assert {position for position, row in rowids(path).items() if row != before[position]} == {3}


def rowids(path: Path) -> dict[int, int]:
    with sqlite3.connect(path) as connection:
        return dict(connection.execute("SELECT position, rowid FROM pages"))


@pytest.mark.parametrize("what", ["listing", "name"])
def test_R8_damaged_content_is_not_used(known: LastKnown, path: Path, what: str) -> None:
    known.replace("", 1.0, [page(entry("a"))])
    known.record([Told("", b"b", 2.0, entry("b"))])
    known.close()
    table = "pages" if what == "listing" else "names"
    with sqlite3.connect(path) as connection:
        content = connection.execute(f"SELECT content FROM {table}").fetchone()[0]
        # Whole, and of something else: only the digest tells.
        other = seal(msgspec.msgpack.encode(page(entry("x"))))
        connection.execute(f"UPDATE {table} SET content = ?", (content[:16] + other[16:],))
    assert known.read("") is None
    assert known.read_name("", b"b") == (None if what == "name" else (entry("b"),))


def test_a_seal() -> None:
    assert unseal(seal(b"content")) == b"content"
    with pytest.raises(ValueError, match="digest"):
        unseal(seal(b"content")[:16] + seal(b"CONTENT")[16:])


@pytest.mark.parametrize("how", ["rubbish", "newer"])
def test_R8_a_file_that_cannot_be_used_is_discarded(known: LastKnown, path: Path, how: str) -> None:
    known.replace("", 1.0, [page(entry("a"))])
    known.close()
    if how == "rubbish":
        path.write_bytes(os.urandom(8192))
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="list of names"):
        known.directories()
    known.discard()
    assert known.directories() == {}
    known.replace("", 1.0, [page(entry("b"))])
    assert known.directories() == {"": True}


def test_R8_a_file_of_an_older_format_begins_anew(known: LastKnown, path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.executescript("CREATE TABLE names (something TEXT); PRAGMA user_version = 0;")
    assert known.directories() == {}
    known.record([Told("", b"a", 1.0, entry("a"))])


def test_L4_what_was_told_longest_ago_goes_first(path: Path) -> None:
    known = LastKnown(path, limit=20_000)
    for number in range(20):
        content = [entry(f"{number}-{name}", os.urandom(16).hex()) for name in range(50)]
        known.replace(f"{number}/", float(number), [page(*content)])
    left = [int(key.removesuffix("/")) for key in known.directories()]
    assert 3 < len(left) < 20
    assert sorted(left) == list(range(20 - len(left), 20))
    assert known.read("0/") is None
    known.record([Told("wide/", f"{number}".encode(), 100.0, entry(f"{number}")) for number in range(80)])
    kept = set(known.directories())
    assert "wide/" in kept
    assert len(kept) < 4
    for _ in range(3):
        known.record([Told("wide/", f"{number}".encode(), 100.0, entry(f"{number}")) for number in range(80)])
    assert set(known.directories()) == kept, "what is told again takes no more room"


def test_R8_a_name_costs_few_bytes(known: LastKnown, path: Path) -> None:
    names = 20_000
    pages = [
        page(*(entry(f"sample-{number:08}.jpg", os.urandom(16).hex()) for number in range(first, first + 1000)))
        for first in range(0, names, 1000)
    ]
    known.replace("", 1.0, pages)
    known.close()
    assert path.stat().st_size / names < 50
