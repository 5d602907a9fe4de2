"""Work 11: how long until a mount answers, and until the library is imported."""

from __future__ import annotations

from tests.bench.bench import Bench, Outcome
from tests.bench.results import Topic
from tests.bench.systems import Mount, System

READY = Topic("11", "start to ready", "ms", higher_is_better=False)
IMPORT = Topic("11", "import", "ms", higher_is_better=False)


def starting(bench: Bench) -> None:
    """From the command to the first answer of the mount; `import mscfs`."""
    for _ in bench.rounds():
        for system in bench.systems:

            def note(mount: Mount, system: System = system) -> None:
                bench.take(READY, system.name, lambda: Outcome(mount.ready * 1e3), mount)

            bench.on(system, [READY], bench.small, note)
        if bench.mscfs is not None:
            bench.take(
                IMPORT, bench.mscfs.name, lambda: Outcome(bench.load("import_time", name="mscfs")["seconds"] * 1e3)
            )
