"""Work 6: single blocks at random places of an object whose chunks are in the file system's cache on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.bench.bench import KIB, Bench, Outcome
from tests.bench.ceilings import minimal
from tests.bench.interruption import scratch
from tests.bench.results import Topic
from tests.bench.systems import Mount, System

TOPICS = {size * KIB: Topic("6", f"random {size} KiB, disk cache warm", "reads/s") for size in (4, 64)}


def random_reads(bench: Bench) -> None:
    """Random reads of 4 and 64 KiB, disk cache warm, one thread.

    O_DIRECT, so that each reaches the file system. The same through the minimal pyfuse3 file system is the ceiling.
    """
    bucket = bench.cached
    with scratch(bench.directory) as directory:
        shutil.copyfile(bucket.file("cached"), directory / "cached")
        for _ in bench.rounds():
            with minimal(directory, bench.directory) as mountpoint:
                _read(bench, "minimal pyfuse3", mountpoint / "cached", None)
            for system in bench.systems:

                def read(mount: Mount, system: System = system) -> None:
                    path = mount.path / "cached"
                    bench.load("read_file", path=str(path))
                    bench.load("forget_pages", path=str(path))
                    _read(bench, system.name, path, mount)

                bench.on(system, list(TOPICS.values()), bucket, read, disk_cache=True)


def _read(bench: Bench, system: str, path: Path, mount: Mount | None) -> None:
    for block, topic in TOPICS.items():

        def read(block: int = block) -> Outcome:
            seconds = bench.scale.random_seconds
            result = bench.load("read_randomly", path=str(path), block=block, seconds=seconds, direct=True)
            return Outcome(result["reads"] / result["seconds"], int(result["reads"]) * block)

        bench.take(topic, system, read, mount)
