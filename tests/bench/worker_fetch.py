"""How fast small objects come through a worker process, and chunks out of the cache.

    python -m tests.bench.worker_fetch [--directory DIR] [--objects N] [--processes N] [--threads N]

By hand, on a machine that does nothing else; a directory on tmpfs leaves the disk out of it.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import trio

from mscfs.cache.chunks import ChunkCache, object_digest
from mscfs.cache.files import ChunkId
from mscfs.config.load import parse_config
from mscfs.store import open_store
from mscfs.workers.pool import WorkerPool

MIB = 1 << 20
OBJECT = 100 << 10
READERS = 16


async def fetch_small_objects(directory: Path, objects: int, processes: int, threads: int) -> None:
    config = parse_config(
        {"profiles": {"bench": {"storage_provider": {"type": "file", "options": {"base_path": f"{directory}/store"}}}}}
    )
    (directory / "store").mkdir()
    store = open_store(config, "bench")
    content, versions = os.urandom(OBJECT), {}
    for number in range(objects):
        path = directory / "store" / str(number % 10) / str(number)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        versions[f"{number % 10}/{number}"] = store.head(f"{number % 10}/{number}").version
    with ChunkCache(directory / "cache", 4 << 30) as cache:
        pool = WorkerPool(
            config, "bench", cache.settings, namespace=store.identity, chunk_size=MIB,
            fetch_processes=processes, fetch_threads=threads,
        )  # fmt: skip
        async with trio.open_nursery() as nursery:
            began = time.perf_counter()
            await nursery.start(pool.run)
            print(f"start of the pool: {(time.perf_counter() - began) * 1e3:.0f} ms")
            waiting = list(versions.items())
            cpu, began = time.process_time(), time.perf_counter()

            async def read() -> None:
                while waiting:
                    key, version = waiting.pop()
                    await pool.fetch(key, version, 0, 1, foreground=True, on_chunk=lambda index, data: None)

            async with trio.open_nursery() as readers:
                for _ in range(READERS):
                    readers.start_soon(read)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            nursery.cancel_scope.cancel()
        print(
            f"cold fetches of 100 KiB: {objects / seconds:.0f}/s, {cpu / objects * 1e6:.0f} µs of the daemon for each"
        )
        missing = sum(not cache.contains(ChunkId(object_digest(store.identity, key, version, MIB), 0))
                      for key, version in versions.items())  # fmt: skip
        assert not missing, f"{missing} chunks did not arrive"
    store.close()


def open_chunks(directory: Path, chunks: int = 200) -> None:
    with ChunkCache(directory / "chunks", 4 << 30) as cache:
        content = os.urandom(MIB)
        names = [ChunkId("0" * 32, index) for index in range(chunks)]
        began = time.perf_counter()
        for name in names:
            cache.insert(name, content)
        inserted = (time.perf_counter() - began) / chunks
        began = time.perf_counter()
        for name in names * 5:
            chunk = cache.open(name)
            assert chunk is not None
            assert len(chunk.view) == MIB
            chunk.close()
        opened = (time.perf_counter() - began) / chunks / 5
    print(f"insert 1 MiB: {inserted * 1e6:.0f} µs")
    print(f"open and verify 1 MiB: {opened * 1e6:.0f} µs, {1 / opened / 1024:.1f} GiB/s")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--directory", default=tempfile.gettempdir())
    arguments.add_argument("--objects", type=int, default=5000)
    arguments.add_argument("--processes", type=int, default=1)
    arguments.add_argument("--threads", type=int, default=4)
    options = arguments.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="mscfs-bench-", dir=options.directory))
    os.environ["XDG_STATE_HOME"] = str(directory)
    try:
        open_chunks(directory)
        trio.run(fetch_small_objects, directory, options.objects, options.processes, options.threads)
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
