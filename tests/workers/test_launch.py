"""Worker processes that are forked from a process which has loaded everything."""

import json
import os
import signal
import subprocess
import sys

import pytest

DAEMON = """
import json
import os
import re
import signal
import sys
from pathlib import Path

import trio

from mscfs.cache.arena import SharedMemory
from mscfs.workers.launch import fork
from tests.workers.stores import DirectoryStore
from tests.workers.test_pool import at, fetch, make_pool

CONTENT = b"content" * 100


def described(pid):
    process = Path(f"/proc/{pid}")
    return {
        "pid": pid,
        "session": os.getsid(pid),
        "name": (process / "comm").read_text().strip(),
        "is_forked": (process / "cmdline").read_bytes() == Path("/proc/self/cmdline").read_bytes(),
        "descriptors": {entry.name: str(entry.readlink()) for entry in (process / "fd").iterdir()},
        "ignored": int(re.search(r"SigIgn:\\s+(\\w+)", (process / "status").read_text())[1], 16),
    }


async def main(store, memory, launched):
    pool = make_pool(store, None, memory, launched=launched)
    version = store.put("a", [CONTENT]).version
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        workers = [*pool.fetchers.workers, *pool.transfers.workers]
        first = [described(worker.process_id) for worker in workers]
        await fetch(pool, "a", version)
        assert at(memory, 0, len(CONTENT)) == CONTENT
        os.kill(workers[0].process_id, signal.SIGKILL)
        await fetch(pool, "a", version, target=1 << 19)
        assert at(memory, 1 << 19, len(CONTENT)) == CONTENT
        second = described(workers[0].process_id)
        nursery.cancel_scope.cancel()
    print(json.dumps({"first": first, "second": second}))


memory = SharedMemory(1 << 20)
leaked = os.open("/dev/zero", os.O_RDONLY)
os.set_inheritable(leaked, True)
launched = [fork(memory), fork(memory)]
trio.run(main, DirectoryStore(Path(sys.argv[1])), memory, launched)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    directory = tmp_path_factory.mktemp("store")
    # Only workers that have ended let go of the output.
    done = subprocess.run(
        [sys.executable, "-c", DAEMON, directory],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=60,
    )
    return json.loads(done.stdout)


def test_forked_workers_serve_and_one_that_dies_is_replaced(told):
    assert [worker["name"] for worker in told["first"]] == ["mscfs-fetch", "mscfs-transfer"]
    assert [worker["is_forked"] for worker in told["first"]] == [True, True]
    assert (told["second"]["name"], told["second"]["is_forked"]) == ("mscfs-fetch", False)
    assert told["second"]["pid"] != told["first"][0]["pid"]


def test_L2_no_signal_to_a_terminal_or_a_service_ends_a_forked_worker(told):
    for worker in told["first"]:
        assert worker["session"] == worker["pid"]
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            assert worker["ignored"] >> (number - 1) & 1


def test_a_forked_worker_holds_nothing_of_the_daemon(told):
    # Another worker's socket would hide from that worker that the daemon is gone.
    for worker in told["first"]:
        names = sorted(name.partition(":")[0] for number, name in worker["descriptors"].items() if number not in "012")
        assert names == ["/memfd", "/memfd", "socket"]
        assert [worker["descriptors"][number] for number in "01"] == [os.devnull] * 2


GIVEN_UP = """
from mscfs.cache.arena import SharedMemory
from mscfs.workers.launch import fork

launched = fork(SharedMemory(1 << 20))
launched.connection.close()
"""


def test_a_daemon_that_gives_up_before_it_needs_its_workers_is_no_bug_of_theirs():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    # Its output ends with the worker.
    done = subprocess.run(
        [sys.executable, "-c", GIVEN_UP], capture_output=True, env=environment, check=True, timeout=60
    )
    assert done.stderr == b""
