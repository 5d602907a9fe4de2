"""Work 9: what a near replica is worth when the primary is far away."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from tests.bench.bench import KIB, Bench, Outcome, Unfit
from tests.bench.interruption import scratch
from tests.bench.proxy import delayed
from tests.bench.results import Topic
from tests.bench.server import Bucket
from tests.bench.systems import Mount, MountFailedError, Mscfs, System
from tests.bench.systems.base import Place
from tests.bench.systems.mscfs import PROFILE

EPOCH = Topic("9", "epoch, primary 60 ms and replica 1 ms away", "objects/s", cold=True)
ALONE = "mscfs, primary alone"
READERS = 4
_OBJECT = 64 * KIB
_FAR, _NEAR = 0.060, 0.001


def near_replica(bench: Bench) -> None:
    """An epoch with the primary 60 ms and a replica 1 ms away, against the primary alone.

    4 processes read objects of 64 KiB once, in random order, from a fresh mount, names listed before. `mscfs
    sync-replicas` has filled the replica. The peers have no replicas: they read from the primary.
    """
    bucket, near = bench.filled("epoch", "train", bench.scale.epoch, _OBJECT), bench.server.bucket("near")
    with ExitStack() as stack:
        far_url = stack.enter_context(delayed(bench.server.port, _FAR))
        near_url = stack.enter_context(delayed(bench.server.port, _NEAR))
        systems: list[System] = [system for system in bench.systems if not isinstance(system, Mscfs)]
        if bench.mscfs is not None:
            with_replica = replace(bench.mscfs, replica_url=near_url, replica_bucket=near.name)
            try:
                _fill(bench, with_replica, far_url, bucket, near)
            except MountFailedError as error:
                bench.fail(EPOCH, with_replica.name, error)
            systems = [with_replica, replace(bench.mscfs, name=ALONE), *systems]
        for _ in bench.rounds():
            for system in systems:

                def read(mount: Mount, system: System = system) -> None:
                    bench.take(EPOCH, system.name, lambda: _read(bench, mount), mount)

                bench.on(system, [EPOCH], bucket, read, url=far_url)


def _fill(bench: Bench, system: Mscfs, url: str, bucket: Bucket, near: Bucket) -> None:
    with scratch(bench.directory) as own:
        place = Place(own, url, bucket.name, disk_cache=False)
        system.run(system.prepare(place), "sync-replicas", PROFILE, timeout=300)
    missing = sum(not near.holds(f"train/{number:06}", _OBJECT) for number in range(bench.scale.epoch))
    if missing:
        raise MountFailedError(f"sync-replicas left out {missing} objects")


def _read(bench: Bench, mount: Mount) -> Outcome:
    result = bench.load("read_many", directory=str(mount.path / "train"), readers=READERS)
    if result["bytes"] != bench.scale.epoch * _OBJECT:
        raise Unfit(f"read {result['bytes']} bytes of {bench.scale.epoch} objects")
    extras = {"median ms": result["median"] * 1e3, "p99 ms": result["p99"] * 1e3}
    return Outcome(result["files"] / result["seconds"], int(result["bytes"]), extras)
