"""Work 5: `find` with sizes over very many objects, and what each entry costs in memory."""

from __future__ import annotations

from tests.bench.bench import Bench, Outcome, Unfit
from tests.bench.processes import family, memory_of
from tests.bench.results import Topic
from tests.bench.systems import Mount, System

COLD = Topic("5", "find with sizes, cold", "entries/s")
WARM = Topic("5", "find with sizes, again", "entries/s")


def listing(bench: Bench) -> None:
    """`find` with sizes over very many objects, cold and again.

    obstore's listings, one after the other, are the ceiling.
    """
    bucket = bench.many
    prefixes = [f"{number:03}/" for number in range(bench.scale.directories)]
    for _ in bench.rounds():
        bench.take(COLD, "obstore", lambda: _rate(bench.raw("list_all", bucket, prefixes=prefixes)))
        for system in bench.systems:

            def find(mount: Mount, system: System = system) -> None:
                before = memory_of(family(mount.roots))

                def cold() -> Outcome:
                    found = _find(bench, mount)
                    grown = memory_of(family(mount.roots)).pss - before.pss
                    return Outcome(found.value, extras={"bytes for an entry": grown / _entries(bench)})

                bench.take(COLD, system.name, cold, mount)
                bench.take(WARM, system.name, lambda: _find(bench, mount), mount)

            bench.on(system, [COLD, WARM], bucket, find)


def _entries(bench: Bench) -> int:
    return bench.scale.directories * bench.scale.entries


def _find(bench: Bench, mount: Mount) -> Outcome:
    result = bench.load("find", directory=str(mount.path))
    if result["entries"] != _entries(bench):
        raise Unfit(f"found {result['entries']} of {_entries(bench)} entries")
    return _rate(result)


def _rate(result: dict[str, float]) -> Outcome:
    return Outcome(result["entries"] / result["seconds"])
