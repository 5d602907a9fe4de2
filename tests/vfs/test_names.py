"""Names in a mount: contract N1 to N4, R2, W8, without a kernel."""

from __future__ import annotations

import errno
import os
import stat
from functools import partial

import pytest
import trio

from mscfs.providers.keys import check_length
from mscfs.vfs.filesystem import RENAME_NOREPLACE, Change, Owner
from mscfs.vfs.inodes import ROOT
from tests.vfs.inline import world

ME = Owner(os.geteuid(), os.getegid())


def put(path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


async def names(fs, number=ROOT) -> list[str]:
    return [name for name, _ in await read_directory(fs, number)]


async def read_directory(fs, number=ROOT) -> list[tuple[str, int]]:
    """Names and kinds (S_IFREG and so on) of a directory, as readdir gives them."""
    handle = fs.open_directory(number)
    found, position = [], 0
    while True:
        rows = await fs.read_directory(handle, position)
        if not rows.slots and not rows.loose:
            break
        position += len(rows.slots) + len(rows.loose)
        present = [fs.present(rows.entries, slot) for slot in rows.slots] + rows.loose
        found += [(inode.name, inode.kind) for inode in present if inode is not None]
    fs.close_directory(handle)
    return found


async def walk(fs, path: str):
    attributes = fs.attributes(ROOT)
    for name in path.split("/"):
        attributes = await fs.lookup(attributes.number, name)
    return attributes


async def write_file(fs, parent: int, name: str, data: bytes, mode: int = 0o644) -> None:
    handle, _, _ = await fs.create(parent, name, mode, os.O_WRONLY, ME)
    await fs.write(handle, 0, data)
    await fs.flush(handle)
    await fs.release(handle)


async def read_file(fs, number: int) -> bytes:
    handle, _ = await fs.open(number, os.O_RDONLY)
    try:
        return bytes(await fs.read(handle, 0, 1 << 20))
    finally:
        await fs.release(handle)


async def test_N1_a_key_is_a_path(tmp_path):
    async with world(tmp_path) as w:
        put(w.store("primary") / "a/b/c", b"deep")
        assert await names(w.fs) == ["a"]
        found = await walk(w.fs, "a/b/c")
        assert stat.S_ISREG(found.mode)
        assert found.size == 4
        assert await read_file(w.fs, found.number) == b"deep"


async def test_N1_mkdir_and_rmdir(tmp_path):
    async with world(tmp_path) as w:
        made = await w.fs.make_directory(ROOT, "new", 0o750, ME)
        assert stat.S_IMODE(made.mode) == 0o750
        assert (w.store("primary") / "new").is_dir()
        await write_file(w.fs, made.number, "f", b"x")
        with pytest.raises(OSError) as refused:
            await w.fs.remove_directory(ROOT, "new")
        assert refused.value.errno == errno.ENOTEMPTY
        await w.fs.unlink(made.number, "f")
        await w.fs.remove_directory(ROOT, "new")
        assert not (w.store("primary") / "new").exists()
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "new")


async def test_N3_odd_names_round_trip(tmp_path):
    odd = ["a b", "a+b", "a%20b", "a#b", "q'\"", "new\nline", "日本語", "\udcff\udcfe", "😀", "x" * 255]
    async with world(tmp_path) as w:
        for name in odd:
            await write_file(w.fs, ROOT, name, name.encode("utf-8", "surrogateescape"))
        assert sorted(os.listdir(w.store("primary"))) == sorted(odd)
        assert await names(w.fs) == sorted(odd, key=os.fsencode)
        for name in odd:
            found = await w.fs.lookup(ROOT, name)
            assert await read_file(w.fs, found.number) == name.encode("utf-8", "surrogateescape")


async def test_N3_a_name_that_is_too_long_is_refused(tmp_path):
    async with world(tmp_path) as w:
        with pytest.raises(OSError) as refused:
            await w.fs.create(ROOT, "x" * 256, 0o644, os.O_WRONLY, ME)
        assert refused.value.errno == errno.ENAMETOOLONG
        with pytest.raises(OSError) as refused:
            await w.fs.lookup(ROOT, "x" * 256)
        assert refused.value.errno == errno.ENAMETOOLONG


async def test_N4_inode_numbers_are_stable(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        put(w.store("primary") / "a", b"1")
        first = await w.fs.lookup(ROOT, "a")
        await read_file(w.fs, first.number)
        again = await w.fs.lookup(ROOT, "a")
        assert again.number == first.number
        put(w.store("primary") / "a", b"another version")
        assert (await w.fs.lookup(ROOT, "a")).number == first.number
        assert (await w.fs.space()).total_bytes > 0


async def test_R2_a_change_elsewhere_is_seen_at_once_with_ttl_0(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        put(w.store("primary") / "a", b"old!")
        found = await w.fs.lookup(ROOT, "a")
        assert await read_file(w.fs, found.number) == b"old!"
        put(w.store("primary") / "a", b"new!")
        found = await w.fs.lookup(ROOT, "a")
        assert await read_file(w.fs, found.number) == b"new!"
        (w.store("primary") / "a").unlink()
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "a")
        assert await names(w.fs) == []


async def test_R2_names_are_believed_for_the_ttl_and_not_longer(tmp_path, autojump_clock):
    async with world(tmp_path, metadata_ttl=60) as w:
        put(w.store("primary") / "a", b"1")
        assert await names(w.fs) == ["a"]
        put(w.store("primary") / "b", b"2")
        assert await names(w.fs) == ["a"]
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "b")
        await trio.sleep(61)
        assert await names(w.fs) == ["a", "b"]
        assert (await w.fs.lookup(ROOT, "b")).size == 1


async def test_R2_an_o_direct_open_always_asks(tmp_path):
    async with world(tmp_path, metadata_ttl=60) as w:
        put(w.store("primary") / "a", b"old")
        found = await w.fs.lookup(ROOT, "a")
        put(w.store("primary") / "a", b"newer")
        with pytest.raises(OSError) as stale:  # the kernel looks the name up again and repeats the open
            await w.fs.open(found.number, os.O_RDONLY | os.O_DIRECT)
        assert stale.value.errno == errno.ESTALE
        found = await w.fs.lookup(ROOT, "a")
        assert found.size == 5
        handle, _ = await w.fs.open(found.number, os.O_RDONLY | os.O_DIRECT)
        assert bytes(await w.fs.read(handle, 0, 100)) == b"newer"
        await w.fs.release(handle)


async def test_R2_an_answer_older_than_a_local_change_is_ignored(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"first")
        asked, go_on = trio.Event(), trio.Event()
        real = w.parts.namespace._questions.primary

        async def slow_answer(key):
            answer = await real(key)
            asked.set()
            await go_on.wait()
            return answer

        w.parts.namespace._questions.primary = slow_answer
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.lookup, ROOT, "a")
            await asked.wait()
            w.parts.namespace._questions.primary = real
            await write_file(w.fs, ROOT, "a", b"second, longer")
            go_on.set()
        inode = w.parts.namespace.table.root.children["a"]
        assert inode.metadata.content_length == len(b"second, longer")


async def test_W8_unlink_lets_open_handles_read_on(tmp_path):
    async with world(tmp_path, chunk_size=65536) as w:
        put(w.store("primary") / "a", os.urandom(200_000))
        content = (w.store("primary") / "a").read_bytes()
        found = await w.fs.lookup(ROOT, "a")
        handle, _ = await w.fs.open(found.number, os.O_RDONLY)
        await w.fs.unlink(ROOT, "a")
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "a")
        assert await names(w.fs) == []
        assert w.parts.journal.deletes() != []
        got = [bytes(await w.fs.read(handle, offset, 50_000)) for offset in range(0, 200_000, 50_000)]
        assert b"".join(got) == content
        await w.fs.release(handle)
        assert not (w.store("primary") / "a").exists()
        assert w.parts.journal.deletes() == []


async def test_W8_a_name_can_be_made_anew_while_the_old_file_is_open(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        put(w.store("primary") / "a", b"old")
        found = await w.fs.lookup(ROOT, "a")
        handle, _ = await w.fs.open(found.number, os.O_RDONLY)
        assert bytes(await w.fs.read(handle, 0, 10)) == b"old"
        await w.fs.unlink(ROOT, "a")
        await write_file(w.fs, ROOT, "a", b"new")
        await w.fs.release(handle)
        assert (w.store("primary") / "a").read_bytes() == b"new"
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"new"


async def test_W7_rename_replaces_and_keeps_the_content(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        put(w.store("primary") / "target", b"old")
        await write_file(w.fs, ROOT, "tmp", b"checkpoint")
        await w.fs.rename(ROOT, "tmp", ROOT, "target", 0)
        assert os.listdir(w.store("primary")) == ["target"]
        assert (w.store("primary") / "target").read_bytes() == b"checkpoint"
        found = await w.fs.lookup(ROOT, "target")
        assert await read_file(w.fs, found.number) == b"checkpoint"
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "tmp")
        assert w.parts.journal.renames() == []


async def test_W7_a_file_not_yet_uploaded_is_renamed_without_a_transfer(tmp_path):
    async with world(tmp_path) as w:
        handle, _, _ = await w.fs.create(ROOT, "tmp", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"data")
        await w.fs.rename(ROOT, "tmp", ROOT, "final", 0)
        assert w.transport.uploads == 0
        assert os.listdir(w.store("primary")) == []
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert w.transport.uploads == 1
        assert os.listdir(w.store("primary")) == ["final"]


@pytest.mark.parametrize("then", ["unlink", "rename"])
async def test_W7_W8_what_a_new_file_replaced_before_it_was_uploaded_does_not_come_again(tmp_path, then):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "final", b"old")
        handle, _, _ = await w.fs.create(ROOT, "tmp", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"data")
        await w.fs.rename(ROOT, "tmp", ROOT, "final", 0)
        if then == "unlink":
            await w.fs.unlink(ROOT, "final")
        else:
            await w.fs.rename(ROOT, "final", ROOT, "other", 0)
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert os.listdir(w.store("primary")) == ([] if then == "unlink" else ["other"])
    async with world(tmp_path) as w:
        assert await names(w.fs) == ([] if then == "unlink" else ["other"])


async def test_W7_noreplace_and_exchange(tmp_path):
    async with world(tmp_path) as w:
        await write_file(w.fs, ROOT, "a", b"a")
        await write_file(w.fs, ROOT, "b", b"b")
        with pytest.raises(FileExistsError):
            await w.fs.rename(ROOT, "a", ROOT, "b", RENAME_NOREPLACE)
        with pytest.raises(OSError, match="RENAME_NOREPLACE"):
            await w.fs.rename(ROOT, "a", ROOT, "b", 2)
        assert (w.store("primary") / "b").read_bytes() == b"b"


async def test_symlinks(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        made = await w.fs.symlink(ROOT, "link", "some/where else", ME)
        assert stat.S_ISLNK(made.mode)
        assert made.size == len("some/where else")
        assert await w.fs.readlink(made.number) == "some/where else"
        assert os.readlink(w.store("primary") / "link") == "some/where else"
        assert stat.S_ISLNK((await w.fs.lookup(ROOT, "link")).mode)


async def test_attributes_set_here_last_while_mounted(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"a")
        found = await w.fs.lookup(ROOT, "a")
        changed = await w.fs.set_attributes(found.number, Change(mode=0o600, mtime_ns=1_600_000_000_123_456_789))
        assert stat.S_IMODE(changed.mode) == 0o600
        assert changed.mtime_ns == 1_600_000_000_123_456_789
        again = await w.fs.lookup(ROOT, "a")
        assert (again.mode, again.mtime_ns) == (changed.mode, changed.mtime_ns)
        status = (w.store("primary") / "a").stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_mtime_ns == 1_600_000_000_123_456_789


@pytest.mark.parametrize("objects", [False, True])
async def test_W9_the_beginning_of_the_epoch_is_a_time_too(tmp_path, objects):
    """Archives that are built to be the same again have it."""
    async with world(tmp_path, objects=objects, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"a")
        found = await w.fs.lookup(ROOT, "a")
        changed = await w.fs.set_attributes(found.number, Change(atime_ns=0, mtime_ns=0))
        assert (changed.mtime_ns, changed.atime_ns) == (0, 0)
        await w.fs.rename(ROOT, "a", ROOT, "b", 0)
        assert (await w.fs.lookup(ROOT, "b")).mtime_ns == 0
        made = await w.fs.make_directory(ROOT, "d", 0o755, ME)
        assert (await w.fs.set_attributes(made.number, Change(mtime_ns=0))).mtime_ns == 0


async def test_W9_a_file_of_the_beginning_of_the_epoch_is_listed_as_such(tmp_path):
    put(tmp_path / "primary/a", b"a")
    os.utime(tmp_path / "primary/a", ns=(0, 0))
    async with world(tmp_path, metadata_ttl=60) as w:
        assert await names(w.fs) == ["a"]
        assert (await w.fs.lookup(ROOT, "a")).mtime_ns == 0


@pytest.mark.parametrize("objects", [False, True])
@pytest.mark.parametrize("time", [10**19, -(10**19)])
async def test_W9_a_time_beyond_what_is_kept_is_the_nearest_that_is(tmp_path, objects, time):
    nearest = max(-(1 << 63), min(time, (1 << 63) - 1))
    async with world(tmp_path, objects=objects, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"a")
        assert await names(w.fs) == ["a"]
        number = (await w.fs.lookup(ROOT, "a")).number
        changed = await w.fs.set_attributes(number, Change(atime_ns=time, mtime_ns=time))
        assert (changed.mtime_ns, changed.atime_ns) == (nearest, nearest)
        assert (await w.fs.lookup(ROOT, "a")).mtime_ns == nearest


async def test_W9_a_file_of_a_time_beyond_what_is_kept_hides_no_other(tmp_path):
    put(tmp_path / "primary/a", b"a")
    put(tmp_path / "primary/b", b"b")
    os.utime(tmp_path / "primary/a", ns=(0, 10**19))
    async with world(tmp_path, metadata_ttl=60) as w:
        assert await names(w.fs) == ["a", "b"]
        assert (await w.fs.lookup(ROOT, "a")).mtime_ns == (1 << 63) - 1
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"a"


async def test_a_read_only_mount_refuses_changes(tmp_path):
    async with world(tmp_path, read_only=True) as w:
        put(w.store("primary") / "a", b"a")
        found = await w.fs.lookup(ROOT, "a")
        for refused in (
            w.fs.create(ROOT, "b", 0o644, os.O_WRONLY, ME),
            w.fs.open(found.number, os.O_RDWR),
            w.fs.unlink(ROOT, "a"),
            w.fs.make_directory(ROOT, "d", 0o755, ME),
            w.fs.rename(ROOT, "a", ROOT, "b", 0),
            w.fs.set_attributes(found.number, Change(size=0)),
        ):
            with pytest.raises(OSError, match="read-only") as error:
                await refused
            assert error.value.errno == errno.EROFS


async def test_forgotten_inodes_leave_no_trace(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        for number in range(50):
            put(w.store("primary") / f"d/{number}", b"x")
        before = len(w.parts.namespace.table)
        directory = await w.fs.lookup(ROOT, "d")
        numbers = [(await w.fs.lookup(directory.number, str(number))).number for number in range(50)]
        await names(w.fs, directory.number)
        for number in (*numbers, directory.number):
            w.fs.forget(number, 1)
        assert len(w.parts.namespace.table) == before


async def test_N3_a_path_that_the_primary_cannot_hold_is_refused_when_it_is_made(tmp_path, monkeypatch):
    """At open(), not at close(): nothing is staged that no store will ever take."""
    async with world(tmp_path, objects=True) as w:
        monkeypatch.setattr(
            w.parts.manager.primary.inner, "check_new_key", partial(check_length, prefix="", store="data")
        )
        number, length = ROOT, 0
        while length + 252 <= 1024:
            number, length = (await w.fs.make_directory(number, "d" * 251, 0o755, ME)).number, length + 252
        await write_file(w.fs, number, "f" * (1024 - length), b"fits")
        await write_file(w.fs, ROOT, "short", b"moves")
        too_long = "f" * (1025 - length)
        for call in (
            partial(w.fs.create, number, too_long, 0o644, os.O_WRONLY, ME),
            partial(w.fs.make_directory, number, too_long[1:], 0o755, ME),  # with its final slash
            partial(w.fs.symlink, number, too_long, "target", ME),
            partial(w.fs.rename, ROOT, "short", number, too_long, 0),
        ):
            with pytest.raises(OSError) as refused:
                await call()
            assert refused.value.errno == errno.ENAMETOOLONG
        assert await names(w.fs, number) == ["f" * (1024 - length)]
        assert w.parts.area.bytes == 0
