"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.bench import server
from tests.bench.bench import QUICK, Bench, Scale, pick
from tests.bench.floor import check_server
from tests.bench.interruption import scratch, terminable
from tests.bench.results import Results
from tests.bench.systems import SYSTEMS, System
from tests.bench.tables import show
from tests.bench.works import WORKS, titles

_DESCRIPTION = f"""\
Compares mscfs with its peers on a local S3 server that is not the bottleneck.

Needs root (or a usable /dev/fuse), nginx with Lua, and the peers that are to be compared:
  {server.INSTALL} rclone s3fs fio

works:
{titles()}"""

_EXAMPLES = """\
examples:
  python -m tests.bench                                everything, medians of 5 (an hour)
  python -m tests.bench --quick                        everything small and once, under two minutes
  python -m tests.bench --only 1,4 --runs 3            two works
  python -m tests.bench --only 7 --systems mscfs       one system
  python -m tests.bench --only 8 --json bench.json     add to a file: works not run keep the figures they have there
  python -m tests.bench --report bench.json            write docs/benchmarks.md's tables and plot from a file
"""


def main() -> int:
    """Run what is asked for."""
    options = _parse(sys.argv[1:])
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.report:
        from tests.bench.report import write_report

        write_report(Results.load(options.report))
        return 0
    results = Results(machine=_machine())
    systems = _present(options.systems, results, console)
    try:
        _run(options, systems, results, console)
    except server.ServerError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        console.print("interrupted: everything is unmounted and removed")
        return 130
    finally:
        if options.json and results.figures:
            _save(options.json, results, options.only)
    show(results, console)
    return 0


def _run(options: argparse.Namespace, systems: list[System], results: Results, console: Console) -> None:
    with ExitStack() as stack:
        stack.enter_context(terminable())
        objects = stack.enter_context(scratch(Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None))
        directory = stack.enter_context(scratch(options.directory))
        running = stack.enter_context(server.running(objects / "server"))
        scale, runs = (QUICK, options.runs or 1) if options.quick else (Scale(), options.runs or 5)
        bench = Bench(
            running, directory, scale, runs, systems, lambda text: console.print(text, highlight=False), results
        )
        check_server(bench)
        for work in pick(WORKS, options.only):
            began = time.monotonic()
            work(bench)
            console.print(f"[dim]  {time.monotonic() - began:.0f} s[/dim]")


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small and once: whether it works, not how fast it is")
    parser.add_argument("--only", type=_works, default=list(WORKS), metavar="1,4", help="some of the works")
    parser.add_argument("--systems", type=_systems, default=list(SYSTEMS), metavar="mscfs,rclone", help="some systems")
    parser.add_argument("--runs", type=int, metavar="N", help="medians of so many runs (5; with --quick 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to keep the figures")
    parser.add_argument(
        "--report", type=Path, metavar="FILE", help="make tables and plot from a JSON file, run nothing"
    )
    parser.add_argument(
        "--directory", type=Path, default=Path(tempfile.gettempdir()), help="the disk for caches (%(default)s)"
    )
    return parser.parse_args(arguments)


def _works(text: str) -> list[str]:
    wanted = text.split(",")
    if unknown := set(wanted) - set(WORKS):
        raise argparse.ArgumentTypeError(f"no work {', '.join(sorted(unknown))}; there are {', '.join(WORKS)}")
    return wanted


def _systems(text: str) -> list[str]:
    wanted = text.split(",")
    if unknown := set(wanted) - set(SYSTEMS):
        raise argparse.ArgumentTypeError(f"no system {', '.join(sorted(unknown))}; there are {', '.join(SYSTEMS)}")
    return wanted


def _present(names: list[str], results: Results, console: Console) -> list[System]:
    present = []
    for name in names:
        system = SYSTEMS[name]
        if how := system.missing():
            results.absent[name] = how
            console.print(f"[dim]{name} is not here: {how}[/dim]")
        else:
            results.systems[name] = {"version": system.version(), "settings": system.settings}
            present.append(system)
    return present


def _machine() -> dict[str, object]:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "cores": os.cpu_count(),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
    }


def _save(path: Path, results: Results, works: list[str]) -> None:
    kept = Results.load(path) if path.exists() else Results()
    kept.update(results, works)
    kept.save(path)


if __name__ == "__main__":
    sys.exit(main())
