"""The soak: thousands of open files, a huge directory and mixed work, and nothing that grows (L4).

    python -m tests.reliability.soak --handles 10000 --entries 1000000 --seconds 3600

A mount first does everything once, opens and closes all files, and lists its huge directory anew some times: allocators
keep much of what was needed then, between what stays, and use it again. What its processes hold afterwards is compared
with what they hold after many more rounds of the same: memory, descriptors, threads, processes, staging files; with the
files open, and when they are closed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mscfs.fuse import trim
from mscfs.telemetry import registry
from tests.bench.processes import family, memory_of
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, wait_until, with_replicas, write_config
from tests.reliability.endless import MANY, content_of, name_of
from tests.reliability.places import own_directories

WARM_UP = 4
"""Rounds before the first measurement."""
MIB = 1 << 20
LEEWAY = 64 * MIB
"""What memory may differ by between two moments of the same work: that of buffers which happen to be in use, too."""
IDLE_THREADS = 48
"""Threads come and go with the work, up to the bounds of their pools."""


@dataclass(frozen=True)
class Held:
    """What the processes of a mount hold."""

    processes: int
    memory: int
    """Bytes that are no pages of files."""
    descriptors: int
    threads: int
    shared: int
    """Files in /dev/shm of the whole machine that bear our name."""
    staged: int

    def __str__(self) -> str:
        return (
            f"{self.memory / MIB:.1f} MiB in {self.processes} processes, {self.threads} threads, "
            f"{self.descriptors} descriptors, {self.staged} staging files"
        )


def held_by(mounted: Mounted) -> Held:
    mount = registry.find(mounted.path.resolve())
    assert mount is not None
    pids = sorted(family([mount.pid]))
    return Held(
        len(pids),
        memory_of(pids).private,
        sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids),
        sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids),
        sum(name.startswith("mscfs") for name in os.listdir("/dev/shm")),
        mounted.status()["staging"]["files"],
    )


class Soak:
    """Work on one mount. `entries`: the names in the huge directory."""

    def __init__(self, root: Path, *, entries: int, seed: int) -> None:
        (root / "primary" / MANY).mkdir(parents=True)
        provider = {
            "type": "tests.reliability.endless.EndlessProvider",
            "options": {"base_path": str(root / "primary"), "count": entries},
        }
        profiles = {"near": file_store(root / "near"), "data": with_replicas({"storage_provider": provider}, "near")}
        write_config(root, profiles)
        self.mounted = Mounted(root)
        self.entries = entries
        self.rounds = 0
        self.operations = 0
        self._random = random.Random(seed)

    def round(self) -> None:
        """A little of everything."""
        root = self.mounted.path
        for _ in range(50):
            self._read_one()
        for number in range(20):
            path = root / f"small-{number}"
            path.write_bytes(b"x" * self._random.randrange(1, 50_000))
            path.rename(root / f"renamed-{number}")
            with (root / f"renamed-{number}").open("r+b") as file:
                file.write(b"in place")
            os.unlink(root / f"renamed-{number}")
        large = self._random.randbytes(MIB)
        with (root / "large").open("wb") as file:
            for _ in range(20):
                file.write(large)
        with (root / "large").open("rb") as file:
            while file.read(MIB):
                pass
        (root / "directory").mkdir()
        (root / "directory").rmdir()
        for number in range(20):
            assert not (root / f"absent-{number}").exists()
        self.rounds += 1
        self.operations += 50 + 4 * 20 + 2 + 2 + 20

    def list_everything(self) -> None:
        with os.scandir(self.mounted.path / MANY) as found:
            assert sum(1 for _ in found) == self.entries
        self.operations += 1

    @contextmanager
    def open_files(self, count: int) -> Iterator[list[int]]:
        """So many files, open at once, each read from."""
        with ExitStack() as stack:
            opened = []
            for number in range(count):
                name = name_of(number % self.entries)
                fd = os.open(self.mounted.path / MANY / name, os.O_RDONLY)
                stack.callback(os.close, fd)
                assert os.pread(fd, 100, 0) == content_of(MANY + name)[:100]
                opened.append(fd)
            self.operations += 2 * count
            yield opened

    def _read_one(self) -> None:
        name = name_of(self._random.randrange(self.entries))
        assert (self.mounted.path / MANY / name).read_bytes() == content_of(MANY + name)


def grown(before: Held, after: Held) -> list[str]:
    """What has grown between two moments at which the same work was done and the same files were open."""
    found = []
    if after.memory > before.memory + LEEWAY:
        found.append(f"memory: {before.memory / MIB:.1f} MiB, then {after.memory / MIB:.1f} MiB")
    for name in ("processes", "descriptors", "threads", "shared", "staged"):
        first, then = getattr(before, name), getattr(after, name)
        if then > first + (IDLE_THREADS if name == "threads" else 0):
            found.append(f"{name}: {first}, then {then}")
    return found


def settled(mounted: Mounted, idle: float) -> Held:
    """What is held once nothing is under way any more, and nothing was for `idle` seconds."""
    mounted.drain()
    wait_until(lambda: mounted.status()["staging"]["files"] == 0)
    time.sleep(idle)
    return held_by(mounted)


def run(
    root: Path,
    *,
    handles: int,
    entries: int,
    rounds: int,
    listings: int = 1,
    ttl: float = 3600.0,
    seconds: float = 0.0,
    idle: float = 0.0,
    tell: bool = False,
    seed: int = 1,
) -> list[str]:
    """Soak for so many rounds and at least so many seconds; what grew. Raises AssertionError for wrong answers.

    Everything is listed so often before the first measurement; names are asked for anew after `ttl` seconds. Before a
    measurement the mount is left alone for `idle` seconds, in which it may give memory back.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soak = Soak(root, entries=entries, seed=seed)
    mounted = soak.mounted
    try:
        mounted.mount("-o", f"metadata_ttl={ttl}")
        for _ in range(WARM_UP):
            soak.round()
        for number in range(listings):
            time.sleep(ttl if number else 0.0)
            soak.list_everything()
        with soak.open_files(handles):
            soak.round()
            soak.list_everything()
        soak.round()
        empty = settled(mounted, idle)
        with soak.open_files(handles) as opened:
            for _ in range(WARM_UP):
                soak.round()
            soak.list_everything()
            first = settled(mounted, idle)
            end = time.monotonic() + seconds
            number = 0
            while number < rounds or time.monotonic() < end:
                number += 1
                soak.round()
                if number % 100 == 0:
                    soak.list_everything()
                if tell and number % 50 == 0:
                    print(f"{soak.operations} operations: {held_by(mounted)}", flush=True)
            last = settled(mounted, idle)
            for at in range(0, len(opened), max(1, len(opened) // 100)):
                assert os.pread(opened[at], 2000, 0) == content_of(MANY + name_of(at % entries))
        soak.round()
        closed = settled(mounted, idle)
        print(f"before: {empty}\n{handles} open: {first}\nat the end: {last}\nclosed: {closed}")
        print(f"{soak.operations} operations in {soak.rounds} rounds, {entries} names")
        mounted.umount()
    finally:
        unmount_whatever_is_left(mounted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return grown(first, last) + [f"after closing everything: {what}" for what in grown(empty, closed)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.soak", description="The soak.")
    parser.add_argument("--handles", type=int, default=10_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600)
    asked = parser.parse_args()
    with own_directories() as root:
        found = run(
            root,
            handles=asked.handles,
            entries=asked.entries,
            rounds=1,
            listings=3,
            ttl=60.0,
            seconds=asked.seconds,
            idle=trim.INTERVAL + 1,
            tell=True,
        )
    print("nothing has grown" if not found else "\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
