"""Work 10: the fio sections P1 to P6 that users of the multi-storage client know, scaled to this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.bench.bench import MIB, Bench, Outcome, Unfit
from tests.bench.interruption import scratch
from tests.bench.results import Topic
from tests.bench.server import Bucket
from tests.bench.systems import Mount, System

_FILES = 64
"""Files of 1 MiB for each job of the sections with many files."""


@dataclass(frozen=True)
class Section:
    """One of the six."""

    name: str
    block: str
    pattern: str
    many_files: bool

    def topic(self, jobs: int) -> Topic:
        """What its cell for so many jobs is called."""
        how = {"read": "sequential", "randread": "random"}[self.pattern]
        where = "1 MiB files" if self.many_files else "large files"
        return Topic("10", f"fio {self.name}.{jobs}: {self.block} {how}, {where}, {jobs} jobs", "MiB/s", cold=True)


SECTIONS = (
    Section("P1", "4k", "read", many_files=True),
    Section("P2", "64k", "read", many_files=True),
    Section("P3", "4k", "read", many_files=False),
    Section("P4", "64k", "read", many_files=False),
    Section("P5", "4k", "randread", many_files=False),
    Section("P6", "64k", "randread", many_files=False),
)


def grid(bench: Bench) -> None:
    """The fio sections P1 to P6 with 1 to 8 jobs: psync, direct=1, each job files of its own.

    One fresh mount for each section; no two cells read the same objects. A cell ends after about a second.
    """
    if shutil.which("fio") is None:
        bench.say("fio is not here: apt-get install --no-install-recommends fio")
        return
    bucket = _objects(bench)
    for _ in bench.rounds():
        for section in SECTIONS:
            if section.name not in bench.scale.grid_sections:
                continue
            for system in bench.systems:

                def read(mount: Mount, system: System = system, section: Section = section) -> None:
                    for jobs, shares in _shares(bench):
                        files = [_paths(mount, section, share) for share in shares]
                        topic = section.topic(jobs)
                        bench.take(topic, system.name, lambda files=files: _fio(bench, section, files), mount)

                bench.on(system, [section.topic(jobs) for jobs in bench.scale.grid_jobs], bucket, read)


def _objects(bench: Bench) -> Bucket:
    """Many names for the same bytes: they cost no memory, and are different objects to whoever reads them."""
    bucket = bench.server.bucket("grid")
    large = bench.large
    content = large.file("large").read_bytes()[: _FILES * MIB]
    for number in range(_FILES):
        bucket.put(f"files/00/{number:03}", content[number * MIB : (number + 1) * MIB])
    for share in range(sum(bench.scale.grid_jobs)):
        bucket.file(f"large/{share:02}").hardlink_to(large.file("large"))
        for number in range(_FILES if share else 0):
            bucket.link(f"files/{share:02}/{number:03}", f"files/00/{number:03}")
    return bucket


def _shares(bench: Bench) -> Iterator[tuple[int, Sequence[int]]]:
    """For each number of jobs the shares of the objects that they read, none twice."""
    first = 0
    for jobs in bench.scale.grid_jobs:
        yield jobs, range(first, first + jobs)
        first += jobs


def _paths(mount: Mount, section: Section, share: int) -> list[str]:
    if not section.many_files:
        return [f"{mount.path}/large/{share:02}"]
    return [f"{mount.path}/files/{share:02}/{number:03}" for number in range(_FILES)]


def _fio(bench: Bench, section: Section, files: Sequence[Sequence[str]]) -> Outcome:
    lines = ["[global]", "ioengine=psync", "direct=1", "invalidate=1", "group_reporting", "norandommap", "randrepeat=0"]
    lines += [f"rw={section.pattern}", f"bs={section.block}", f"runtime={bench.scale.grid_milliseconds}ms"]
    lines.append("file_service_type=sequential")
    for number, names in enumerate(files):
        lines += [f"[job{number}]", "filename=" + ":".join(names)]
    with scratch(bench.directory) as directory:
        (directory / "job").write_text("\n".join(lines) + "\n")
        # The first line of what it complains of says what is wrong.
        command = ["fio", "--readonly", "--output-format=json", "job"]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise Unfit((done.stderr or done.stdout).strip().splitlines()[0])
    read = json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]
    return Outcome(
        read["bw_bytes"] / MIB,
        int(read["io_bytes"]),
        {"p99 ms": read["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1e6},
    )
