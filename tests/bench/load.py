"""The programs whose work is timed. They use plain system calls on a path, and know nothing of what is mounted there.

Each function runs in a process of its own (`child.call`); times are seconds.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

KIB = 1 << 10
MIB = 1 << 20


def read_file(path: str, block: int = MIB) -> dict[str, float]:
    """Read a file from beginning to end."""
    buffer = bytearray(block)
    began = time.perf_counter()
    descriptor = os.open(path, os.O_RDONLY)
    done = 0
    while count := os.readv(descriptor, [buffer]):
        done += count
    os.close(descriptor)
    return {"seconds": time.perf_counter() - began, "bytes": done}


def forget_pages(path: str) -> None:
    """Drop a file's pages from the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def read_many(directory: str, readers: int, order: str = "random", limit: int | None = None) -> dict[str, float]:
    """Read all files of a directory once, with some processes at once. The names are listed before the clock starts."""
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries)[:limit]
    if order == "random":
        random.Random(1).shuffle(names)
    paths = [f"{directory}/{name}" for name in names]
    results = _in_processes(readers, lambda number: _read_each(paths[number::readers]))
    latencies = sorted(latency for _, _, found in results for latency in found)
    return {
        "seconds": max(end for end, _, _ in results),
        "files": len(paths),
        "bytes": sum(count for _, count, _ in results),
        "median": statistics.median(latencies),
        "p99": latencies[len(latencies) * 99 // 100],
    }


def _read_each(paths: Sequence[str]) -> tuple[int, list[float]]:
    buffer, done, latencies = bytearray(256 * KIB), 0, []
    for path in paths:
        began = time.perf_counter()
        descriptor = os.open(path, os.O_RDONLY)
        while count := os.readv(descriptor, [buffer]):
            done += count
            if count < len(buffer):
                break
        os.close(descriptor)
        latencies.append(time.perf_counter() - began)
    return done, latencies


def find(directory: str) -> dict[str, float]:
    """`find` with the size of everything."""
    began = time.perf_counter()
    output = subprocess.run(
        ["find", directory, "-type", "f", "-printf", "%s\n"], stdout=subprocess.PIPE, check=True
    ).stdout
    return {"seconds": time.perf_counter() - began, "entries": output.count(b"\n")}


def read_randomly(path: str, block: int, seconds: float, direct: bool) -> dict[str, float]:
    """Read single blocks at random places for a while, with one thread."""
    size = os.stat(path).st_size
    flags = os.O_RDONLY | (os.O_DIRECT if direct else 0)
    chooser = random.Random(2)
    descriptor = os.open(path, flags)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    with mmap.mmap(-1, block) as buffer:
        reads = 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(32):
                place = chooser.randrange(size // block) * block
                assert os.preadv(descriptor, [buffer], place) == block
            reads += 32
        elapsed = time.perf_counter() - began
    os.close(descriptor)
    return {"seconds": elapsed, "reads": reads}


def write_file(path: str, size: int, sync: bool) -> dict[str, float]:
    """Write a file in sequence, fsync it if told so, close it."""
    block = random.Random(3).randbytes(MIB)
    times = [time.perf_counter()]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for _ in range(size // MIB):
        os.write(descriptor, block)
    times.append(time.perf_counter())
    if sync:
        os.fsync(descriptor)
    times.append(time.perf_counter())
    os.close(descriptor)
    times.append(time.perf_counter())
    writing, syncing, closing = (later - earlier for earlier, later in pairwise(times))
    return {"seconds": times[-1] - times[0], "write": writing, "fsync": syncing, "close": closing}


def write_many(directory: str, files: int, size: int, writers: int, server_file: str) -> dict[str, float]:
    """Create files with some processes at once; after each close(), look for the object on the server.

    `server_file` is where the server keeps an object, with `{name}` for its name.
    """
    content = random.Random(4).randbytes(size)

    def write(number: int) -> tuple[int, int]:
        missing = done = 0
        for index in range(number, files, writers):
            name = f"{index:06}"
            descriptor = os.open(f"{directory}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            os.write(descriptor, content)
            os.close(descriptor)
            try:
                missing += os.stat(server_file.replace("{name}", name)).st_size != size
            except FileNotFoundError:
                missing += 1
            done += 1
        return missing, done

    results = _in_processes(writers, write)
    return {
        "seconds": max(end for end, _, _ in results),
        "missing": sum(missing for _, missing, _ in results),
        "files": sum(done for _, _, done in results),
    }


def read_streams(paths: list[str], seconds: float) -> dict[str, Any]:
    """Read many files in sequence at the same time, one thread each; how far each came within `seconds`."""
    progress = [0] * len(paths)
    begin = threading.Barrier(len(paths) + 1)
    deadline = [0.0]

    def read(number: int) -> None:
        buffer = bytearray(128 * KIB)
        descriptor = os.open(paths[number], os.O_RDONLY)
        begin.wait()
        while time.perf_counter() < deadline[0] and (count := os.readv(descriptor, [buffer])):
            progress[number] += count
        os.close(descriptor)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(len(paths))]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    deadline[0] = began + seconds
    begin.wait()
    for thread in threads:
        thread.join()
    return {"seconds": time.perf_counter() - began, "bytes": sum(progress), "slowest": min(progress)}


def import_time(name: str) -> dict[str, float]:
    """Import a module in this fresh interpreter."""
    began = time.perf_counter()
    __import__(name)
    return {"seconds": time.perf_counter() - began}


def _in_processes(number: int, work: Callable[[int], tuple[Any, Any]]) -> list[tuple[float, Any, Any]]:
    """Run `work(0)`, `work(1)`, … in forked processes that begin together: (seconds until each ended, its results)."""
    import multiprocessing

    context = multiprocessing.get_context("fork")
    begin, results = context.Barrier(number + 1), context.SimpleQueue()
    began = context.Value(ctypes.c_double)

    def run(index: int) -> None:
        begin.wait()
        begin.wait()
        try:
            first, second = work(index)
            results.put((time.perf_counter() - began.value, first, second))
        except OSError as error:
            results.put(f"{type(error).__name__}: {error}")

    processes = [context.Process(target=run, args=(index,)) for index in range(number)]
    for process in processes:
        process.start()
    begin.wait()
    began.value = time.perf_counter()
    begin.wait()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    for result in found:
        if isinstance(result, str):
            raise OSError(result)
    return found


def compare(path: str, original: str, ranges: int = 16, block: int = 64 * KIB) -> int:
    """How many of some random ranges of a file differ from the original."""
    chooser, size = random.Random(5), Path(original).stat().st_size
    with open(path, "rb") as file, open(original, "rb") as truth:
        different = int(os.fstat(file.fileno()).st_size != size)
        for _ in range(ranges):
            place = chooser.randrange(max(1, size - block))
            file.seek(place)
            truth.seek(place)
            different += file.read(block) != truth.read(block)
    return different
