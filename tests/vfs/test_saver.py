"""`preserve_attributes` on object stores: what is kept, at which price, and what never gets lost to it (W9)."""

from __future__ import annotations

import os
import stat
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import trio

from mscfs.errors import StoreUnavailableError
from mscfs.types import ObjectMetadata
from mscfs.vfs import streams
from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from mscfs.vfs.kept import read_kept
from tests.vfs.inline import World, world
from tests.vfs.test_names import ME, names, read_directory, read_file, walk, write_file
from tests.vfs.test_remembered import forget_all

NS = 1_500_000_000_123_456_789
SOON = 5.0
"""Longer than what is set waits for."""


def keeping(path: Any, **options: Any) -> Any:
    return world(path, objects=True, preserve_attributes=True, **options)


class Requests:
    """Counts the requests to the primary."""

    def __init__(self, w: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: Counter[str] = Counter()
        for name in ("head", "head_marker", "put", "copy", "set_metadata", "make_directory", "start_upload"):
            self._count(w.parts.manager.primary, name, monkeypatch)

    def _count(self, primary: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(primary, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.made[name] += 1
            return real(*arguments, **named)

        monkeypatch.setattr(primary, name, counted)

    @property
    def writes(self) -> dict[str, int]:
        return {name: count for name, count in self.made.items() if not name.startswith("head")}


def on_primary(w: World, key: str) -> ObjectMetadata:
    primary = w.parts.manager.primary
    return primary.head_marker(key) if key.endswith("/") else primary.head(key)


def kept(w: World, key: str) -> tuple[int | None, int | None, int | None, int | None]:
    found = read_kept(on_primary(w, key).metadata, directory=key.endswith("/"))
    return found.mode, found.uid, found.gid, found.mtime_ns


def seen(found: Any) -> tuple[int, int, int, int]:
    return stat.S_IMODE(found.mode), found.uid, found.gid, found.mtime_ns


ODD = Change(mode=0o640, uid=7, gid=8, mtime_ns=NS)


async def test_W9_what_is_known_at_the_upload_goes_with_it(tmp_path, monkeypatch):
    async with keeping(tmp_path) as w:
        requests = Requests(w, monkeypatch)
        handle, _, made = await w.fs.create(ROOT, "a", 0o600, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"x")
        await w.fs.set_attributes(made.number, ODD)
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert requests.writes == {"put": 1}
        assert kept(w, "a") == (0o640, 7, 8, NS)
        assert on_primary(w, "a").metadata["mode"] == "0100640"


async def test_W9_the_time_of_the_last_write_is_kept_too(tmp_path):
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x", 0o600)
        found = await w.fs.lookup(ROOT, "a")
        assert kept(w, "a") == (0o600, ME.uid, ME.gid, found.mtime_ns)


async def test_W9_chmod_chown_and_utimens_after_the_close_are_one_change_of_metadata(
    tmp_path, monkeypatch, autojump_clock
):
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        requests = Requests(w, monkeypatch)
        number = (await w.fs.lookup(ROOT, "a")).number
        for change in (Change(uid=7, gid=8), Change(mode=0o640), Change(mtime_ns=NS)):
            await w.fs.set_attributes(number, change)
        assert requests.writes == {}
        assert seen(w.fs.attributes(number)) == (0o640, 7, 8, NS)
        await trio.sleep(SOON)
        assert requests.writes == {"set_metadata": 1}
        assert kept(w, "a") == (0o640, 7, 8, NS)
        assert seen(w.fs.attributes(number)) == (0o640, 7, 8, NS)
        await w.fs.set_attributes(number, Change(mode=0o640))
        await trio.sleep(SOON)
        assert requests.writes == {"set_metadata": 1}


async def test_W9_fsync_and_the_end_of_the_mount_do_not_wait(tmp_path):
    async with keeping(tmp_path) as w:
        for name in ("a", "b"):
            await write_file(w.fs, ROOT, name, b"x")
        a, b = [(await w.fs.lookup(ROOT, name)).number for name in ("a", "b")]
        await w.fs.set_attributes(a, ODD)
        await w.fs.set_attributes(b, ODD)
        handle, _ = await w.fs.open(a, os.O_RDONLY)
        await w.fs.fsync(handle)
        assert kept(w, "a") == (0o640, 7, 8, NS)
        assert kept(w, "b") != (0o640, 7, 8, NS)
        await w.fs.finish()
        assert kept(w, "b") == (0o640, 7, 8, NS)


async def test_W9_a_rename_takes_what_waits_along_in_its_copy(tmp_path, monkeypatch, autojump_clock):
    """rsync writes a temporary file, sets its attributes, and renames it."""
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, ".a.tmp", b"x")
        requests = Requests(w, monkeypatch)
        await w.fs.set_attributes((await w.fs.lookup(ROOT, ".a.tmp")).number, ODD)
        await w.fs.rename(ROOT, ".a.tmp", ROOT, "a", 0)
        await trio.sleep(SOON)
        assert requests.writes == {"copy": 1}
        assert kept(w, "a") == (0o640, 7, 8, NS)
        assert seen(await w.fs.lookup(ROOT, "a")) == (0o640, 7, 8, NS)


async def test_W9_a_write_takes_what_waits_along(tmp_path, monkeypatch, autojump_clock):
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        number = (await w.fs.lookup(ROOT, "a")).number
        await w.fs.set_attributes(number, Change(mode=0o640, uid=7, gid=8))
        requests = Requests(w, monkeypatch)
        handle, _ = await w.fs.open(number, os.O_WRONLY)
        await w.fs.write(handle, 0, b"y")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await trio.sleep(SOON)
        assert requests.writes == {"put": 1}
        assert kept(w, "a")[:3] == (0o640, 7, 8)
        assert w.parts.manager.primary.get("a").read_all() == b"y"


async def test_W9_what_is_set_while_the_file_is_sent_is_kept_afterwards(tmp_path, autojump_clock):
    async with keeping(tmp_path) as w:
        handle, _, made = await w.fs.create(ROOT, "a", 0o600, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"x")

        async def before(what: str, *_: object) -> None:
            if what == "upload":
                await w.fs.set_attributes(made.number, Change(mode=0o644))
                await trio.lowlevel.checkpoint()

        # The metadata are settled before the transport is called.
        w.transport.before = before
        await w.fs.flush(handle)
        assert stat.S_IMODE(w.fs.attributes(made.number).mode) == 0o644
        await trio.sleep(SOON)
        assert kept(w, "a")[0] == 0o644


async def test_W9_a_change_elsewhere_is_not_lost_to_attributes_set_here(tmp_path, autojump_clock):
    async with keeping(tmp_path, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        number = (await w.fs.lookup(ROOT, "a")).number
        await w.fs.set_attributes(number, ODD)
        w.parts.manager.primary.put("a", b"theirs", metadata={"mode": "0100444"})
        await trio.sleep(SOON)
        assert w.parts.manager.primary.get("a").read_all() == b"theirs"
        assert on_primary(w, "a").metadata == {"mode": "0100444"}


async def test_W9_metadata_of_other_programs_stay(tmp_path, autojump_clock):
    async with keeping(tmp_path) as w:
        w.parts.manager.primary.put("a", b"x", metadata={"owner": "me", "ctime": "5"})
        number = (await w.fs.lookup(ROOT, "a")).number
        await w.fs.set_attributes(number, Change(mode=0o640))
        await trio.sleep(SOON)
        assert on_primary(w, "a").metadata == {"owner": "me", "ctime": "5", "mode": "0100640"}
        handle, _ = await w.fs.open(number, os.O_WRONLY | os.O_TRUNC)
        await w.fs.write(handle, 0, b"new")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        found = on_primary(w, "a").metadata
        assert (found["owner"], found["ctime"], found["mode"]) == ("me", "5", "0100640")


async def test_W9_without_the_option_nothing_is_kept_or_believed(tmp_path, autojump_clock):
    async with world(tmp_path, objects=True) as w:
        w.parts.manager.primary.put("theirs", b"x", metadata={"mode": "0100600", "mtime": "5", "md5chksum": "abc"})
        found = await w.fs.lookup(ROOT, "theirs")
        assert stat.S_IMODE(found.mode) == 0o644
        await write_file(w.fs, ROOT, "a", b"x", 0o600)
        await w.fs.set_attributes((await w.fs.lookup(ROOT, "a")).number, ODD)
        await trio.sleep(SOON)
        assert on_primary(w, "a").metadata == {}
        # What other tools noted of the content is not true of other content.
        handle, _ = await w.fs.open(found.number, os.O_WRONLY)
        await w.fs.write(handle, 0, b"y")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert on_primary(w, "theirs").metadata == {"mode": "0100600"}


async def test_W9_attributes_of_others_are_seen_after_a_listing_that_does_not_tell_them(tmp_path, monkeypatch):
    async with keeping(tmp_path) as w:
        primary = w.parts.manager.primary
        for number in range(40):
            primary.put(f"{number:02}", b"x", metadata={"mode": "33152", "mtime": str(number)})
        primary.make_directory("dir/", metadata={"mode": "040700"})
        listings_without_metadata(primary, monkeypatch)
        assert len(await read_directory(w.fs)) == 41
        requests = Requests(w, monkeypatch)
        for number in range(40):
            found = await w.fs.lookup(ROOT, f"{number:02}")
            assert seen(found)[::3] == (0o600, number * 1_000_000_000)
            assert found.timeout > 0
        assert stat.S_IMODE((await w.fs.lookup(ROOT, "dir")).mode) == 0o700
        assert requests.made == {"head": 40, "head_marker": 1}
        assert len(w.parts.namespace.table) < 5  # the columns tell all of it
        for number in range(40):
            await w.fs.lookup(ROOT, f"{number:02}")
        assert requests.made == {"head": 40, "head_marker": 1}


async def test_W9_nobody_believes_what_was_only_listed(tmp_path, monkeypatch):
    async with keeping(tmp_path) as w:
        w.parts.manager.primary.put("a", b"x", metadata={"mode": "0100600"})
        listings_without_metadata(w.parts.manager.primary, monkeypatch)
        handle = w.fs.open_directory(ROOT)
        rows = await w.fs.read_directory(handle, 0)
        listed = w.fs.listed(rows.entries, rows.slots[0])
        assert listed.timeout == 0
        assert stat.S_IMODE((await w.fs.told_attributes(listed.number)).mode) == 0o600


@pytest.mark.parametrize("is_closed", [False, True])
async def test_W9_R2_new_metadata_are_seen_although_the_version_is_the_same(
    tmp_path, monkeypatch, autojump_clock, is_closed
):
    """As on S3, where the tag is a hash of the content."""
    async with keeping(tmp_path, metadata_ttl=60) as w:
        primary = w.parts.manager.primary
        listings_without_metadata(primary, monkeypatch)
        tags_are_hashes(primary, monkeypatch)
        primary.put("a", b"x", metadata={"mode": "0100600"})
        primary.put("b", b"x", metadata={"mode": "0100600"})
        await names(w.fs)
        assert stat.S_IMODE((await w.fs.lookup(ROOT, "a")).mode) == 0o600
        handle, _ = await w.fs.open((await w.fs.lookup(ROOT, "b")).number, os.O_RDONLY)
        for name in ("a", "b"):
            primary.set_metadata(name, {"mode": "0100640"})
        await trio.sleep(61)
        await names(w.fs)
        if is_closed:
            await w.fs.release(handle)
            forget_all(w)
        for name in ("a", "b"):
            assert stat.S_IMODE((await w.fs.lookup(ROOT, name)).mode) == 0o640
        if not is_closed:
            await w.fs.release(handle)


async def test_W9_directories_keep_attributes_in_their_markers(tmp_path, monkeypatch, autojump_clock):
    async with keeping(tmp_path) as w:
        requests = Requests(w, monkeypatch)
        made = await w.fs.make_directory(ROOT, "d", 0o750, ME)
        assert requests.writes == {"make_directory": 1}
        assert kept(w, "d/") == (0o750, ME.uid, ME.gid, None)
        await w.fs.set_attributes(made.number, ODD)
        await trio.sleep(SOON)
        assert requests.writes == {"make_directory": 2}
        assert kept(w, "d/") == (0o640, 7, 8, NS)
        w.parts.manager.primary.put("prefix/a", b"x")
        prefix = await w.fs.lookup(ROOT, "prefix")
        assert stat.S_IMODE(prefix.mode) == 0o755
        await w.fs.set_attributes(prefix.number, Change(mode=0o700))
        await trio.sleep(SOON)
        assert kept(w, "prefix/")[0] == 0o700


async def test_W9_attributes_of_directories_outlive_a_mount(tmp_path):
    async with keeping(tmp_path) as w:
        await w.fs.make_directory(ROOT, "d", 0o700, ME)
        await write_file(w.fs, (await w.fs.lookup(ROOT, "d")).number, "a", b"x", 0o600)
    async with keeping(tmp_path) as w:
        assert stat.S_IMODE((await w.fs.lookup(ROOT, "d")).mode) == 0o700
        assert stat.S_IMODE((await walk(w.fs, "d/a")).mode) == 0o600
        forget_all(w)
        await names(w.fs)
        assert stat.S_IMODE((await w.fs.lookup(ROOT, "d")).mode) == 0o700


async def test_W7_W9_renamed_directories_keep_attributes_and_what_others_keep_in_their_markers(
    tmp_path, autojump_clock
):
    async with keeping(tmp_path) as w:
        top = await w.fs.make_directory(ROOT, "d", 0o750, ME)
        await w.fs.make_directory(top.number, "e", 0o700, ME)
        await w.fs.make_directory(top.number, "late", 0o755, ME)
        w.parts.manager.primary.make_directory("d/other/", metadata={"owner": "else"})
        await w.fs.set_attributes((await walk(w.fs, "d/late")).number, ODD)  # told to the store after the move
        await w.fs.rename(ROOT, "d", ROOT, "new", 0)
        await trio.sleep(SOON)
        assert kept(w, "new/")[:3] == (0o750, ME.uid, ME.gid)
        assert kept(w, "new/e/")[:3] == (0o700, ME.uid, ME.gid)
        assert kept(w, "new/late/") == (0o640, 7, 8, NS)
        assert on_primary(w, "new/other/").metadata == {"owner": "else"}
    async with keeping(tmp_path) as w:
        assert {name: stat.S_IMODE((await walk(w.fs, name)).mode) for name in ("new", "new/e", "new/late")} == {
            "new": 0o750,
            "new/e": 0o700,
            "new/late": 0o640,
        }


async def test_W9_setuid_lasts_while_mounted_and_is_not_kept(tmp_path, autojump_clock):
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        number = (await w.fs.lookup(ROOT, "a")).number
        await w.fs.set_attributes(number, Change(mode=0o4755))
        await trio.sleep(SOON)
        assert kept(w, "a")[0] == 0o755
        assert stat.S_IMODE((await w.fs.lookup(ROOT, "a")).mode) == 0o4755


async def test_W9_copies_on_replicas_stay_fresh_and_no_byte_is_copied_again(tmp_path, autojump_clock):
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        for profile in ("near", "far"):
            await w.transport.step(profile, "a", delete=False)
        number = (await w.fs.lookup(ROOT, "a")).number
        await w.fs.set_attributes(number, ODD)
        await trio.sleep(SOON)
        present, before = on_primary(w, "a"), w.parts.manager.primary_source.statistics.hits
        for profile in ("near", "far"):
            copy = w.parts.manager.replica(profile).provider.head("a")
            assert copy.stamped_version == present.version
            assert copy.metadata["mode"] == "0100640"
            assert (await w.transport.step(profile, "a", delete=False)).outcome == "fresh"
        handle, _ = await w.fs.open(number, os.O_RDONLY)
        assert bytes(await w.fs.read(handle, 0, 9)) == b"x"
        assert w.parts.manager.primary_source.statistics.hits == before
        await w.fs.release(handle)


async def test_W2_a_replica_that_could_not_follow_gets_a_wish(tmp_path, autojump_clock):
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        await w.transport.step("near", "a", delete=False)
        for claimed in w.parts.journal.claim(10):
            w.parts.journal.finish(claimed)
        await w.fs.set_attributes((await w.fs.lookup(ROOT, "a")).number, ODD)
        await trio.sleep(SOON)
        assert {claimed.replica for claimed in w.parts.journal.claim(10)} == {"far"}


async def test_W9_a_store_that_is_away_is_told_later(tmp_path, monkeypatch, autojump_clock):
    async with keeping(tmp_path, replicas=False) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        real, failures = w.parts.manager.primary.set_metadata, [StoreUnavailableError("away")] * 3

        def set_metadata(*arguments: Any, **named: Any) -> ObjectMetadata:
            if failures:
                raise failures.pop()
            return real(*arguments, **named)

        monkeypatch.setattr(w.parts.manager.primary, "set_metadata", set_metadata)
        await w.fs.set_attributes((await w.fs.lookup(ROOT, "a")).number, ODD)
        await trio.sleep(60)
        assert kept(w, "a") == (0o640, 7, 8, NS)


async def test_W6_a_file_that_is_streamed_has_its_mode_at_once_and_its_time_when_it_is_chosen(
    tmp_path, monkeypatch, autojump_clock
):
    monkeypatch.setattr(streams, "PART_SIZE", 1000)
    monkeypatch.setattr(streams, "FIRST_AT", 2000)
    async with keeping(tmp_path) as w:
        requests = Requests(w, monkeypatch)
        handle, _, made = await w.fs.create(ROOT, "a", 0o600, os.O_WRONLY, ME)
        for at in range(0, 5000, 500):
            await w.fs.write(handle, at, bytes(500))
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await trio.sleep(SOON)
        assert w.transport.completed == 1
        assert "set_metadata" not in requests.made
        assert kept(w, "a") == (0o600, ME.uid, ME.gid, None)
        handle, _ = await w.fs.open(made.number, os.O_WRONLY | os.O_TRUNC)
        for at in range(0, 5000, 500):
            await w.fs.write(handle, at, bytes(500))
        await w.fs.set_attributes(made.number, ODD)
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await trio.sleep(SOON)
        assert (w.transport.completed, requests.made["set_metadata"]) == (2, 1)
        assert kept(w, "a") == (0o640, 7, 8, NS)


async def test_L5_metadata_that_make_no_sense_are_as_none(tmp_path):
    async with keeping(tmp_path) as w:
        bad = {"mode": "7" * 99, "uid": "-1", "gid": "root", "mtime": "9" * 30, "xattr": "%7B%7B"}
        w.parts.manager.primary.put("a", b"x", metadata=bad)
        found = await w.fs.lookup(ROOT, "a")
        assert stat.S_IMODE(found.mode) == 0o644
        assert (found.uid, found.gid) == (os.geteuid(), os.getegid())
        assert await read_file(w.fs, found.number) == b"x"


def listings_without_metadata(primary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As S3 lists."""
    store = getattr(primary, "inner", primary)
    real = store.list_directory
    monkeypatch.setattr(
        store, "list_directory", lambda directory="": (replace(e, metadata=None) for e in real(directory))
    )


def tags_are_hashes(primary: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mscfs.providers.memory.os.urandom", lambda size: b"12345678")
