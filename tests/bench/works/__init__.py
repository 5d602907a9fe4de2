"""The works, by number."""

from __future__ import annotations

from collections.abc import Callable

from tests.bench.bench import Bench
from tests.bench.works import large, listing, small, writing

WORKS: dict[str, Callable[[Bench], None]] = {
    "1": large.cold,
    "2": large.page_cache,
    "3": large.disk_cache,
    "4": small.small,
    "5": listing.listing,
    "7": writing.large,
    "8": writing.small,
}


def titles() -> str:
    """One line for each, from its docstring."""
    return "\n".join(f"  {number:>2}  {_title(work)}" for number, work in WORKS.items())


def _title(work: Callable[[Bench], None]) -> str:
    return (work.__doc__ or "").strip().splitlines()[0].rstrip(".")
