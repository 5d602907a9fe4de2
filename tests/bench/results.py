"""What was measured: samples, their medians, and how figures compare."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FORMAT = 1
_TOLERANCE = 0.999


@dataclass(frozen=True)
class Topic:
    """One thing that is measured on every system."""

    work: str
    what: str
    unit: str
    higher_is_better: bool = True
    cold: bool = False
    """Every byte must have come from the server."""


@dataclass
class Sample:
    """One run."""

    value: float
    wire: float | None = None
    """Bytes of objects that the server sent for each byte that was read; None where no bytes are read."""
    pss: int = 0
    """Peak of the proportional set size of the file system's processes, bytes."""
    private: int = 0
    """Of which no pages of files."""
    cpu: float = 0.0
    """Seconds of CPU of the file system's processes."""
    extras: dict[str, float] = field(default_factory=dict)


@dataclass
class Figure:
    """All runs of one topic on one system."""

    topic: Topic
    system: str
    is_ceiling: bool = False
    samples: list[Sample] = field(default_factory=list)
    error: str = ""
    invalid: str = ""
    """Why the figure does not count although it was measured."""

    @property
    def counts(self) -> bool:
        """Whether there is a figure to compare."""
        return bool(self.samples) and not self.error and not self.invalid

    @property
    def value(self) -> float:
        """The median."""
        return statistics.median(sample.value for sample in self.samples)

    def extra(self, name: str) -> float | None:
        """The median of something that was measured besides."""
        found = [sample.extras[name] for sample in self.samples if name in sample.extras]
        return statistics.median(found) if found else None

    @property
    def wire(self) -> float | None:
        """The median of bytes sent for each byte read."""
        found = [sample.wire for sample in self.samples if sample.wire is not None]
        return statistics.median(found) if found else None

    @property
    def pss(self) -> int:
        """The largest peak."""
        return max((sample.pss for sample in self.samples), default=0)

    @property
    def private(self) -> int:
        """The largest peak of memory that is no page of a file."""
        return max((sample.private for sample in self.samples), default=0)

    @property
    def cpu(self) -> float:
        """The median of CPU seconds."""
        return statistics.median(sample.cpu for sample in self.samples) if self.samples else 0.0

    def add(self, sample: Sample) -> None:
        """Note a run. A cold run for which less was sent than was read makes the figure invalid."""
        self.samples.append(sample)
        if self.topic.cold and sample.wire is not None and sample.wire < _TOLERANCE:
            self.invalid = f"not cold: {sample.wire:.2f} bytes were sent for each byte read"


@dataclass
class Results:
    """Everything measured, and where."""

    figures: dict[tuple[str, str, str], Figure] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    systems: dict[str, dict[str, str]] = field(default_factory=dict)
    """Version and settings of each."""
    absent: dict[str, str] = field(default_factory=dict)

    def figure(self, topic: Topic, system: str, *, is_ceiling: bool = False) -> Figure:
        """The figure of a topic on a system, made when it is not there."""
        key = (topic.work, topic.what, system)
        return self.figures.setdefault(key, Figure(topic, system, is_ceiling))

    def topics(self) -> list[Topic]:
        """What was measured, in the order of the works."""
        found = {
            (figure.topic.work, figure.topic.what): figure.topic
            for figure in self.figures.values()
            if figure.samples or figure.error
        }
        return sorted(found.values(), key=lambda topic: work_order(topic.work))

    def of(self, topic: Topic) -> list[Figure]:
        """The figures of one topic; ceilings last."""
        found = [
            figure
            for figure in self.figures.values()
            # One that was begun when the run was interrupted has neither.
            if _key(figure.topic) == _key(topic) and (figure.samples or figure.error)
        ]
        return sorted(found, key=lambda figure: figure.is_ceiling)

    def get(self, work: str, what: str, system: str) -> Figure | None:
        """A figure that counts."""
        figure = self.figures.get((work, what, system))
        return figure if figure is not None and figure.counts else None

    def best_peer(self, topic: Topic, *, but: str) -> Figure | None:
        """The best other system; variants of the same one (`mscfs, …`) are no peers."""
        peers = [
            figure
            for figure in self.of(topic)
            if figure.counts and not figure.is_ceiling and figure.system.split(",")[0] != but.split(",", maxsplit=1)[0]
        ]
        chosen = max if topic.higher_is_better else min
        return chosen(peers, key=lambda figure: figure.value, default=None)

    def ceiling(self, topic: Topic) -> Figure | None:
        """What the topic is compared with: the first ceiling measured for it."""
        return next((figure for figure in self.of(topic) if figure.is_ceiling and figure.counts), None)

    def save(self, path: Path) -> None:
        """Write JSON."""
        document = {
            "format": FORMAT,
            "machine": self.machine,
            "systems": self.systems,
            "absent": self.absent,
            "figures": [asdict(figure) for figure in self.figures.values()],
        }
        path.write_text(json.dumps(document, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote."""
        document = json.loads(path.read_text())
        if document.get("format") != FORMAT:
            raise ValueError(f"{path} is not of format {FORMAT}")
        results = cls(machine=document["machine"], systems=document["systems"], absent=document["absent"])
        for entry in document["figures"]:
            topic = Topic(**entry.pop("topic"))
            samples = [Sample(**sample) for sample in entry.pop("samples")]
            figure = Figure(topic, samples=samples, **entry)
            results.figures[topic.work, topic.what, figure.system] = figure
        return results

    def update(self, newer: Results, works: Iterable[str]) -> None:
        """Take over what was measured anew; these works' older figures of the same systems go."""
        renewed = set(works)
        systems = {figure.system for figure in newer.figures.values()}
        self.figures = {
            key: figure
            for key, figure in self.figures.items()
            if not (figure.topic.work in renewed and figure.system in systems)
        } | newer.figures
        self.machine = newer.machine
        self.systems |= newer.systems
        self.absent = {name: how for name, how in {**self.absent, **newer.absent}.items() if name not in self.systems}


def ratio(figure: Figure, other: Figure | None) -> float | None:
    """How many times as good as another one."""
    if other is None or not figure.counts or not figure.value or not other.value:
        return None
    return figure.value / other.value if figure.topic.higher_is_better else other.value / figure.value


def work_order(work: str) -> tuple[int, str]:
    """Works in numerical order."""
    return (int(work), "") if work.isdigit() else (99, work)


def _key(topic: Topic) -> tuple[str, str]:
    return topic.work, topic.what
