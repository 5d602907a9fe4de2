"""The library in real processes: forked and spawned workers, and ends of every kind."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import pytest

from mscfs.client.client import StorageClient

SECONDS = 60


def replica(tmp_path, name, key):
    return tmp_path / "stores" / name / key


def read_and_write(client, number, queue):
    """What a data-loading worker does."""
    try:
        client.write(f"out/{number}", b"from a worker")
        with client.open("shared") as file:
            queue.put((number, client.read("shared"), file.read()))
    except BaseException as error:
        queue.put((number, repr(error), b""))
        raise


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_clients_work_in_worker_processes_while_threads_replicate(tmp_path, file_config, method):
    client = StorageClient(file_config())
    client.write("shared", b"content")
    stop = threading.Event()

    def keep_writing():
        number = 0
        while not stop.is_set():
            client.write(f"busy/{number}", bytes(1000))
            number += 1

    writers = [threading.Thread(target=keep_writing, daemon=True) for _ in range(3)]
    for writer in writers:
        writer.start()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    workers = []
    count = 12 if method == "fork" else 2
    for number in range(count):
        workers.append(context.Process(target=read_and_write, args=(client, number, queue), daemon=True))
        workers[-1].start()
    answers = [queue.get(timeout=SECONDS) for _ in workers]
    for worker in workers:
        worker.join(SECONDS)
        assert worker.exitcode == 0
    stop.set()
    for writer in writers:
        writer.join(SECONDS)
    assert sorted(answers) == [(number, b"content", b"content") for number in range(count)]
    assert client.drain(timeout=SECONDS).complete
    for number in range(count):
        assert replica(tmp_path, "near", f"out/{number}").read_bytes() == b"from a worker"


def test_a_file_opened_before_a_fork_is_read_in_the_child(file_config):
    client = StorageClient(file_config())
    client.write("k", bytes(range(256)) * 10_000)
    file = client.open("k")
    file.seek(1_000_000)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, file.read(256))
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        assert answer.read() == (bytes(range(256)) * 2)[64:320]
    os.waitpid(child, 0)


def test_a_pickled_client_works_in_a_fresh_interpreter(file_config):
    client = StorageClient(file_config())
    client.write("k", b"content")
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).read('k'))"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(client), capture_output=True, timeout=SECONDS, check=True
    )
    assert done.stdout == b"b'content'\n"


PROGRAM = """
import os, pickle, signal, sys, threading, time
from mscfs.client.replicator import Replicator
client = pickle.load(sys.stdin.buffer)
action, end = sys.argv[1:]
Replicator.wake = lambda self: None  # it dies before its threads could do anything
if action == "write":
    client.write("k", b"content")
elif action == "read":
    assert client.read("k") == b"content"
elif action == "large":
    assert len(client.read("large")) == 70 << 20
elif action == "worker":
    child = os.fork()
    if child == 0:
        client.write("k", b"content")
        os._exit(0)
    os.waitpid(child, 0)
if end == "sigterm":
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)
elif end == "sigkill":
    os.kill(os.getpid(), signal.SIGKILL)
elif end == "_exit":
    os._exit(0)
elif end == "exception":
    raise RuntimeError
"""


@pytest.mark.parametrize("end", ["normal", "exception", "_exit", "sigterm", "sigkill"])
@pytest.mark.parametrize("action", ["write", "read", "worker"])
def test_fault_06_W2_wishes_outlive_every_end_of_the_program(tmp_path, file_config, action, end):
    client = StorageClient(file_config())
    if action == "read":
        replica(tmp_path, "data", "k").write_bytes(b"content")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, action, end],
        input=pickle.dumps(client),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    expected = {"exception": 1, "sigterm": -signal.SIGTERM, "sigkill": -signal.SIGKILL}.get(end, 0)
    assert done.returncode == expected, done.stderr.decode()
    assert not replica(tmp_path, "near", "k").exists()
    assert client.drain(timeout=SECONDS).complete
    assert replica(tmp_path, "near", "k").read_bytes() == b"content"
    assert replica(tmp_path, "far", "k").read_bytes() == b"content"


def test_fault_06_a_large_back_fill_outlives_a_normal_exit_that_does_not_wait_for_it(tmp_path, file_config):
    client = StorageClient(file_config())
    with replica(tmp_path, "data", "large").open("wb") as file:
        file.truncate(70 << 20)
    begun = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", PROGRAM, "large", "normal"], input=pickle.dumps(client), timeout=SECONDS, check=True
    )
    assert time.monotonic() - begun < 20
    assert not replica(tmp_path, "near", "large").exists()
    assert client.drain(timeout=SECONDS).complete
    assert replica(tmp_path, "near", "large").stat().st_size == 70 << 20


STALLED = """
import sys, threading
from tests.client.test_processes import stalled_client
client, reached = stalled_client(sys.argv[1])
client.write("k", b"content")
assert reached.wait(30)
print("written", flush=True)
"""


def stalled_client(directory):
    """A client whose replica swallows a put and never answers."""
    from pathlib import Path

    from tests.client.conftest import World

    world = World(Path(directory))
    reached = threading.Event()

    def stall(_key):
        reached.set()
        time.sleep(3600)

    world.near.before["put"] = stall
    return world.client(), reached


def test_a_replica_that_does_not_answer_never_holds_up_the_end_of_the_program(tmp_path):
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", STALLED, str(tmp_path)], capture_output=True, timeout=SECONDS, check=True
    )
    assert done.stdout == b"written\n"
    assert time.monotonic() - begun < 20


def test_the_next_program_takes_up_what_the_last_one_left(tmp_path, file_config):
    client = StorageClient(file_config())
    subprocess.run(
        [sys.executable, "-c", PROGRAM, "write", "sigkill"], input=pickle.dumps(client), timeout=SECONDS, check=False
    )
    assert not replica(tmp_path, "near", "k").exists()
    client.is_file("unrelated")
    deadline = time.monotonic() + SECONDS
    while client.store.journal.pending():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert replica(tmp_path, "near", "k").read_bytes() == b"content"
    client.close()
