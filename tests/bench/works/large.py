"""Works 1 to 3: one large object read in sequence, cold, from the page cache, and from the cache on disk."""

from __future__ import annotations

import shutil
from dataclasses import replace

from tests.bench import child
from tests.bench.bench import MIB, Bench, Outcome, Unfit
from tests.bench.ceilings import minimal
from tests.bench.interruption import scratch
from tests.bench.results import Topic
from tests.bench.systems import Mount, System

COLD = Topic("1", "large object, cold", "MiB/s", cold=True)
WARM = Topic("2", "large object, page cache warm", "MiB/s")
CACHED = Topic("3", "large object, disk cache warm", "MiB/s")


def cold(bench: Bench) -> None:
    """One large object read in sequence, cold.

    1 MiB at a time from a fresh mount, names listed before.
    """
    bucket, size = bench.large, bench.scale.large
    for _ in bench.rounds():
        bench.take(
            COLD, "obstore, 4 ranges at once", lambda: _rate(bench.raw("get_ranges", bucket, key="large", size=size))
        )
        for system in bench.systems:

            def read(mount: Mount, system: System = system) -> None:
                names(mount)
                bench.take(COLD, system.name, lambda: _read(bench, mount), mount)
                _verify(bench, COLD, mount)

            bench.on(system, [COLD], bucket, read)


def page_cache(bench: Bench) -> None:
    """The same again, page cache warm.

    A local file that is in the page cache is the ceiling.
    """
    with scratch(bench.directory) as local:
        shutil.copyfile(bench.large.file("large"), local / "large")
        for _ in bench.rounds():
            bench.load("read_file", path=str(local / "large"))
            bench.take(WARM, "local file", lambda: _rate(bench.load("read_file", path=str(local / "large"))))
            for system in bench.systems:

                def read(mount: Mount, system: System = system) -> None:
                    _read(bench, mount)
                    bench.take(WARM, system.name, lambda: _read_counting(bench, mount), mount)

                bench.on(system, [WARM], bench.large, read)


def disk_cache(bench: Bench) -> None:
    """The same again, page cache dropped, disk cache warm.

    The mounted file's pages are dropped (fadvise); the files of the system's own cache stay in the page cache.
    """
    for _ in bench.rounds():
        _minimal(bench)
        for system in bench.systems:

            def read(mount: Mount, system: System = system) -> None:
                _read(bench, mount)
                bench.load("forget_pages", path=str(mount.path / "large"))
                outcome = bench.take(CACHED, system.name, lambda: _read(bench, mount), mount)
                if outcome is not None:
                    _verify(bench, CACHED, mount)

            bench.on(system, [CACHED], bench.large, read, disk_cache=True)


def names(mount: Mount) -> None:
    """Have the top listed, as a program that looks what there is has done."""
    list(mount.path.iterdir())


def _read(bench: Bench, mount: Mount) -> Outcome:
    return _rate(bench.load("read_file", path=str(mount.path / "large")), bench.scale.large)


def _read_counting(bench: Bench, mount: Mount) -> Outcome:
    """The same, and how many reads reached the file system meanwhile."""
    if mount.count_reads is None:
        return _read(bench, mount)
    before = mount.count_reads()
    outcome = _read(bench, mount)
    return replace(outcome, extras={"reads": mount.count_reads() - before})


def _rate(result: dict[str, float], expected: int | None = None) -> Outcome:
    if expected is not None and result["bytes"] != expected:
        raise Unfit(f"read {result['bytes']} bytes instead of {expected}")
    return Outcome(result["bytes"] / MIB / result["seconds"], int(result["bytes"]))


def _verify(bench: Bench, topic: Topic, mount: Mount) -> None:
    """Some random pieces must be what the server has."""
    path, truth = str(mount.path / "large"), str(bench.large.file("large"))
    if child.call("tests.bench.load", "compare", path=path, original=truth):
        raise child.ChildError(f"{topic.what}: wrong content")


def _minimal(bench: Bench) -> None:
    with scratch(bench.directory) as directory:
        shutil.copyfile(bench.large.file("large"), directory / "large")
        with minimal(directory, bench.directory) as mountpoint:
            path = str(mountpoint / "large")
            bench.load("read_file", path=path)
            bench.load("forget_pages", path=path)
            bench.take(CACHED, "minimal pyfuse3", lambda: _rate(bench.load("read_file", path=path)))
