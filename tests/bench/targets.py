"""What mscfs is to reach, judged from the figures of one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.results import Results, ratio

MSCFS = "mscfs"


@dataclass(frozen=True)
class Target:
    """One line of the table of targets. `measure` gives None when it was not measured."""

    work: str
    what: str
    measure: Callable[[Results], float | None]
    bound: float
    at_least: bool = True

    def judge(self, results: Results) -> tuple[float | None, bool | None]:
        """What was reached, and whether that is enough."""
        reached = self.measure(results)
        if reached is None:
            return None, None
        return reached, reached >= self.bound if self.at_least else reached <= self.bound


def _value(work: str, what: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        figure = results.get(work, what, MSCFS)
        return figure.value if figure else None

    return measure


def _extra(work: str, what: str, name: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        figure = results.get(work, what, MSCFS)
        return figure.extra(name) if figure else None

    return measure


def _peak(work: str, what: str) -> Callable[[Results], float | None]:
    """MiB of memory."""

    def measure(results: Results) -> float | None:
        figure = results.get(work, what, MSCFS)
        return figure.pss / (1 << 20) if figure else None

    return measure


def _against(work: str, what: str, system: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        figure = results.get(work, what, MSCFS)
        return ratio(figure, results.get(work, what, system)) if figure else None

    return measure


def _ceiling(work: str, what: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        figure = results.get(work, what, MSCFS)
        return ratio(figure, results.ceiling(figure.topic)) if figure else None

    return measure


def _best_peer(work: str, what: str) -> Callable[[Results], float | None]:
    def measure(results: Results) -> float | None:
        figure = results.get(work, what, MSCFS)
        return ratio(figure, results.best_peer(figure.topic, but=MSCFS)) if figure else None

    return measure


def _between(work: str, what: str, other: str) -> Callable[[Results], float | None]:
    """How many times as good the first is as the other, both of mscfs."""

    def measure(results: Results) -> float | None:
        figure, compared = results.get(work, what, MSCFS), results.get(work, other, MSCFS)
        return figure.value / compared.value if figure and compared else None

    return measure


def _worst_grid_cell(results: Results) -> float | None:
    """Of all cells, the smallest ratio to the best of rclone and s3fs."""
    ratios = [
        ratio(figure, other)
        for topic in results.topics()
        if topic.work == "10" and (figure := results.get("10", topic.what, MSCFS))
        for peer in ("rclone", "s3fs")
        if (other := results.get("10", topic.what, peer))
    ]
    return min((found for found in ratios if found is not None), default=None)


_PAGES = "large object, page cache warm"
_WRITTEN = "large file written and closed"
_EPOCH = "epoch, primary 60 ms and replica 1 ms away"
_STREAMS = "many large files read at once"
_SMALL = "small objects, 16 readers, "
_ORDERED = "small objects in listing order, 1 reader, 10 ms away, cold"

TARGETS = (
    Target("1", "× obstore in parallel ranges", _ceiling("1", "large object, cold"), 0.7),
    Target("1", "× the best peer", _best_peer("1", "large object, cold"), 1.5),
    Target("2", "× a local file in the page cache", _ceiling("2", _PAGES), 0.95),
    Target("2", "reads that reach the daemon", _extra("2", _PAGES, "reads"), 0, at_least=False),
    Target("3", "× minimal pyfuse3", _ceiling("3", "large object, disk cache warm"), 0.75),
    Target("4", "objects/s, cold", _value("4", f"{_SMALL}cold"), 3000),
    Target("4", "× the best peer, cold", _best_peer("4", f"{_SMALL}cold"), 2),
    Target("4", "in listing order × without sibling read-ahead",
           _against("4", _ORDERED, "mscfs, sibling_read_ahead: false"), 5),
    Target("4", "again × cold", _between("4", f"{_SMALL}again", f"{_SMALL}cold"), 4),
    Target("5", "entries/s, cold", _value("5", "find with sizes, cold"), 60_000),
    Target("5", "entries/s, again", _value("5", "find with sizes, again"), 250_000),
    Target("5", "bytes for an entry", _extra("5", "find with sizes, cold", "bytes for an entry"), 400, at_least=False),
    Target("6", "reads of 4 KiB/s", _value("6", "random 4 KiB, disk cache warm"), 15_000),
    Target("7", "× obstore in parts", _ceiling("7", _WRITTEN), 0.6),
    Target("7", "share of close()", _extra("7", _WRITTEN, "share of close"), 0.15, at_least=False),
    Target("8", "files/s", _value("8", "small files created, 8 writers"), 600),
    Target("9", "× the primary alone", _against("9", _EPOCH, "mscfs, primary alone"), 15),
    Target("9", "median ms of open + read", _extra("9", _EPOCH, "median ms"), 5, at_least=False),
    Target("10", "× rclone or s3fs in the worst cell", _worst_grid_cell, 1.0),
    Target("11", "ms from start to ready", _value("11", "start to ready"), 1000, at_least=False),
    Target("11", "ms of import", _value("11", "import"), 120, at_least=False),
    Target("12", "MiB with 64 streams", _peak("12", _STREAMS), 700, at_least=False),
    Target("12", "KiB of the slowest stream", _extra("12", _STREAMS, "slowest KiB"), 1),
)  # fmt: skip
