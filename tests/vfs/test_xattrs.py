"""Extended attributes `user.*`: kept while mounted, with `preserve_attributes` by the store, on `file` always (W9)."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from mscfs.errors import NoSpaceError, ReadOnlyError
from mscfs.vfs.inodes import ROOT
from tests.providers.contract import MOST_IN_AN_XATTR
from tests.vfs.inline import World, world
from tests.vfs.test_names import ME, names, write_file
from tests.vfs.test_remembered import forget_all
from tests.vfs.test_saver import SOON, Requests, keeping, kept, on_primary

KINDS = ["file", "objects", "kept"]


def world_of(kind, path, **options):
    if kind == "kept":
        return keeping(path, **options)
    return world(path, objects=kind == "objects", **options)


async def number_of(w: World, name: str) -> int:
    return (await w.fs.lookup(ROOT, name)).number


@pytest.mark.parametrize("kind", KINDS)
async def test_W9_xattrs_are_set_told_and_removed(tmp_path, kind):
    async with world_of(kind, tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        await w.fs.make_directory(ROOT, "d", 0o755, ME)
        for name in ("a", "d"):
            number = await number_of(w, name)
            assert await w.fs.xattrs(number) == {}
            await w.fs.set_xattr(number, "user.one", b"1\0\xff")
            await w.fs.set_xattr(number, "user.two", b"")
            await w.fs.set_xattr(number, "user.one", b"2")
            assert await w.fs.xattrs(number) == {"user.one": b"2", "user.two": b""}
            forget_all(w)
            await names(w.fs)
            number = await number_of(w, name)
            assert await w.fs.xattrs(number) == {"user.one": b"2", "user.two": b""}
            await w.fs.set_xattr(number, "user.two", None)
            with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
                await w.fs.set_xattr(number, "user.two", None)
            assert await w.fs.xattrs(number) == {"user.one": b"2"}


@pytest.mark.parametrize("kind", ["file", "kept"])
async def test_W9_xattrs_outlive_the_mount_and_a_change_of_the_file(tmp_path, kind):
    async with world_of(kind, tmp_path) as w:
        handle, _, made = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        await w.fs.set_xattr(made.number, "user.one", b"1")
        await w.fs.write(handle, 0, b"x")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        await w.fs.set_xattr(made.number, "user.two", b"2")
        await w.fs.finish()
    async with world_of(kind, tmp_path) as w:
        number = await number_of(w, "a")
        assert await w.fs.xattrs(number) == {"user.one": b"1", "user.two": b"2"}
        for flags in (os.O_WRONLY, os.O_WRONLY | os.O_TRUNC):
            handle, _ = await w.fs.open(number, flags)
            await w.fs.write(handle, 0, b"y")
            await w.fs.set_xattr(number, "user.three", str(flags).encode())
            await w.fs.flush(handle)
            await w.fs.release(handle)
        await w.fs.rename(ROOT, "a", ROOT, "b", 0)
        await w.fs.finish()
    async with world_of(kind, tmp_path) as w:
        told = await w.fs.xattrs(await number_of(w, "b"))
        assert told == {"user.one": b"1", "user.two": b"2", "user.three": str(os.O_WRONLY | os.O_TRUNC).encode()}


async def test_W9_xattrs_and_attributes_are_one_change_of_metadata(tmp_path, monkeypatch, autojump_clock):
    """rsync -X and cp --preserve=xattr set them one after the other."""
    async with keeping(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x", 0o600)
        requests = Requests(w, monkeypatch)
        number = await number_of(w, "a")
        for name in ("user.a", "user.b", "user.c"):
            await w.fs.set_xattr(number, name, b"v")
        await trio.sleep(SOON)
        assert requests.writes == {"set_metadata": 1}
        assert on_primary(w, "a").metadata["xattr"].startswith("%7B%22user.a%22%3A%22dg%3D%3D%22")
        assert kept(w, "a")[0] == 0o600
        for name in ("user.a", "user.b", "user.c"):
            await w.fs.set_xattr(number, name, None)
        await trio.sleep(SOON)
        assert "xattr" not in on_primary(w, "a").metadata


@pytest.mark.parametrize("kind", ["objects", "kept"])
async def test_what_does_not_fit_into_metadata_is_ENOSPC(tmp_path, kind):
    async with world_of(kind, tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        number = await number_of(w, "a")
        await w.fs.set_xattr(number, "user.fits", bytes(900))
        with pytest.raises(OSError, match="at most") as refused:
            await w.fs.set_xattr(number, "user.more", bytes(900))
        assert refused.value.errno == errno.ENOSPC
        assert list(await w.fs.xattrs(number)) == ["user.fits"]


async def test_what_a_file_system_would_refuse_at_close_is_refused_when_it_is_set(tmp_path):
    async with world(tmp_path) as w:
        handle, _, made = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        await w.fs.set_xattr(made.number, "user.fits", b"1")
        with pytest.raises(NoSpaceError):
            await w.fs.set_xattr(made.number, "user.more", bytes(MOST_IN_AN_XATTR + 1))
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert os.listxattr(w.store("primary") / "a") == ["user.fits"]


@pytest.mark.parametrize("name", ["user.mscfs.key", "security.capability", "trusted.x", "system.posix_acl_access"])
async def test_other_names_are_refused(tmp_path, name):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        with pytest.raises(OSError, match=name) as refused:
            await w.fs.set_xattr(await number_of(w, "a"), name, b"1")
        assert refused.value.errno == errno.ENOTSUP


async def test_a_read_only_mount_tells_and_takes_none(tmp_path):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"x")
        await w.fs.set_xattr(await number_of(w, "a"), "user.one", b"1")
    async with world(tmp_path, read_only=True) as w:
        number = await number_of(w, "a")
        assert await w.fs.xattrs(number) == {"user.one": b"1"}
        with pytest.raises(ReadOnlyError):
            await w.fs.set_xattr(number, "user.one", b"2")


async def test_without_the_option_metadata_of_s3fs_are_left_alone(tmp_path):
    async with world(tmp_path, objects=True) as w:
        theirs = {"xattr": "%7B%22user.foo%22%3A%22YmFy%22%7D"}
        w.parts.manager.primary.put("a", b"x", metadata=theirs)
        number = await number_of(w, "a")
        assert await w.fs.xattrs(number) == {}
        await w.fs.set_xattr(number, "user.one", b"1")
        handle, _ = await w.fs.open(number, os.O_WRONLY)
        await w.fs.write(handle, 0, b"y")
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert on_primary(w, "a").metadata == theirs
        assert await w.fs.xattrs(number) == {"user.one": b"1"}
