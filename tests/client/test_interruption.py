from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
import weakref

import pytest

from mscfs.client import interruption as module
from mscfs.client.interruption import Interruption
from mscfs.errors import StoreUnavailableError
from mscfs.types import ByteRange
from tests.client.stores import Gate

pytestmark = pytest.mark.usefixtures("no_background")


@pytest.fixture
def guarded(world):
    """An interruption, and stores under it that hold one object."""
    client = world.client()
    client.write("k", bytes(3 << 20))
    made = Interruption()
    return made, made.over(client.store)


def end_of_program(interruption):
    module._interrupt(interruption._steps, os.getpid())


def test_the_stores_are_the_same_until_the_end(world, guarded):
    interruption, store = guarded
    assert store.profile == "data"
    assert store.primary_source.health is world.clients[0].store.primary_source.health
    assert store.get("k", ByteRange(0, 3)).read_all() == bytes(3)
    assert [entry.key for entry in store.list()] == ["k"]
    assert not interruption.happened


def test_calls_pieces_and_listings_end_with_the_program(world, guarded):
    interruption, store = guarded
    world.clients[0].write("l", b"")
    entries = store.primary.list()
    next(entries)
    with store.get("k") as answer:
        pieces = iter(answer)
        next(pieces)
        end_of_program(interruption)
        with pytest.raises(StoreUnavailableError):
            next(pieces)
    with pytest.raises(StoreUnavailableError, match="ending"):
        next(entries)
    before = world.primary.calls["put"]
    with pytest.raises(StoreUnavailableError, match="ending"):
        store.primary.put("k", b"")
    assert world.primary.calls["put"] == before


def test_the_end_waits_for_a_call_under_way(guarded):
    interruption, _ = guarded
    gate = Gate()

    def step():
        with interruption.step():
            gate()

    thread = threading.Thread(target=step, daemon=True)
    thread.start()
    gate.wait_reached()
    ended = threading.Event()
    end = threading.Thread(target=lambda: (end_of_program(interruption), ended.set()), daemon=True)
    end.start()
    assert not ended.wait(0.1)
    gate.open()
    assert ended.wait(10)


def test_the_end_does_not_wait_for_ever(guarded, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.05)
    interruption, _ = guarded
    with interruption.step():
        begun = time.monotonic()
        end_of_program(interruption)
        assert time.monotonic() - begun < 5


def test_a_forked_child_does_not_wait_for_threads_it_does_not_have(guarded):
    interruption, _ = guarded
    with interruption.step(), interruption._steps.changed:
        child = os.fork()
        if child == 0:
            module._interrupt(interruption._steps, os.getppid())
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_an_interruption_keeps_no_store_alive(world):
    client = world.client()
    interruption = Interruption()
    store = weakref.ref(interruption.over(client.store).primary_source.provider)
    del interruption
    gc.collect()
    assert store() is None


PROGRAM = """
import sys, threading
from pathlib import Path
from tests.client.conftest import World
world = World(Path(sys.argv[1]))
reached = threading.Event()
world.near.before["put"] = lambda key: reached.set()
client = world.client()
for number in range(50):
    client.write(f"k{number}", bytes(4 << 20))
assert reached.wait(30)
print("left", flush=True)
"""


def test_a_program_ends_at_once_in_the_middle_of_its_copies(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout.readline() == b"left\n"
        begun = time.monotonic()
        assert program.wait(30) == 0
        assert time.monotonic() - begun < 10
        assert program.stderr.read() == b""
