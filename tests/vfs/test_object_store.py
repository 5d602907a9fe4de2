"""What is different on an object store: markers, prefixes as directories, keys that are no paths, links."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from mscfs.errors import VersionMismatchError
from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from tests.vfs.inline import world
from tests.vfs.test_names import ME, names, read_directory, read_file, walk, write_file


async def test_N1_a_prefix_is_a_directory(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.manager.primary.put("a/b/c", b"deep")
        assert await names(w.fs) == ["a"]
        found = await walk(w.fs, "a/b/c")
        assert await read_file(w.fs, found.number) == b"deep"
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "b")


async def test_N1_mkdir_writes_a_marker_that_survives_the_last_file(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        made = await w.fs.make_directory(ROOT, "new", 0o755, ME)
        assert w.parts.manager.primary.has_directory("new/")
        await write_file(w.fs, made.number, "f", b"x")
        await w.fs.unlink(made.number, "f")
        assert stat.S_ISDIR((await w.fs.lookup(ROOT, "new")).mode)
        assert w.parts.manager.primary.has_directory("new/")
        await w.fs.remove_directory(ROOT, "new")
        assert not w.parts.manager.primary.has_directory("new/")


async def test_N1_a_directory_without_marker_stays_until_its_emptier_removes_it(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.manager.primary.put("d/only", b"x")
        directory = await w.fs.lookup(ROOT, "d")
        await w.fs.unlink(directory.number, "only")
        assert (await w.fs.lookup(ROOT, "d")).number == directory.number
        assert await names(w.fs, directory.number) == []
        await w.fs.remove_directory(ROOT, "d")
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "d")


async def test_N2_a_name_that_is_both_is_warned_of_once_however_often_it_is_asked_about(tmp_path, caplog):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.manager.primary.put("a", b"object")
        w.parts.manager.primary.put("a/b", b"below")
        for _ in range(3):
            assert stat.S_ISDIR((await w.fs.lookup(ROOT, "a")).mode)
    assert len([record for record in caplog.records if "keys below it exist" in record.message]) == 1


async def test_N2_keys_that_cannot_be_paths_are_left_out_and_counted(tmp_path, caplog):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        primary = w.parts.manager.primary
        for key in ("ok", "d//x", "d/../y", "d/./z", "d/" + "n" * 256, "d/fine"):
            primary.put(key, b"x")
        assert await names(w.fs) == ["d", "ok"]
        directory = await w.fs.lookup(ROOT, "d")
        assert await names(w.fs, directory.number) == ["fine"]
        assert w.parts.namespace.skipped_keys == 4
        warnings = [record for record in caplog.records if "cannot be paths" in record.message]
        await names(w.fs, directory.number)
        assert [record for record in caplog.records if "cannot be paths" in record.message] == warnings
        assert len(warnings) == 1


async def test_N2_the_directory_wins_over_the_object_of_the_same_name(tmp_path, caplog):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.manager.primary.put("a", b"object")
        w.parts.manager.primary.put("a/b", b"below")
        assert await names(w.fs) == ["a"]
        assert stat.S_ISDIR((await w.fs.lookup(ROOT, "a")).mode)
        assert "the directory is shown" in caplog.text
        assert w.parts.namespace.shadowed_names == 1


async def test_N3_names_that_are_not_utf8_are_refused(tmp_path):
    async with world(tmp_path, objects=True) as w:
        with pytest.raises(OSError) as refused:
            await w.fs.create(ROOT, "\udcff", 0o644, os.O_WRONLY, ME)
        assert refused.value.errno == errno.EINVAL


async def test_symlinks_are_told_from_empty_files(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        await w.fs.symlink(ROOT, "link", "ziel/ü", ME)
        w.parts.manager.primary.make_symlink("made-elsewhere", "target")
        w.parts.manager.primary.put("empty", b"")
        kinds = dict(await read_directory(w.fs))
        assert kinds == {"empty": stat.S_IFREG, "link": stat.S_IFLNK, "made-elsewhere": stat.S_IFLNK}
        found = await w.fs.lookup(ROOT, "made-elsewhere")
        assert await w.fs.readlink(found.number) == "target"


async def test_attributes_last_while_mounted_without_touching_the_object(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"a")
        before = w.parts.manager.primary.head("a")
        found = await w.fs.lookup(ROOT, "a")
        await w.fs.set_attributes(found.number, Change(mode=0o600, mtime_ns=5))
        again = await w.fs.lookup(ROOT, "a")
        assert (stat.S_IMODE(again.mode), again.mtime_ns) == (0o600, 5)
        assert w.parts.manager.primary.head("a") == before


async def test_user_metadata_survives_a_change_in_place(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.manager.primary.put("a", b"hello", metadata={"owner": "me"})
        await names(w.fs)  # known from a listing, which carries no user metadata
        found = await w.fs.lookup(ROOT, "a")
        handle, _ = await w.fs.open(found.number, os.O_RDWR)
        await w.fs.write(handle, 0, b"J")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert w.parts.manager.primary.head("a").metadata == {"owner": "me"}
        assert w.parts.manager.primary.get("a").read_all() == b"Jello"


async def test_W5_in_place_conflict_on_an_object_store(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        w.parts.manager.primary.put("a", b"one")
        found = await w.fs.lookup(ROOT, "a")
        handle, _ = await w.fs.open(found.number, os.O_RDWR)
        await w.fs.write(handle, 0, b"M")
        w.parts.manager.primary.put("a", b"two")
        with pytest.raises(VersionMismatchError):
            await w.fs.flush(handle)
        await w.fs.release(handle)
        assert w.parts.manager.primary.get("a").read_all() == b"two"
