"""The works, by number."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.bench import Bench
from tests.bench.works import grid, large, listing, random_reads, replica, small, starting, streams, writing

WORKS: dict[str, Callable[[Bench], None]] = {
    "1": large.cold,
    "2": large.page_cache,
    "3": large.disk_cache,
    "4": small.small,
    "5": listing.listing,
    "6": random_reads.random_reads,
    "7": writing.large,
    "8": writing.small,
    "9": replica.near_replica,
    "10": grid.grid,
    "11": starting.starting,
    "12": streams.streams,
}


def titles() -> str:
    """One line for each, from its docstring."""
    return "\n".join(f"  {number:>2}  {_title(work)}" for number, work in WORKS.items())


def _title(work: Callable[[Bench], None]) -> str:
    return (work.__doc__ or "").strip().splitlines()[0].rstrip(".")
