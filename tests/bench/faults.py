"""The fault benchmark: what readers notice while a replica stalls, fails or flaps, and while the primary is away.

    python -m tests.bench.faults [--seconds 15] [--reads 10000] [--json FILE]

Four processes open, read and close objects of 64 KiB in random order on one mount, over and over; nothing is cached.
The primary and its replica are one nginx behind two fault proxies. `docs/reliability.md` has the figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tests.bench.server import Bucket, Server, running
from tests.bench.systems.base import Place
from tests.bench.systems.mscfs import Mscfs
from tests.emulators.fault_proxy import FaultProxy
from tests.emulators.faults import reset, status

OBJECTS, SIZE, READERS = 2000, 64 << 10, 4
READ_DEADLINE, STORE_TIMEOUT = 30.0, 10.0
SCRATCH = Path("/dev/shm")

Read = tuple[float, float, bool]
"""When it began, how long it took, both in seconds, and whether the bytes were right."""


@dataclass(frozen=True)
class Phase:
    """Reads that ended between two moments. Latencies in milliseconds."""

    name: str
    reads: int
    per_second: float
    errors: int
    p50: float
    p99: float
    longest: float
    near: int
    """Requests that came to the replica."""


class Readers:
    """The processes. They read from the start until `stop`, which gives back all reads."""

    def __init__(self, directory: Path) -> None:
        self._stop = multiprocessing.Event()
        self._queue: multiprocessing.Queue[list[Read]] = multiprocessing.Queue()
        self._processes = [
            multiprocessing.Process(target=_read, args=(directory, seed, self._stop, self._queue), daemon=True)
            for seed in range(READERS)
        ]
        for process in self._processes:
            process.start()

    def stop(self) -> list[Read]:
        self._stop.set()
        reads = [read for _ in self._processes for read in self._queue.get(timeout=2 * READ_DEADLINE)]
        for process in self._processes:
            process.join(10)
        return reads


def _read(directory: Path, seed: int, stop: Any, queue: Any) -> None:
    names, chance = [f"{number:05}" for number in range(OBJECTS)], random.Random(seed)
    reads: list[Read] = []
    while not stop.is_set():
        name = chance.choice(names)
        began = time.monotonic()
        try:
            right = (directory / name).read_bytes() == _content(int(name))
        except OSError:
            right = False
        reads.append((began, time.monotonic() - began, right))
    queue.put(reads)


def _content(number: int) -> bytes:
    return number.to_bytes(8, "big") * (SIZE // 8)


class Course:
    """One run: readers read while phases follow each other."""

    def __init__(self, readers: Readers, proxies: dict[str, FaultProxy], seconds: float) -> None:
        self._readers = readers
        self._proxies = proxies
        self._seconds = seconds
        self._spans: list[tuple[str, float, float, int]] = []
        self.back: dict[str, float] = {}

    def phase(self, name: str, seconds: float | None = None) -> None:
        with self._span(name):
            time.sleep(self._seconds if seconds is None else seconds)

    def phase_of_reads(self, name: str, reads: int) -> None:
        """So long that the replica served so many, or five minutes."""
        with self._span(name):
            end, last = time.monotonic() + 300, self._near + reads
            while self._near < last and time.monotonic() < end:
                time.sleep(0.1)

    def recover(self, name: str) -> None:
        """Heal everything, and wait until the replica serves ten reads within half a second."""
        with self._span(f"after: {name}"):
            for proxy in self._proxies.values():
                proxy.heal()
            healed = time.monotonic()
            while time.monotonic() - healed < 90:
                near = self._near
                time.sleep(0.5)
                if self._near - near >= 10:
                    break
            self.back[name] = round(time.monotonic() - healed - 0.5, 1)

    def flap(self, seconds: float) -> None:
        near, begun = self._proxies["near"], time.monotonic()
        with self._span("replica flaps"):
            while time.monotonic() - begun < seconds:
                rule = near.on(status(503))
                time.sleep(0.7)
                near.off(rule)
                time.sleep(0.7)

    def results(self) -> list[Phase]:
        reads = self._readers.stop()
        return [
            _phase(name, [read for read in reads if begun <= read[0] + read[1] < end], end - begun, near)
            for name, begun, end, near in self._spans
        ]

    @property
    def _near(self) -> int:
        return self._proxies["near"].count("GET")

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        near, begun = self._near, time.monotonic()
        yield
        self._spans.append((name, begun, time.monotonic(), self._near - near))


def _phase(name: str, reads: Sequence[Read], seconds: float, near: int) -> Phase:
    took = sorted(duration * 1e3 for _, duration, _ in reads) or [0.0]
    errors = sum(not right for _, _, right in reads)
    p50, p99 = (round(took[min(len(took) - 1, int(len(took) * share))], 1) for share in (0.5, 0.99))
    return Phase(name, len(reads), round(len(reads) / seconds, 1), errors, p50, p99, round(took[-1], 1), near)


def measure(mount: Path, proxies: dict[str, FaultProxy], seconds: float, reads: int) -> dict[str, Any]:
    """All phases, one after the other."""
    list(os.scandir(mount))
    course = Course(Readers(mount), proxies, seconds)
    course.phase("warming up", 3)
    course.phase("healthy")
    near, primary = proxies["near"], proxies["primary"]
    near.freeze()
    course.phase("replica stalled, first second", 1)
    course.phase("replica stalled, after it")
    course.recover("stalled")
    near.on(status(503))
    course.phase("replica answers 503, first second", 1)
    course.phase("replica answers 503, after it")
    course.recover("503")
    course.flap(seconds)
    course.recover("flapping")
    primary.on(reset())
    primary.cut()
    course.phase_of_reads("primary away", reads)
    course.recover("primary away")
    course.phase("healthy again")
    return {"phases": [asdict(phase) for phase in course.results()], "back after seconds": course.back}


@contextmanager
def stores(directory: Path) -> Iterator[tuple[Server, dict[str, FaultProxy]]]:
    """The server, all objects in both buckets, and a proxy in front of each."""
    with running(directory) as server:
        for name in ("primary", "near"):
            _fill(server.bucket(name), later=name == "near")
        proxies = {name: FaultProxy(server.url) for name in ("primary", "near")}
        try:
            yield server, proxies
        finally:
            for proxy in proxies.values():
                proxy.close()


def _fill(bucket: Bucket, *, later: bool) -> None:
    now = time.time()
    for number in range(OBJECTS):
        bucket.put(f"train/{number:05}", _content(number))
        os.utime(bucket.file(f"train/{number:05}"), (now - 60 + 30 * later,) * 2)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--reads", type=int, default=10_000, help="while the primary is away")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    options = {"page_cache": False, "read_deadline": READ_DEADLINE, "store_timeout": STORE_TIMEOUT}
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="mscfs-faults-") as scratch:
        root = Path(scratch)
        (root / "server").mkdir()
        (root / "mscfs/mnt").mkdir(parents=True)
        with stores(root / "server") as (_, proxies):
            system = replace(
                Mscfs(options=options), replica_url=proxies["near"].url, replica_bucket="near", name="mscfs"
            )
            place = Place(root / "mscfs", proxies["primary"].url, "primary", disk_cache=False)
            with system.start(place) as mount:
                result = measure(mount.path / "train", proxies, arguments.seconds, arguments.reads)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))
    print("| phase | reads/s | errors | p50 ms | p99 ms | max ms | requests to the replica |")
    print("|---" * 7 + "|")
    for phase in result["phases"]:
        told = (phase[name] for name in ("name", "per_second", "errors", "p50", "p99", "longest", "near"))
        print("| " + " | ".join(map(str, told)) + " |")
    print("back after (s):", result["back after seconds"])


if __name__ == "__main__":
    main()
