"""Work 4: many small objects, cold, warm, and in listing order over a long line."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

from tests.bench.bench import Bench, Outcome, Unfit
from tests.bench.proxy import delayed
from tests.bench.results import Topic
from tests.bench.systems import Mount, System

COLD = Topic("4", "small objects, 16 readers, cold", "objects/s", cold=True)
WARM = Topic("4", "small objects, 16 readers, again", "objects/s")
ORDERED = Topic("4", "small objects in listing order, 1 reader, 10 ms away, cold", "objects/s", cold=True)
WITHOUT_SIBLINGS = "mscfs, sibling_read_ahead: false"
READERS = 16
ROUND_TRIP = 0.010


def small(bench: Bench) -> None:
    """Many objects of 100 KiB, cold, again, and in listing order from far away.

    16 processes read all of them in random order from a fresh mount, names listed before.
    """
    for _ in bench.rounds():
        _ceilings(bench)
        for system in bench.systems:

            def read(mount: Mount, system: System = system) -> None:
                bench.take(COLD, system.name, lambda: _read(bench, mount), mount)
                bench.take(WARM, system.name, lambda: _read(bench, mount), mount)

            bench.on(system, [COLD, WARM], bench.small, read)
    with delayed(bench.server.port, ROUND_TRIP) as url:
        for _ in bench.rounds():
            for system in _with_variant(bench):

                def read_in_order(mount: Mount, system: System = system) -> None:
                    bench.take(ORDERED, system.name, lambda: _in_order(bench, mount), mount)

                bench.on(system, [ORDERED], bench.ordered, read_in_order, url=url)


def _ceilings(bench: Bench) -> None:
    keys = bench.small_keys
    for processes, threads in product((1,), (4, 16)):
        name = f"obstore, {threads} threads"

        def get(processes: int = processes, threads: int = threads) -> Outcome:
            result = bench.raw("get_many", bench.small, keys=keys, threads=threads, processes=processes)
            return Outcome(len(keys) / result["seconds"], int(result["bytes"]))

        bench.take(COLD, name, get)


def _with_variant(bench: Bench) -> list[System]:
    systems = list(bench.systems)
    if bench.mscfs is not None:
        systems.append(replace(bench.mscfs, name=WITHOUT_SIBLINGS, options={"sibling_read_ahead": False}))
    return systems


def _read(bench: Bench, mount: Mount) -> Outcome:
    result = bench.load("read_many", directory=str(mount.path / "small"), readers=READERS)
    return _outcome(result, bench.scale.objects)


def _in_order(bench: Bench, mount: Mount) -> Outcome:
    result = bench.load("read_many", directory=str(mount.path / "ordered"), readers=1, order="listing")
    return _outcome(result, bench.scale.ordered)


def _outcome(result: dict[str, float], objects: int) -> Outcome:
    if result["files"] != objects or result["bytes"] != objects * 100 << 10:
        raise Unfit(f"read {result['files']} files and {result['bytes']} bytes of {objects} files")
    extras = {"median ms": result["median"] * 1e3, "p99 ms": result["p99"] * 1e3}
    return Outcome(result["files"] / result["seconds"], int(result["bytes"]), extras)
