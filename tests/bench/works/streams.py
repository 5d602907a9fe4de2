"""Work 12: what many streams at once cost in memory."""

from __future__ import annotations

from tests.bench.bench import KIB, MIB, Bench, Outcome, Unfit
from tests.bench.results import Topic
from tests.bench.systems import Mount, System

STREAMS = Topic("12", "many large files read at once", "MiB/s", cold=True)


def streams(bench: Bench) -> None:
    """64 large objects read in sequence at once: memory, and that each makes progress.

    128 KiB at a time for a number of seconds, from a fresh mount, names listed before.
    """
    for _ in bench.rounds():
        for system in bench.systems:

            def read(mount: Mount, system: System = system) -> None:
                paths = sorted(map(str, (mount.path / "streams").iterdir()))
                bench.take(STREAMS, system.name, lambda: _read(bench, paths), mount)

            bench.on(system, [STREAMS], bench.large, read)


def _read(bench: Bench, paths: list[str]) -> Outcome:
    if len(paths) != bench.scale.streams:
        raise Unfit(f"{len(paths)} objects are listed instead of {bench.scale.streams}")
    result = bench.load("read_streams", paths=paths, seconds=bench.scale.stream_seconds)
    return Outcome(
        result["bytes"] / MIB / result["seconds"], int(result["bytes"]), {"slowest KiB": result["slowest"] / KIB}
    )
