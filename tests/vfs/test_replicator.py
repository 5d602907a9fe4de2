"""The uploader tasks: when they try again."""

import logging
from itertools import pairwise

import trio

from mscfs.errors import NoSpaceError, StorageError, StoreUnavailableError
from mscfs.journal import Wish
from tests.vfs.inline import world

OBJECTS = 40


async def drain(w, seconds):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(w.parts.replicator.run)
        left = await w.parts.replicator.drain(seconds)
        nursery.cancel_scope.cancel()
    return left


async def test_W2_a_drain_tries_at_once_what_waits_and_again_and_again_with_rests(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        for number in range(OBJECTS):
            (w.store("primary") / f"o{number}").write_bytes(b"data")
        (w.store("primary") / "a").mkdir()
        (w.store("primary") / "a" / "b").write_bytes(b"data")
        (w.store("near") / "a").write_bytes(b"in the way of a directory")
        w.parts.journal.wish([Wish("near", key, "back-fill") for key in ("a/b", *(f"o{n}" for n in range(OBJECTS)))])
        for wish in w.parts.journal.claim(OBJECTS + 1):
            w.parts.journal.postpone(wish, "for minutes")
        tried = []

        async def note(*what):
            tried.append((trio.current_time(), what))

        w.transport.before = note
        began = trio.current_time()
        assert await drain(w, 40) == 1
        assert w.parts.replicator.hopeless(began) == 1
        assert all((w.store("near") / f"o{number}").exists() for number in range(OBJECTS))
        good = [time for time, what in tried if "a/b" not in what]
        assert (len(good), max(good) - began < 1) == (OBJECTS, True)
        bad = [time for time, what in tried if "a/b" in what]
        assert 20 < len(bad) < 60  # somebody waits, and nothing is hammered at
        assert max(later - earlier for earlier, later in pairwise(bad)) < 6
        (w.store("near") / "a").unlink()
        assert w.parts.replicator.hopeless(trio.current_time() + 1) == 0  # what failed before somebody mended it
        assert await drain(w, 120) == 0
        assert w.parts.replicator.hopeless(began) == 0
        assert (w.store("near") / "a" / "b").exists()


async def test_W2_a_replica_that_is_full_is_left_alone_for_longer_and_longer(tmp_path, autojump_clock, caplog):
    caplog.set_level(logging.INFO, "mscfs.vfs.rests")
    async with world(tmp_path) as w:
        keys = [f"o{number}" for number in range(10 * OBJECTS)]
        for key in keys:
            (w.store("primary") / key).write_bytes(b"data")
        w.parts.journal.wish([Wish(name, key, "back-fill") for name in ("near", "far") for key in keys])
        is_full, tried = True, 0

        async def fill(what, profile, _):
            nonlocal tried
            if what == "step" and profile == "near" and is_full:
                tried += 1
                raise NoSpaceError("No space left on device", store="near")

        w.transport.before = fill
        async with trio.open_nursery() as nursery:
            nursery.start_soon(w.parts.replicator.run)
            await trio.sleep(200)
            assert all((w.store("far") / key).exists() for key in keys)
            assert 40 < tried < 100
            told = "the replica near takes nothing, it is tried again and again: No space left on device"
            assert caplog.messages == [told]
            is_full = False
            await trio.sleep(70)
            # What was tried has pauses of its own, by the clock on the wall.
            assert sum((w.store("near") / key).exists() for key in keys) >= len(keys) - tried
            assert caplog.messages == [told, "the replica near takes copies again"]
            nursery.cancel_scope.cancel()


async def test_a_store_in_trouble_does_not_write_a_line_for_each_try(tmp_path, autojump_clock, caplog):
    caplog.set_level(logging.INFO, "mscfs")
    async with world(tmp_path) as w:
        keys = [f"o{number}" for number in range(OBJECTS)]
        for key in (*keys, "a"):
            (w.store("primary") / key).write_bytes(b"data")
        w.parts.journal.wish([Wish("near", key, "back-fill") for key in (*keys, "a")])
        tried = []

        async def flicker(what, _, key):
            if what == "step":
                tried.append(key)
                if key == "a":
                    raise StorageError("its name is too long", store="near")
                raise StoreUnavailableError("no answer", store="near")

        w.transport.before = flicker
        began = trio.current_time()
        await drain(w, 30)
        assert w.parts.replicator.hopeless(began) == 1  # a store that does not answer is waited for
        told = [record.getMessage() for record in caplog.records if "is tried again" in record.getMessage()]
        assert len(tried) > 2 * OBJECTS
        assert [line for line in told if "no answer" in line] == []
        assert len([line for line in told if "too long" in line]) == tried.count("a") > 0


async def test_W2_a_failure_is_not_final_when_something_else_succeeded_meanwhile(tmp_path, autojump_clock):
    async with world(tmp_path) as w:
        for key in ("a", "b"):
            (w.store("primary") / key).write_bytes(b"data")
        w.parts.journal.wish([Wish("near", key, "back-fill") for key in ("a", "b")])

        async def fail_late(what, _, key):
            if what == "step" and key == "a":
                await trio.sleep(5)
                raise StorageError("something is in the way", store="near")

        w.transport.before = fail_late
        began = trio.current_time()
        assert await drain(w, 5.2) == 1
        assert w.parts.replicator.hopeless(began) == 0
        assert await drain(w, 30) == 1
        assert w.parts.replicator.hopeless(began) == 1
