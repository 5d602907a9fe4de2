"""The primary is down and comes back: R8, with R4 and W4, without a kernel."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from mscfs.errors import NoSpaceError
from mscfs.replicas.step import bring_up_to_date
from mscfs.vfs.filesystem import SPACE_TIMEOUT
from mscfs.vfs.inodes import ROOT
from tests.vfs.inline import world
from tests.vfs.outages import switch
from tests.vfs.test_listings import fill
from tests.vfs.test_names import ME, names, put, read_file, walk, write_file

KINDS = pytest.mark.parametrize("objects", [False, True], ids=["file", "objects"])
NOTICED = pytest.mark.parametrize("known", [False, True], ids=["first question", "noticed"])


async def replicate(w) -> None:
    """Carry out all wishes."""
    for claimed in w.parts.journal.claim(1000):
        bring_up_to_date(w.parts.manager, claimed.replica, claimed.key, delete=False)
        w.parts.journal.finish(claimed)


async def written(w, *paths: str) -> None:
    """Files of their own name as content, on all stores; what was told of them is on disk."""
    for path in paths:
        directory, _, name = path.rpartition("/")
        parent = (await walk(w.fs, directory)).number if directory else ROOT
        await write_file(w.fs, parent, name, path.encode())
    await replicate(w)
    await w.parts.recorder.write()


async def content(w, path: str) -> bytes:
    return await read_file(w.fs, (await walk(w.fs, path)).number)


@KINDS
@NOTICED
async def test_R8_what_is_in_memory_goes_on_at_any_age(tmp_path, autojump_clock, objects, known):
    async with world(tmp_path, objects=objects, metadata_ttl=10) as w:
        await w.fs.make_directory(ROOT, "d", 0o755, ME)
        await written(w, "a", "d/b")
        w.parts.manager.primary.put("only-here", b"never replicated")
        assert await names(w.fs) == ["a", "d", "only-here"]
        switch(w, on=False, known=known)
        await trio.sleep(1000)
        for _ in range(5):
            assert sorted(await names(w.fs)) == ["a", "d", "only-here"]
            assert (await walk(w.fs, "only-here")).size == 16
            assert await content(w, "a") == b"a"
            assert await content(w, "d/b") == b"d/b"
            with pytest.raises(FileNotFoundError):
                await walk(w.fs, "absent")
        timeout = (await walk(w.fs, "a")).timeout
        assert timeout <= 5 if known else timeout <= 10
        with pytest.raises(OSError) as error:
            await content(w, "only-here")
        assert error.value.errno == errno.EIO


@NOTICED
async def test_R8_the_room_of_the_primary_is_what_it_told_last(tmp_path, known):
    async with world(tmp_path) as w:
        room = await w.fs.space()
        assert room is not None
        switch(w, on=False, known=known)
        assert await w.fs.space() == room


async def test_R8_nobody_waits_long_for_the_room_of_a_primary_that_is_silent(tmp_path, autojump_clock):
    async def never(*_):
        await trio.sleep_forever()

    async with world(tmp_path) as w:
        w.fs._run_blocking = never
        assert await w.fs.space() is None
        assert trio.current_time() <= SPACE_TIMEOUT


@KINDS
@NOTICED
async def test_R8_R4_a_remount_goes_on_from_what_the_primary_last_told(tmp_path, autojump_clock, objects, known):
    async with world(tmp_path, objects=objects) as w:
        await w.fs.make_directory(ROOT, "d", 0o755, ME)
        await written(w, "a", "old", "gone", "d/b")
        assert await names(w.fs) == ["a", "d", "gone", "old"]
        # Changed since it was listed, and the replicas have not heard of it.
        await write_file(w.fs, ROOT, "old", b"new content")
        await write_file(w.fs, ROOT, "made", b"made later")
        await w.fs.unlink(ROOT, "gone")
        await w.parts.recorder.write()
    async with world(tmp_path, objects=objects) as w:
        switch(w, on=False, known=known)
        assert sorted(await names(w.fs)) == ["a", "d", "made", "old"]
        assert (await walk(w.fs, "old")).size == 11
        assert (await walk(w.fs, "made")).size == 10
        assert await content(w, "a") == b"a"
        assert await content(w, "d/b") == b"d/b"
        for path in ("old", "made"):
            with pytest.raises(OSError) as error:
                await content(w, path)  # the replicas' copies are of another version
            assert error.value.errno == errno.EIO
        for path in ("gone", "absent"):
            with pytest.raises(FileNotFoundError):
                await walk(w.fs, path)


@KINDS
async def test_R8_a_lookup_alone_goes_on_after_a_remount(tmp_path, autojump_clock, objects):
    async with world(tmp_path, objects=objects) as w:
        await written(w, "a", "b")
        await w.fs.unlink(ROOT, "b")
        await w.parts.recorder.write()
    async with world(tmp_path, objects=objects) as w:
        store = switch(w, on=False, known=True)
        assert await content(w, "a") == b"a"
        with pytest.raises(FileNotFoundError):
            await walk(w.fs, "b")
        assert store.asked == 0


@KINDS
async def test_R8_what_was_never_told_comes_from_a_replica_and_is_not_kept(tmp_path, autojump_clock, objects):
    async with world(tmp_path, objects=objects, metadata_ttl=10) as w:
        near = w.parts.manager.replicas[0].provider
        near.put("x", b"on near")
        near.put("e/y", b"below")
        switch(w, on=False, known=True)
        assert sorted(await names(w.fs)) == ["e", "x"]
        assert await content(w, "x") == b"on near"
        assert await content(w, "e/y") == b"below"
        w.parts.manager.replicas[1].provider.put("far-only", b"on far")
        assert await content(w, "far-only") == b"on far"
        with pytest.raises(FileNotFoundError):
            await walk(w.fs, "nowhere")
        store = switch(w)
        store.inner.put("p", b"on the primary")
        assert await names(w.fs) == ["p"]
        with pytest.raises(FileNotFoundError):
            await walk(w.fs, "x")
        await w.parts.recorder.write()
    async with world(tmp_path, objects=objects, metadata_ttl=10) as w:
        switch(w, on=False, known=True)
        assert await names(w.fs) == ["p"]


@KINDS
@pytest.mark.parametrize("lost", [1, 2])
async def test_R8_an_answer_that_got_lost_is_no_outage(tmp_path, autojump_clock, objects, lost):
    async with world(tmp_path, objects=objects, metadata_ttl=0) as w:
        await written(w, "known")
        assert await names(w.fs) == ["known"]
        await w.parts.recorder.write()
        w.parts.manager.primary.put("of another host", b"new")
        store = switch(w)
        store.lost = lost
        assert (await walk(w.fs, "of another host")).size == 3, "what is known here lacks it"
        store.lost = lost
        assert sorted(await names(w.fs)) == ["known", "of another host"]
        assert store.asked == 2 * lost


async def test_R8_a_primary_that_answers_some_questions_is_not_contradicted(tmp_path, autojump_clock):
    async with world(tmp_path, metadata_ttl=0) as w:
        await written(w, "known")
        assert await names(w.fs) == ["known"]
        w.parts.manager.primary.put("of another host", b"new")
        switch(w).lost = 100
        health = w.parts.manager.primary_source.health
        w.parts.manager.primary_source.on_failure = lambda error: health.succeeded()
        for name in ("of another host", "absent"):
            with pytest.raises(OSError, match="no answer") as failure:
                await walk(w.fs, name)
            assert failure.value.errno == errno.EIO
        assert (await walk(w.fs, "known")).size == 5


async def test_R8_nobody_can_tell_is_an_error_and_not_a_missing_file(tmp_path):
    async with world(tmp_path) as w:
        switch(w, on=False, known=True)
        for name in ("near", "far"):
            w.store(name).rename(tmp_path / f"{name}-away")
        with pytest.raises(OSError) as error:
            await walk(w.fs, "a")
        assert error.value.errno == errno.EIO
    async with world(tmp_path, replicas=False) as w:
        switch(w, on=False, known=True)
        with pytest.raises(OSError) as error:
            await walk(w.fs, "a")
        assert error.value.errno == errno.EIO


@KINDS
async def test_R8_back_to_normal_at_once_and_without_a_remount(tmp_path, autojump_clock, objects):
    async with world(tmp_path, objects=objects, metadata_ttl=60) as w:
        await written(w, "a", "b")
        assert await names(w.fs) == ["a", "b"]
        store = switch(w, on=False, known=True)
        await trio.sleep(100)
        assert await names(w.fs) == ["a", "b"]
        handle, _ = await w.fs.open((await walk(w.fs, "a")).number, os.O_RDONLY)
        store.inner.put("a", b"changed elsewhere")
        store.inner.delete("b")
        store.inner.put("c", b"c")
        switch(w)
        assert await content(w, "a") == b"changed elsewhere"
        assert sorted(await names(w.fs)) == ["a", "c"]
        await w.fs.release(handle)
        await write_file(w.fs, ROOT, "d", b"d")
        assert store.inner.head("d").content_length == 1


@KINDS
@NOTICED
async def test_R8_W4_a_new_file_fails_at_close_and_is_brought_home_by_the_next_mount(
    tmp_path, autojump_clock, objects, known
):
    async with world(tmp_path, objects=objects) as w:
        await written(w, "known")
        assert await names(w.fs) == ["known"]
        switch(w, on=False, known=known)
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "new")
        handle, _, made = await w.fs.create(ROOT, "new", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"precious")
        with pytest.raises(OSError) as error:
            await w.fs.flush(handle)
        assert error.value.errno == errno.EIO
        await w.fs.release(handle)
        (upload,) = w.parts.journal.uploads()
        assert upload.staging.read_bytes() == b"precious"
        # What is nowhere but in the state directory is not shown as an empty file.
        with pytest.raises(FileNotFoundError):
            await w.fs.lookup(ROOT, "new")
        w.fs.forget(made.number, 1)
        assert await names(w.fs) == ["known"]
        with pytest.raises(OSError) as error:
            await w.fs.create(ROOT, "exclusive", 0o644, os.O_WRONLY | os.O_EXCL, ME)
        assert error.value.errno == errno.EIO


@KINDS
@pytest.mark.parametrize("lost_by", ["unlink", "rename"])
async def test_W4_W8_a_name_that_is_lost_takes_the_failed_upload_of_an_open_file_along(
    tmp_path, autojump_clock, objects, lost_by
):
    """A crash may come any time now, and nothing may go home under the name."""
    async with world(tmp_path, objects=objects) as w:
        assert await names(w.fs) == []
        switch(w, on=False, known=True)
        handle, _, _ = await w.fs.create(ROOT, "a", 0o644, os.O_WRONLY, ME)
        with pytest.raises(OSError) as error:
            await w.fs.flush(handle)
        assert error.value.errno == errno.EIO
        assert [upload.key for upload in w.parts.journal.uploads()] == ["a"]
        if lost_by == "unlink":
            await w.fs.unlink(ROOT, "a")
        else:
            other, _, _ = await w.fs.create(ROOT, "b", 0o644, os.O_WRONLY, ME)
            await w.fs.rename(ROOT, "b", ROOT, "a", 0)
        assert w.parts.journal.uploads() == []
        await w.fs.release(handle)
        assert w.parts.journal.uploads() == []
        if lost_by == "rename":
            with pytest.raises(OSError):
                await w.fs.flush(other)
            assert [upload.key for upload in w.parts.journal.uploads()] == ["a"]


@KINDS
async def test_R8_a_file_written_in_place_keeps_its_content_and_the_name_shows_the_old(
    tmp_path, autojump_clock, objects
):
    async with world(tmp_path, objects=objects) as w:
        await written(w, "a")
        switch(w, on=False, known=True)
        handle, _ = await w.fs.open((await walk(w.fs, "a")).number, os.O_RDWR)
        await w.fs.write(handle, 1, b"bc")
        with pytest.raises(OSError):
            await w.fs.flush(handle)
        await w.fs.release(handle)
        (upload,) = w.parts.journal.uploads()
        assert (upload.staging.read_bytes(), upload.mode, upload.problem) == (b"abc", "update", "")
        assert await content(w, "a") == b"a"


async def test_R8_W1_in_a_lasting_outage_no_change_waits_for_the_primary(tmp_path, autojump_clock):
    """Each of a thousand files that are copied would wait for retries and time-outs of its own."""
    async with world(tmp_path, objects=True) as w:
        await w.fs.make_directory(ROOT, "d", 0o755, ME)
        await written(w, "a")
        assert sorted(await names(w.fs)) == ["a", "d"]
        store = switch(w, on=False, known=True)
        health = w.parts.manager.primary_source.health
        began = health._clock()
        asked = store.asked

        async def change_everything() -> None:
            calls = [
                lambda: w.fs.create(ROOT, "x", 0o644, os.O_WRONLY | os.O_EXCL, ME),
                lambda: w.fs.make_directory(ROOT, "e", 0o755, ME),
                lambda: w.fs.symlink(ROOT, "l", "a", ME),
                lambda: w.fs.unlink(ROOT, "a"),
                lambda: w.fs.remove_directory(ROOT, "d"),
                lambda: w.fs.rename(ROOT, "a", ROOT, "b", 0),
                lambda: w.fs.rename(ROOT, "d", ROOT, "e", 0),
                lambda: write_file(w.fs, ROOT, "new", b"precious"),
            ]
            for call in calls:
                with pytest.raises(OSError) as error:
                    await call()
                assert error.value.errno == errno.EIO

        # A moment may pass, and a change is worth a try; an hour later it is not.
        await change_everything()
        assert store.asked > asked
        asked = store.asked
        health._clock = lambda: began + 3600
        await change_everything()
        assert store.asked == asked
        handle, _, _ = await w.fs.create(ROOT, "local", 0o644, os.O_WRONLY, ME)
        await w.fs.write(handle, 0, b"precious")
        await w.fs.rename(ROOT, "local", ROOT, "elsewhere", 0)  # nobody has to be asked
        with pytest.raises(OSError, match="it is down"):
            await w.fs.flush(handle)
        assert "elsewhere" in {upload.key for upload in w.parts.journal.uploads()}
        switch(w, on=True)
        await w.fs.flush(handle)
        await w.fs.release(handle)
        assert await content(w, "elsewhere") == b"precious"


async def test_R8_a_listing_that_breaks_off_is_completed_from_what_is_known(tmp_path, autojump_clock):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 2500)
        assert len(await names(w.fs)) == 2500
        await trio.sleep(100)
        store = switch(w)
        store.inner.delete("00001")
        store.only_after = 1
        found = await names(w.fs)
        assert (len(found), len(set(found))) == (2500, 2500)
        store.only_after = 0
        assert len(await names(w.fs)) == 2499


async def test_R8_after_a_listing_that_was_given_up_the_last_one_goes_on_with_what_came_since(
    tmp_path, autojump_clock, monkeypatch
):
    async with world(tmp_path, objects=True, metadata_ttl=60) as w:
        fill(w, "", 2500)
        assert len(await names(w.fs)) == 2500
        await trio.sleep(61)
        w.parts.manager.primary.put("00000-told-of", b"by the page that came")
        monkeypatch.setattr("mscfs.vfs.listings.UNWANTED_PAGES", 1)
        given_up = w.parts.namespace._begin(w.parts.namespace.table.root)
        await given_up.end()
        assert not given_up.is_complete
        switch(w, on=False, known=True)
        handle, _, _ = await w.fs.create(ROOT, "made here", 0o644, os.O_WRONLY, ME)
        listed = await names(w.fs)
        assert len(listed) == len(set(listed)) == 2502
        assert {"00000-told-of", "made here", "02499"} <= set(listed)
        await w.fs.release(handle)


@KINDS
async def test_R8_what_was_moved_away_is_not_told_from_the_disk(tmp_path, objects):
    """Another host makes a directory of that name again, which this one has not looked into when it is mounted anew."""
    async with world(tmp_path, objects=objects) as w:
        for directory in ("d", "d/e"):
            above, _, name = directory.rpartition("/")
            await w.fs.make_directory((await walk(w.fs, above)).number if above else ROOT, name, 0o755, ME)
        await written(w, "d/e/old")
        assert await names(w.fs, (await walk(w.fs, "d/e")).number) == ["old"]
        await w.fs.rename(ROOT, "d", ROOT, "moved", 0)
        w.parts.manager.primary.put("d/e/new", b"new")
        for store in w.parts.manager.replicas:
            store.provider.put("d/e/new", b"new")
        assert await names(w.fs, (await walk(w.fs, "d")).number) == ["e"]
        await w.parts.recorder.write()
    async with world(tmp_path, objects=objects) as w:
        switch(w, on=False, known=True)
        assert "new" in await names(w.fs, (await walk(w.fs, "d/e")).number)


async def test_R8_a_listing_of_replicas_shows_a_directory_where_both_are(tmp_path):
    async with world(tmp_path, objects=True) as w:
        near = w.parts.manager.replicas[0].provider
        near.put("a", b"object")
        near.put("a/b", b"below")
        switch(w, on=False, known=True)
        assert await names(w.fs) == ["a"]
        assert await content(w, "a/b") == b"below"


async def test_R8_a_damaged_file_of_names_is_not_used(tmp_path, caplog):
    async with world(tmp_path) as w:
        await written(w, "a")
        path = w.parts.journal.path.with_name("names.db")
    path.write_bytes(b"rubbish" * 1000)
    put(tmp_path / "near" / "b", b"b")
    async with world(tmp_path) as w:
        assert "is not kept" in caplog.text
        switch(w, on=False, known=True)
        assert sorted(await names(w.fs)) == ["a", "b"]


async def test_R8_a_disk_that_cannot_keep_names_harms_nobody_and_leaves_no_half_truth(tmp_path, caplog, monkeypatch):
    async with world(tmp_path) as w:
        await written(w, "a")
        assert await names(w.fs) == ["a"]
        await w.parts.recorder.write()
        known = w.parts.recorder._last_known

        def fail(*_: object) -> None:
            raise NoSpaceError("full")

        monkeypatch.setattr(known, "record", fail)
        await written(w, "b", "c")
        assert caplog.text.count("is not kept") == 1
        monkeypatch.undo()
        assert not w.parts.recorder.knows("")
        assert known.read("") is None
        assert await content(w, "b") == b"b"
