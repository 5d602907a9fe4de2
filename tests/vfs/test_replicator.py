"""The uploader tasks while somebody drains."""

from itertools import pairwise

import trio

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
        assert all((w.store("near") / f"o{number}").exists() for number in range(OBJECTS))
        good = [time for time, what in tried if "a/b" not in what]
        assert (len(good), max(good) - began < 1) == (OBJECTS, True)
        bad = [time for time, what in tried if "a/b" in what]
        assert 20 < len(bad) < 60  # somebody waits, and nothing is hammered at
        assert max(later - earlier for earlier, later in pairwise(bad)) < 6
        (w.store("near") / "a").unlink()
        assert await drain(w, 120) == 0
        assert (w.store("near") / "a" / "b").exists()
