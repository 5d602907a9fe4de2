"""The kill test: the daemon dies at random moments under programs that write; nothing acknowledged may be lost.

    python -m tests.reliability.kill --cycles 500 [--primary s3] [--seed N]

A cycle: writers work (`writers`); at a random moment, or when one of them is in a chosen stage, the daemon is killed,
most times with its worker processes. Then the primary must hold no part of anything (W3), the next mount must
show everything acknowledged, and each interrupted call either done or not done (W4, W7, W8); after a drain each replica
holds all of it too (W2). At the end the cache is wiped and everything is read again from each store.
"""

from __future__ import annotations

import argparse
import errno
import math
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mscfs.config.load import load_config
from mscfs.providers.base import StorageProvider
from mscfs.store import open_store
from mscfs.telemetry import registry
from tests.emulators.s3 import running_ministack
from tests.fuse.mounting import (
    Mounted,
    file_store,
    is_running,
    unmount_whatever_is_left,
    wait_until,
    with_replicas,
    write_config,
)  # fmt: skip
from tests.reliability.places import own_directories
from tests.reliability.writers import DIRECTORY, Writer, digest_of

WRITERS = 4
REPLICAS = ("near", "far")
TRIGGERS = ["time", "time", "time", "stream", "close", "rename", "fsync", "unlink"]
"""When to kill: after a random time, or when a writer is in that stage."""
DEAD = {errno.ENOTCONN, errno.ECONNABORTED, errno.EIO, errno.ENODEV}
"""What a call is told whose daemon died."""
LOG_LINES = 200
"""Of the mounts' log, printed when something was lost."""
IDLE_SHARE = 20
"""Of so many cycles one may find all writers between two calls, as on a starved machine; it is made up for."""


@dataclass
class Figures:
    """What happened."""

    cycles: int = 0
    """Those that killed something under way."""
    idle: int = 0
    """Those that did not, and prove nothing."""
    operations: int = 0
    bytes: int = 0
    in_flight: Counter[str] = field(default_factory=Counter)
    """Calls that had not returned when the daemon was killed, by stage."""
    done: int = 0
    """Of them, those that the next mount had carried out."""
    workers_killed: int = 0
    """Worker processes killed alone, under a daemon that went on."""
    checked: int = 0
    """Contents compared with what was acknowledged, on mounts and on stores."""
    losses: list[str] = field(default_factory=list)


class KillTest:
    """Cycles over one set of stores below `root`. Losses are gathered, not raised."""

    def __init__(self, root: Path, primary: dict[str, Any], seed: int) -> None:
        profiles = {
            "data": with_replicas({**primary, "caching_enabled": True}, *REPLICAS, metadata_ttl=0),
            **{name: file_store(root / name) for name in REPLICAS},
        }
        write_config(root, {**profiles, "alone": primary})
        self.figures = Figures()
        self.mounted = Mounted(root)
        self._random = random.Random(seed)
        self._seed = seed
        self._writers = [
            Writer(f"writer-{number}", f"{seed}-0-{number}", writes_large=number < 2) for number in range(WRITERS)
        ]

    def begin(self) -> None:
        """Mount, and make a directory for each writer."""
        self.mounted.mount()
        for writer in self._writers:
            (self.mounted.path / writer.directory).mkdir()

    def cycle(self, *, drain: bool) -> None:
        """Write, kill, mount again, look. It is mounted before and after."""
        figures, mounted = self.figures, self.mounted
        turn = figures.cycles + figures.idle
        self._writers = [
            writer.successor(f"{self._seed}-{turn}-{number}") for number, writer in enumerate(self._writers)
        ]
        for writer in self._writers:
            writer.begin(mounted.path)
        mount = registry.find(mounted.path.resolve())
        assert mount is not None
        self._kill(mount.pid)
        with _each_key(self.mounted.config, "alone") as objects:
            self._check_no_parts(objects)
        mounted.mount()
        wait_until(lambda: not mounted.status()["journal"]["recovering"], 60)
        self._check_mount()
        if drain:
            mounted.drain()
            for name in REPLICAS:
                self._check_store(name)

    def read_from_each_store(self) -> None:
        """The cache is wiped and the replicas but one are away: what is read comes from it, or from the primary."""
        mounted = self.mounted
        mounted.drain()
        mounted.umount()
        for left in (*REPLICAS, "data"):
            shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]) / "mscfs")
            away = [name for name in REPLICAS if name != left]
            for name in away:
                mounted.store(name).rename(mounted.store(f"{name}-away"))
            try:
                mounted.mount()
                self._check_mount()
                status = mounted.status()
                served = {store["profile"] for store in (status["primary"], *status["replicas"]) if store["hits"]}
                assert served == {left}, f"{left} was to be read, and {served} served"
                mounted.umount()
            finally:
                for name in away:
                    mounted.store(f"{name}-away").rename(mounted.store(name))
        for name in ("alone", *REPLICAS):
            self._check_store(name)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _kill(self, daemon: int) -> None:
        """Wait for the moment, and kill."""
        figures, chance = self.figures, self._random
        trigger = chance.choice(TRIGGERS)
        if chance.random() < 0.3:
            time.sleep(chance.uniform(0.05, 0.2))
            figures.workers_killed += _kill_one_worker(daemon, chance)
        if trigger == "time":
            wait_until(lambda: any(writer.operations for writer in self._writers), 60)
            time.sleep(chance.uniform(0.0, 0.7))
        else:
            with suppress(AssertionError):  # it did not come to that: then kill anyway
                wait_until(lambda: any(writer.stage == trigger for writer in self._writers), 10)
            time.sleep(chance.uniform(0.0, 0.03))
        workers = _children(daemon)
        ended = [writer for writer in self._writers if not writer.is_alive()]
        os.kill(daemon, signal.SIGKILL)
        killed = time.monotonic()
        if chance.random() < 0.7:  # else they find out by themselves
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        for writer in self._writers:
            writer.join(60)
            assert not writer.is_alive(), f"{writer.name} hangs in {writer.stage} after the daemon is dead"
        wait_until(lambda: not any(is_running(pid) for pid in (daemon, *workers)))
        for writer in self._writers:
            if writer.bug is not None:
                raise writer.bug
            assert writer.error is not None
            if writer in ended or writer.error.errno not in DEAD:
                figures.losses.append(f"{writer.name} was told {writer.error} in {writer.stage} by a live mount")
            if writer.began < killed:
                figures.in_flight[writer.stage] += 1
            figures.operations += writer.operations
            figures.bytes += writer.bytes
        if any(writer.began < killed for writer in self._writers):
            figures.cycles += 1
        else:
            figures.idle += 1
            assert figures.idle <= 1 + figures.cycles // IDLE_SHARE, "the kills find nothing under way"

    def _check_no_parts(self, objects: dict[str, str]) -> None:
        """W3: whatever was under way, the primary holds the old content or the new."""
        owners = {writer.directory: writer for writer in self._writers}
        for key, digest in objects.items():
            self.figures.checked += 1
            directory, _, path = key.partition("/")
            if directory not in owners or not owners[directory].may_hold(path, digest):
                self.figures.losses.append(f"the primary holds something half-written as {key} ({digest[:12]})")

    def _check_mount(self) -> None:
        for writer in self._writers:
            directory = self.mounted.path / writer.directory
            found = {
                path.name: DIRECTORY if path.is_dir() else digest_of(path.read_bytes()) for path in directory.iterdir()
            }
            self.figures.checked += len(found)
            pending, before = bool(writer.alternatives), writer.acknowledged
            problem = writer.settle(dict(found))
            if problem:
                self.figures.losses.append(problem)
            elif pending and writer.acknowledged != before:
                self.figures.done += 1
            writer.alternatives = []
        strangers = set(os.listdir(self.mounted.path)) - {writer.directory for writer in self._writers}
        if strangers:
            self.figures.losses.append(f"strangers on the mount: {strangers}")

    def _check_store(self, profile: str) -> None:
        """A store holds everything acknowledged. A replica may hold more: deletes are not propagated."""
        with _each_key(self.mounted.config, profile) as objects:
            for writer in self._writers:
                for path, digest in writer.acknowledged.items():
                    if digest == DIRECTORY:
                        continue
                    self.figures.checked += 1
                    if objects.get(f"{writer.directory}/{path}") != digest:
                        self.figures.losses.append(f"{profile} lacks {writer.directory}/{path} ({digest[:12]})")


@contextmanager
def _each_key(config: Path, profile: str) -> Iterator[dict[str, str]]:
    """The digests of all objects of a store, read without any mount."""
    store: StorageProvider = open_store(load_config(config), profile)
    try:
        yield {
            entry.key: digest_of(store.get(entry.key).read_all()) for entry in store.list() if not entry.is_directory
        }
    finally:
        store.close()


def _children(pid: int) -> list[int]:
    """The processes that any of its threads started."""
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]


def _kill_one_worker(daemon: int, chance: random.Random) -> int:
    workers = _children(daemon)
    if workers:
        with suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
            return 1
    return 0


def run(
    root: Path,
    primary: dict[str, Any],
    *,
    cycles: int,
    seed: int,
    drain_every: int = 4,
    seconds: float = math.inf,
    tell: bool = False,
) -> Figures:
    """So many cycles, or as many as begin within `seconds`, and the last look at each store.

    `Figures.losses` tells what went wrong. `tell` prints how far it got now and then.
    """
    end = time.monotonic() + seconds
    test = KillTest(root, primary, seed)
    try:
        test.begin()
        while test.figures.cycles < cycles:
            test.cycle(drain=test.figures.cycles % drain_every == 0)
            if test.figures.losses:
                return test.figures
            if tell and test.figures.cycles % 10 == 0:
                print(test.figures, flush=True)
            if time.monotonic() > end:
                break
        test.read_from_each_store()
    finally:
        unmount_whatever_is_left(test.mounted)
    return test.figures


def main() -> int:
    """The long form: prints its figures; 1 when anything was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.reliability.kill", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no cycle after so long")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--primary", choices=["file", "s3"], default="file")
    asked = parser.parse_args()
    with own_directories() as root:
        stack = nullcontext(file_store(root / "primary")) if asked.primary == "file" else _bucket()
        with stack as primary:
            print(f"seed {asked.seed}", flush=True)
            figures = run(
                root, primary, cycles=asked.cycles, seed=asked.seed, drain_every=10, seconds=asked.seconds, tell=True
            )
            if figures.losses:
                for log in sorted(root.rglob("*.log")):
                    lines = log.read_text(errors="replace").splitlines()
                    print(f"the end of {log.name}:", *lines[-LOG_LINES:], sep="\n")
    print(figures)
    return 1 if figures.losses else 0


@contextmanager
def _bucket() -> Iterator[dict[str, Any]]:
    with running_ministack() as server:
        yield server.new_bucket()


if __name__ == "__main__":
    sys.exit(main())
