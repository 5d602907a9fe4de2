"""What a review found: each fails until its bug is fixed."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import replace

import pytest
import trio
import trio.testing

from mscfs.errors import NoSpaceError, StoreTimeoutError, StoreUnavailableError, VersionMismatchError
from mscfs.journal import Wish
from mscfs.providers.page import paginate
from mscfs.replicas.step import bring_up_to_date
from mscfs.vfs.deletes import delete_object, settle_delete
from mscfs.vfs.filesystem import Change
from mscfs.vfs.inodes import ROOT
from tests.doubles import Scripted
from tests.vfs.inline import world
from tests.vfs.test_data import open_file
from tests.vfs.test_names import ME, names, put, read_directory, read_file, write_file


async def test_R2_a_file_made_after_a_listing_is_found_after_the_kernel_forgot_it(tmp_path):
    async with world(tmp_path, metadata_ttl=60) as w:
        put(w.store("primary") / "x", b"1")
        await names(w.fs)
        h, _, a = await w.fs.create(ROOT, "new", 0o644, os.O_WRONLY, ME)
        await w.fs.write(h, 0, b"d")
        await w.fs.flush(h)
        await w.fs.release(h)
        w.fs.forget(a.number, 1)
        assert (await w.fs.lookup(ROOT, "new")).size == 1


async def test_W5_a_write_after_the_object_was_replaced_elsewhere_is_not_lost_in_silence(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        put(w.store("primary") / "a", b"version one")
        h = await open_file(w, "a", os.O_RDWR)
        await w.fs.write(h, 0, b"A")
        await w.fs.flush(h)
        put(w.store("primary") / "a", b"elsewhere, longer")
        await w.fs.lookup(ROOT, "a")
        await w.fs.write(h, 0, b"MINE")
        with pytest.raises(OSError):
            await w.fs.flush(h)


async def test_W7_a_lookup_during_a_rename_does_no_harm(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"a")
        real = w.fs._run_blocking

        async def slow(call, *arguments):
            answer = await real(call, *arguments)
            if call == w.fs._rename_object:
                await w.fs.lookup(ROOT, "a")  # the old name until the rename is complete
            return answer

        w.fs._run_blocking = slow
        await w.fs.rename(ROOT, "a", ROOT, "b", 0)
        assert (await w.fs.lookup(ROOT, "b")).size == 1
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "a")


async def test_W9_fchmod_of_an_unlinked_file_leaves_its_successor_alone(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        f = await w.fs.lookup(ROOT, "a")
        h, _ = await w.fs.open(f.number, os.O_RDONLY)
        await w.fs.unlink(ROOT, "a")
        await write_file(w.fs, ROOT, "a", b"new")
        await w.fs.set_attributes(f.number, Change(mode=0o600))
        assert stat.S_IMODE((w.store("primary") / "a").stat().st_mode) == 0o644
        await w.fs.release(h)


async def test_W8_an_exclusive_creation_after_an_unlink_of_an_open_file(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        put(w.store("primary") / "a", b"old")
        h = await open_file(w, "a")
        await w.fs.unlink(ROOT, "a")
        n, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY | os.O_EXCL, ME)
        await w.fs.release(n)
        await w.fs.release(h)


async def test_an_entry_read_after_another_reader_closed_the_directory_is_known(tmp_path):
    async with world(tmp_path, metadata_ttl=60) as w:
        put(w.store("primary") / "a", b"1")
        one, two = w.fs.open_directory(ROOT), w.fs.open_directory(ROOT)
        rows = await w.fs.read_directory(one, 0)
        await w.fs.read_directory(two, 0)
        w.fs.close_directory(two)
        inode = w.fs.present(rows.entries, rows.slots[0])
        w.fs.attributes(w.fs.reference(inode).number)


async def test_symlinks_stay_links_when_a_directory_is_listed_again(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await w.fs.symlink(ROOT, "link", "t", ME)
        assert await read_directory(w.fs) == [("link", stat.S_IFLNK)]


async def test_W2_a_journal_that_cannot_be_written_does_not_end_replication(tmp_path, monkeypatch):
    async with world(tmp_path) as w:

        def full(*_):
            raise NoSpaceError("full")

        monkeypatch.setattr(w.parts.journal, "finish", full)
        put(w.store("primary") / "a", b"x")
        w.parts.journal.wish([Wish("near", "a", "replicate", 1)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.replicator.run)
            await trio.sleep(0.3)
            nursery.cancel_scope.cancel()


async def test_W8_a_name_made_anew_outlives_the_deferred_delete_of_its_old_object(tmp_path, monkeypatch):
    """On a store that does not heed the condition of a delete (not every S3 server does)."""
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        primary = w.parts.manager.primary
        real = primary.delete
        monkeypatch.setattr(primary, "delete", lambda key, **_: real(key))
        await write_file(w.fs, ROOT, "a", b"old")
        handle = await open_file(w, "a")
        await w.fs.unlink(ROOT, "a")
        held, go_on = trio.Event(), trio.Event()
        run = w.fs._run_blocking

        async def slow(call, *arguments):
            if call is settle_delete:
                held.set()
                await go_on.wait()
            return await run(call, *arguments)

        w.fs._run_blocking = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.release, handle)
            await held.wait()
            nursery.start_soon(write_file, w.fs, ROOT, "a", b"new")
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        assert primary.get("a").read_all() == b"new"


async def test_W8_a_file_whose_last_handle_is_closed_while_it_is_unlinked_leaves_no_object_behind(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        handle = await open_file(w, "a")
        held, go_on = trio.Event(), trio.Event()
        run = w.fs._run_blocking

        async def slow(call, *arguments):
            done = await run(call, *arguments)
            if call == w.parts.journal.begin_delete:
                held.set()
                await go_on.wait()
            return done

        w.fs._run_blocking = slow
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.fs.unlink, ROOT, "a")
            await held.wait()
            nursery.start_soon(w.fs.release, handle)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        assert [entry.key for entry in w.parts.manager.primary.list()] == []
        assert (w.parts.journal.deletes(), w.parts.namespace.deferred) == ([], {})


async def test_W8_a_namesake_that_was_unlinked_too_is_read_on_when_the_first_is_closed(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"one")
        first = await open_file(w, "a")
        await w.fs.unlink(ROOT, "a")
        await write_file(w.fs, ROOT, "a", b"two")
        second = await open_file(w, "a")
        await w.fs.unlink(ROOT, "a")
        await w.fs.release(first)
        assert bytes(await w.fs.read(second, 0, 10)) == b"two"
        await w.fs.release(second)
        assert [entry.key for entry in w.parts.manager.primary.list()] == []


async def test_W8_R2_the_same_bytes_that_another_host_wrote_to_an_unlinked_name_are_shown_and_stay(
    tmp_path, monkeypatch
):
    """On a store whose versions repeat, as S3's do."""
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        primary = w.parts.manager.primary
        old = primary.put("a", b"the same")
        handle = await open_file(w, "a")
        await w.fs.unlink(ROOT, "a")
        anew = replace(old, modified_ns=old.modified_ns + 60_000_000_000)
        for call, answer in {"head": lambda _: anew, "list_pages": lambda _: paginate([anew], "", links=False)}.items():
            monkeypatch.setattr(primary, call, answer)
        assert await names(w.fs) == ["a"]
        assert (await w.fs.lookup(ROOT, "a")).size == 8

        def refuse(key, *, expected):
            assert expected.is_written_anew(anew.version)
            raise VersionMismatchError("the object has changed", key=key)

        monkeypatch.setattr(primary, "delete", refuse)
        await w.fs.release(handle)
        assert (w.parts.journal.deletes(), w.parts.namespace.deferred) == ([], {})
        assert await names(w.fs) == ["a"]


async def test_W8_a_rename_onto_a_name_that_was_unlinked_while_open_is_not_deleted_at_the_next_mount(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"same")
        handle = await open_file(w, "a")
        await w.fs.unlink(ROOT, "a")
        await write_file(w.fs, ROOT, "b", b"same")
        await w.fs.rename(ROOT, "b", ROOT, "a", 0)
        await w.fs.release(handle)
        assert w.parts.journal.deletes() == []
        assert w.parts.manager.primary.get("a").read_all() == b"same"


@pytest.mark.parametrize("taken_by", ["create", "mkdir", "symlink", "rename", "move"])
@pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])
async def test_W8_an_open_file_is_read_on_after_its_name_is_taken_anew(tmp_path, objects, taken_by):
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        await write_file(w.fs, ROOT, "other", b"new")
        await w.fs.make_directory(ROOT, "d", 0o755, ME)
        h = await open_file(w, "a")
        if taken_by != "rename":
            await w.fs.unlink(ROOT, "a")
        match taken_by:
            case "create":
                await write_file(w.fs, ROOT, "a", b"new")
            case "mkdir":
                await w.fs.make_directory(ROOT, "a", 0o755, ME)
            case "symlink":
                await w.fs.symlink(ROOT, "a", "t", ME)
            case "rename":
                await w.fs.rename(ROOT, "other", ROOT, "a", 0)
            case "move":
                await w.fs.rename(ROOT, "d", ROOT, "a", 0)
        assert bytes(await w.fs.read(h, 0, 9)) == b"old"
        await w.fs.release(h)
        assert "a" in await names(w.fs)
        assert w.parts.journal.deletes() == []


@pytest.mark.parametrize("elsewhere", [b"another", None])
async def test_R2_W5_a_file_emptied_and_written_after_it_was_changed_elsewhere_is_what_its_name_shows(
    tmp_path, elsewhere
):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        primary = w.parts.manager.primary
        await write_file(w.fs, ROOT, "a", b"one")
        handle = await open_file(w, "a", os.O_RDWR)
        number = (await w.fs.lookup(ROOT, "a")).number
        if elsewhere is None:
            primary.delete("a")
        else:
            primary.put("a", elsewhere)
        with pytest.raises(OSError):
            await w.fs.open(number, os.O_RDONLY | os.O_DIRECT)
        await names(w.fs)
        await w.fs.set_attributes(number, Change(size=0), by_handle=True)
        await w.fs.write(handle, 0, b"mine")
        await w.fs.flush(handle)  # replaced as a whole: the last writer wins
        assert primary.get("a").read_all() == b"mine"
        assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"mine"
        await w.fs.release(handle)
        assert await names(w.fs) == ["a"]


async def test_W7_R2_a_rename_that_failed_after_its_copy_leaves_nobody_with_what_the_target_was(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"one")
        await write_file(w.fs, ROOT, "b", b"other")
        assert await names(w.fs) == ["a", "b"]
        manager, journal = w.parts.manager, w.parts.journal
        for wish in journal.claim(10):
            bring_up_to_date(manager, wish.replica, wish.key)
            journal.finish(wish)
        store = Scripted(manager.primary)
        store.on("delete", StoreUnavailableError("no answer", store=store.profile), times=1)
        object.__setattr__(manager.primary_source, "provider", store)
        for target in ("b", "c"):
            w.outdated.clear()
            with pytest.raises(OSError, match="no answer"):
                await w.fs.rename(ROOT, "a", ROOT, target, 0)
            store.on("delete", StoreUnavailableError("no answer", store=store.profile), times=1)
            assert journal.is_behind("near", target)
            assert w.outdated == [(ROOT, target)]
            assert await read_file(w.fs, (await w.fs.lookup(ROOT, target)).number) == b"one"


async def test_W7_R2_what_is_not_sent_yet_keeps_its_name_when_a_rename_onto_it_fails(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"one")
        handle, _, made = await w.fs.create(ROOT, "b", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"unsent")
        store = Scripted(w.parts.manager.primary)
        store.on("delete", StoreUnavailableError("no answer", store=store.profile), times=1)
        object.__setattr__(w.parts.manager.primary_source, "provider", store)
        with pytest.raises(OSError, match="no answer"):
            await w.fs.rename(ROOT, "a", ROOT, "b", 0)
        assert await names(w.fs) == ["a", "b"]
        assert (await w.fs.lookup(ROOT, "b")).number == made.number
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert await read_file(w.fs, made.number) == b"unsent"


async def test_R2_a_truncate_that_cannot_be_does_not_hide_later_changes(tmp_path, autojump_clock):
    async with world(tmp_path, objects=True, metadata_ttl=1) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        number = (await w.fs.lookup(ROOT, "a")).number
        with pytest.raises(OSError) as error:
            await w.fs.set_attributes(number, Change(size=1 << 62))
        assert error.value.errno == errno.EFBIG
        w.parts.manager.primary.put("a", b"changed elsewhere")
        await trio.sleep(2)
        assert (await w.fs.lookup(ROOT, "a")).size == 17


@pytest.mark.parametrize("lost_by", ["unlink", "rename"])
async def test_W8_nobody_opens_a_file_whose_object_is_about_to_go(tmp_path, lost_by):
    """He would be told ESTALE when he reads. At open() it has the kernel look the name up again."""
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        await write_file(w.fs, ROOT, "b", b"new")
        number = (await w.fs.lookup(ROOT, "a")).number
        held, go_on = trio.Event(), trio.Event()
        real = w.fs._run_blocking

        async def slow(call, *arguments):
            if call in {delete_object, w.fs._rename_object}:
                held.set()
                await go_on.wait()
            return await real(call, *arguments)

        async def opens() -> None:
            with pytest.raises(OSError) as error:
                await w.fs.open(number, os.O_RDONLY)
            assert error.value.errno == errno.ESTALE

        w.fs._run_blocking = slow
        lose = w.fs.unlink(ROOT, "a") if lost_by == "unlink" else w.fs.rename(ROOT, "b", ROOT, "a", 0)
        async with trio.open_nursery() as nursery:

            async def lost() -> None:
                await lose

            nursery.start_soon(lost)
            await held.wait()
            nursery.start_soon(opens)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
        if lost_by == "rename":
            assert await read_file(w.fs, (await w.fs.lookup(ROOT, "a")).number) == b"new"


async def test_W8_a_file_whose_unlink_fails_is_opened_by_who_waited(tmp_path):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        number = (await w.fs.lookup(ROOT, "a")).number
        held, go_on = trio.Event(), trio.Event()
        real = w.fs._run_blocking

        async def fails(call, *arguments):
            if call == delete_object:
                held.set()
                await go_on.wait()
                raise StoreUnavailableError("no answer")
            return await real(call, *arguments)

        async def unlink() -> None:
            with pytest.raises(OSError, match="no answer"):
                await w.fs.unlink(ROOT, "a")

        async def reads() -> None:
            assert await read_file(w.fs, number) == b"old"

        w.fs._run_blocking = fails
        async with trio.open_nursery() as nursery:
            nursery.start_soon(unlink)
            await held.wait()
            nursery.start_soon(reads)
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()


@pytest.mark.parametrize("lost_by", ["unlink", "rename", "rename over it"])
@pytest.mark.parametrize("is_theirs", [False, True])
async def test_W8_an_object_whose_upload_got_no_answer_goes_with_its_name(tmp_path, lost_by, is_theirs):
    """But not what another host made under the name."""
    async with world(tmp_path, objects=True, metadata_ttl=0) as w:
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"data")
        real = w.transport.upload

        async def unanswered(*arguments, **named):
            await real(*arguments, **named)
            raise StoreTimeoutError("no answer", store="data")

        w.transport.upload = unanswered
        with pytest.raises(OSError, match="no answer"):
            await w.fs.fsync(handle)
        w.transport.upload = real
        if is_theirs:
            w.parts.manager.primary.put("a", b"theirs")
        handles = [handle]
        if lost_by == "unlink":
            await w.fs.unlink(ROOT, "a")
        elif lost_by == "rename":
            await w.fs.rename(ROOT, "a", ROOT, "b", 0)
        else:
            handles.append((await w.fs.create(ROOT, "b", 0o644, os.O_WRONLY, ME))[0])
            await w.fs.rename(ROOT, "b", ROOT, "a", 0)
            await w.fs.unlink(ROOT, "a")
        for one in handles:
            await w.fs.flush(one)
            await w.fs.release(one)
        expected = {"a": b"theirs"} if is_theirs else {}
        if lost_by == "rename":
            expected["b"] = b"data"
        primary = w.parts.manager.primary
        assert {entry.key: primary.get(entry.key).read_all() for entry in primary.list()} == expected


async def test_W8_what_is_removed_during_a_listing_stays_away_however_much_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("mscfs.vfs.namespace.REMEMBERED_REMOVALS", 4)
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        for name in "abcdef":
            await write_file(w.fs, ROOT, name, b"x")
        pages = list(w.parts.manager.primary.list_pages(""))
        held, go_on = trio.Event(), trio.Event()

        async def slow(_: str, on_page, **__: object):
            held.set()
            await go_on.wait()
            for page in pages:
                on_page(page)
            return ()

        w.transport.list_directory = slow
        w.parts.namespace._begin(w.parts.namespace.table.root)
        await held.wait()
        for name in "abcdef":
            await w.fs.unlink(ROOT, name)
        go_on.set()
        await trio.testing.wait_all_tasks_blocked()
        assert await names(w.fs) == []


@pytest.mark.parametrize("theirs", [b"new", b"new and longer"])
@pytest.mark.parametrize("change", [Change(mode=0o600), Change(mtime_ns=1)], ids=["mode", "time"])
async def test_W5_R1_attributes_set_on_what_was_replaced_elsewhere_make_it_nobody_s_own(tmp_path, theirs, change):
    """Neither do our pages pass for its content, nor do staged changes of the old content for changes of it."""
    async with world(tmp_path, metadata_ttl=60) as w:
        await write_file(w.fs, ROOT, "a", b"old")
        number = (await w.fs.lookup(ROOT, "a")).number
        handle, _ = await w.fs.open(number, os.O_RDONLY)
        await w.fs.release(handle)
        put(w.store("primary") / "a", theirs)
        assert (await w.fs.set_attributes(number, change)).size == len(theirs)
        handle, keep = await w.fs.open(number, os.O_RDWR)
        assert not keep
        await w.fs.write(handle, 0, b"N")
        await w.fs.fsync(handle)
        put(w.store("primary") / "a", theirs)
        with pytest.raises(OSError) as error:
            await w.fs.set_attributes(number, change)
        assert error.value.errno == errno.ESTALE  # the kernel looks it up again
        await w.fs.write(handle, 0, b"MINE")
        with pytest.raises(OSError) as error:
            await w.fs.flush(handle)
        assert error.value.errno == errno.ESTALE
        await w.fs.release(handle)
        assert (w.store("primary") / "a").read_bytes() == theirs


async def test_W5_a_file_replaced_elsewhere_as_soon_as_it_was_sent_is_not_taken_for_ours(tmp_path):
    async with world(tmp_path, metadata_ttl=0) as w:
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_RDWR, ME)
        await w.fs.write(handle, 0, b"ours")
        real = w.transport.upload

        async def upload(*arguments, **named):
            written = await real(*arguments, **named)
            put(w.store("primary") / "a", b"theirs")
            return written

        w.transport.upload = upload
        await w.fs.flush(handle)
        w.transport.upload = real
        await w.fs.write(handle, 0, b"O")
        with pytest.raises(OSError) as error:
            await w.fs.flush(handle)
        assert error.value.errno == errno.ESTALE
        assert (w.store("primary") / "a").read_bytes() == b"theirs"
