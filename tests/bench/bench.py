"""What the works share: the server, object sets made once, and one way to run, watch and record a piece of work."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.bench import child
from tests.bench.processes import Watch
from tests.bench.results import Figure, Results, Sample, Topic
from tests.bench.server import Bucket, Counters, Server, ServerError
from tests.bench.systems import Mount, MountFailedError, Mscfs, System

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

_LATE_SECONDS = 3.0
"""How long a request that is counted when it ends may still be under way."""


@dataclass(frozen=True)
class Scale:
    """How large the works are."""

    large: int = GIB
    objects: int = 5000
    ordered: int = 300
    directories: int = 100
    entries: int = 1000
    """In each directory."""
    cached: int = 256 * MIB
    random_seconds: float = 2.0
    written_files: int = 2000
    epoch: int = 400
    grid_milliseconds: int = 1000
    grid_sections: tuple[str, ...] = ("P1", "P2", "P3", "P4", "P5", "P6")
    grid_jobs: tuple[int, ...] = (1, 2, 4, 8)
    streams: int = 64
    stream_seconds: float = 10.0


QUICK = Scale(
    large=160 * MIB,  # not 128: rclone stalls at the end of an object of exactly its chunk size
    objects=600,
    ordered=24,
    directories=10,
    cached=64 * MIB,
    random_seconds=0.3,
    written_files=150,
    epoch=24,
    grid_milliseconds=300,
    grid_sections=("P2", "P4", "P6"),
    grid_jobs=(1, 4),
    streams=16,
    stream_seconds=2.0,
)


@dataclass(frozen=True)
class Outcome:
    """What one run gave."""

    value: float
    read: int = 0
    """Bytes of objects that the programs read."""
    extras: Mapping[str, float] = field(default_factory=dict)


class Unfit(Exception):  # noqa: N818 - it is told, not raised through
    """A system cannot do a piece of work; the message says why."""


@dataclass
class Bench:
    """One run of the benchmark."""

    server: Server
    directory: Path
    """On the disk that caches lie on."""
    scale: Scale
    runs: int
    systems: Sequence[System]
    say: Callable[[str], None]
    results: Results = field(default_factory=Results)

    @property
    def mscfs(self) -> Mscfs | None:
        """mscfs, when it takes part."""
        return next((system for system in self.systems if isinstance(system, Mscfs)), None)

    def rounds(self) -> range:
        """The runs. The systems take turns in each, so that a slow minute of the machine hits all of them."""
        return range(self.runs)

    def on(
        self,
        system: System,
        topics: Sequence[Topic],
        bucket: Bucket,
        work: Callable[[Mount], None],
        *,
        url: str = "",
        disk_cache: bool = False,
    ) -> None:
        """Mount a bucket cold and do something there. That it fails is the result of all these topics."""
        figures = [self.results.figure(topic, system.name) for topic in topics]
        if all(figure.error for figure in figures):
            return
        try:
            with system.mounted(self.directory, url or self.server.url, bucket.name, disk_cache=disk_cache) as mount:
                work(mount)
        except (MountFailedError, child.ChildError, OSError) as error:
            self._fail(figures, system.name, error)

    def take(
        self, topic: Topic, system: str, work: Callable[[], Outcome], mount: Mount | None = None
    ) -> Outcome | None:
        """Run a piece of work, watch the file system's processes and the server meanwhile, and note it."""
        figure = self.results.figure(
            topic, system, is_ceiling=system not in {one.name for one in self.systems} and mount is None
        )
        if figure.error:
            return None
        before = self.server.counters()
        watch = Watch(mount.roots if mount else [])
        try:
            with watch:
                outcome = work()
        except (child.ChildError, OSError, Unfit) as error:
            self._fail([figure], system, error)
            if mount is not None and (complaint := mount.complaint()):
                self.say(f"     it said: {complaint}")
            return None
        # A warm run may have sent nothing: there is nothing to wait for.
        wire = self._sent_since(before, outcome.read if topic.cold else 0) / outcome.read if outcome.read else None
        figure.add(Sample(outcome.value, wire, watch.peak.pss, watch.peak.private, watch.cpu, dict(outcome.extras)))
        wire_text = "" if wire is None else f", {wire:.2f} bytes sent for each read"
        self.say(f"  {topic.work:>2} {topic.what}: {system} {outcome.value:,.4g} {topic.unit}{wire_text}")
        return outcome

    def fail(self, topic: Topic, system: str, error: Exception) -> None:
        """Note that a system cannot do this."""
        self._fail([self.results.figure(topic, system)], system, error)

    def load(self, function: str, **arguments: object) -> dict[str, float]:
        """Run one of the programs of `load`."""
        result: dict[str, float] = child.call("tests.bench.load", function, **arguments)
        return result

    def raw(self, function: str, bucket: Bucket, **arguments: object) -> dict[str, float]:
        """Do something with obstore alone."""
        result: dict[str, float] = child.call(
            "tests.bench.raw", function, url=self.server.url, bucket=bucket.name, **arguments
        )
        return result

    @cached_property
    def large(self) -> Bucket:
        """One large object, `large`, and other names for the same bytes: `streams/00` and so on."""
        bucket = self.server.bucket("large")
        _fill(bucket.file("large"), self.scale.large)
        for number in range(self.scale.streams):
            bucket.link(f"streams/{number:02}", "large")
        return bucket

    @cached_property
    def small(self) -> Bucket:
        """Many objects of 100 KiB below `small/`."""
        return self.filled("small", "small", self.scale.objects, 100 * KIB)

    @property
    def small_keys(self) -> list[str]:
        """The keys of `small`."""
        return [f"small/{number:06}" for number in range(self.scale.objects)]

    @cached_property
    def ordered(self) -> Bucket:
        """Fewer objects of 100 KiB below `ordered/`, for what is read one after the other."""
        return self.filled("ordered", "ordered", self.scale.ordered, 100 * KIB)

    @cached_property
    def many(self) -> Bucket:
        """Very many tiny objects in directories."""
        bucket = self.server.bucket("many")
        for directory in range(self.scale.directories):
            for number in range(self.scale.entries):
                bucket.put(f"{directory:03}/{number:06}", b"x")
        return bucket

    @cached_property
    def cached(self) -> Bucket:
        """One object, `cached`, that is small enough to be read often."""
        bucket = self.server.bucket("cached")
        _fill(bucket.file("cached"), self.scale.cached)
        return bucket

    def filled(self, name: str, directory: str, objects: int, size: int) -> Bucket:
        """A bucket with objects of one size in one directory."""
        bucket = self.server.bucket(name)
        for number in range(objects):
            bucket.put(f"{directory}/{number:06}", os.urandom(size))
        return bucket

    def _sent_since(self, before: Counters, expected: int) -> int:
        """Bytes of objects sent; a request counts when it has ended, so wait a little for what must have been."""
        deadline = time.monotonic() + _LATE_SECONDS
        while True:
            sent = (self.server.counters() - before).object_bytes
            if sent >= expected or time.monotonic() > deadline:
                return sent
            time.sleep(0.1)

    def _fail(self, figures: Sequence[Figure], system: str, error: Exception) -> None:
        text = " ".join(str(error).split()) or type(error).__name__
        for figure in figures:
            if not figure.error:
                figure.error = text
                self.say(f"  {figure.topic.work:>2} {figure.topic.what}: {system} FAILED: {text}")


def _fill(path: Path, size: int) -> None:
    content = random.Random(6).randbytes(64 * MIB)
    with path.open("wb") as file:
        for number in range(0, size, len(content)):
            # No two pieces are equal, so that a piece in a wrong place is seen.
            file.write(number.to_bytes(8, "big") + content[8 : min(len(content), size - number)])


def pick(functions: Mapping[str, Callable[[Bench], None]], wanted: Sequence[str]) -> Iterator[Callable[[Bench], None]]:
    """The functions of the works that are wanted, each once."""
    seen: list[Callable[[Bench], None]] = []
    for work in wanted:
        function = functions[work]
        if function not in seen:
            seen.append(function)
            yield function


__all__ = ["QUICK", "Bench", "Outcome", "Scale", "ServerError", "Unfit", "pick"]
