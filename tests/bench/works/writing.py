"""Works 7 and 8: one large file written, and many small ones."""

from __future__ import annotations

from tests.bench.bench import KIB, MIB, Bench, Outcome, Unfit
from tests.bench.results import Topic
from tests.bench.server import Bucket
from tests.bench.systems import Mount, System

LARGE = Topic("7", "large file written and closed", "MiB/s")
SYNCED = Topic("7", "large file written, fsynced, closed", "MiB/s")
SMALL = Topic("8", "small files created, 8 writers", "files/s")
WRITERS = 8
SMALL_SIZE = 16 * KIB


def large(bench: Bench) -> None:
    """One large file written, with and without fsync, and the share of close().

    1 MiB at a time. The object must be on the server when close() has returned.
    """
    bucket, size = bench.server.bucket("written"), bench.scale.large
    for _ in bench.rounds():
        bench.take(LARGE, "obstore, 8 parts at once", lambda: _raw(bench, bucket, size))
        bucket.clear()
        for system in bench.systems:

            def write(mount: Mount, system: System = system) -> None:
                for topic, sync in ((LARGE, False), (SYNCED, True)):
                    bench.take(topic, system.name, lambda sync=sync: _write(bench, bucket, mount, sync=sync), mount)
                    for path in mount.path.iterdir():
                        path.unlink()

            bench.on(system, [LARGE, SYNCED], bucket, write)
            bucket.clear()


def small(bench: Bench) -> None:
    """Many files of 16 KiB created by 8 writers.

    Every one is looked for on the server right after its close().
    """
    bucket, files = bench.server.bucket("created"), bench.scale.written_files
    for _ in bench.rounds():
        bucket.clear()
        raw = lambda: Outcome(files / bench.raw("put_many", bucket, files=files, size=SMALL_SIZE)["seconds"])  # noqa: E731
        bench.take(SMALL, "obstore, 8 threads", raw)
        for system in bench.systems:
            bucket.clear()

            def write(mount: Mount, system: System = system) -> None:
                (mount.path / "new").mkdir(exist_ok=True)
                bench.take(SMALL, system.name, lambda: _create(bench, bucket, mount), mount)

            bench.on(system, [SMALL], bucket, write)
    bucket.clear()


def _raw(bench: Bench, bucket: Bucket, size: int) -> Outcome:
    return Outcome(size / MIB / bench.raw("put_parts", bucket, key="raw", size=size)["seconds"])


def _write(bench: Bench, bucket: Bucket, mount: Mount, *, sync: bool) -> Outcome:
    size = bench.scale.large
    name = "synced" if sync else "closed"
    result = bench.load("write_file", path=str(mount.path / name), size=size, sync=sync)
    if not bucket.holds(name, size):
        raise Unfit("the object was not on the server when close() returned")
    shares = {f"share of {part}": result[part] / result["seconds"] for part in ("fsync", "close")}
    return Outcome(size / MIB / result["seconds"], extras=shares)


def _create(bench: Bench, bucket: Bucket, mount: Mount) -> Outcome:
    files = bench.scale.written_files
    result = bench.load(
        "write_many",
        directory=str(mount.path / "new"),
        files=files,
        size=SMALL_SIZE,
        writers=WRITERS,
        server_file=str(bucket.file("new/{name}")),
    )
    if result["missing"]:
        raise Unfit(f"{result['missing']} of {files} files were not on the server when close() returned")
    return Outcome(files / result["seconds"])
