"""The ceilings: obstore without a file system, in the ways that suit each work best.

Each function runs in a process of its own (`child.call`).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MIB = 1 << 20


def get_ranges(url: str, bucket: str, key: str, size: int, threads: int = 4, piece: int = 8 * MIB) -> dict[str, float]:
    """One object in parallel ranges."""
    import obstore

    store = _store(url, bucket)

    def get(offset: int) -> int:
        return len(obstore.get_range(store, key, start=offset, length=min(piece, size - offset)))

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        done = sum(pool.map(get, range(0, size, piece)))
        return {"seconds": time.perf_counter() - began, "bytes": done}


def get_many(url: str, bucket: str, keys: list[str], threads: int = 16, processes: int = 1) -> dict[str, float]:
    """Many objects, one GET each."""
    random.Random(1).shuffle(keys)
    if processes == 1:
        return _get_many(url, bucket, keys, threads)
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        pool.starmap(_get_many, [(url, bucket, keys[:threads], threads)] * processes, chunksize=1)
        shares = [(url, bucket, keys[number::processes], threads) for number in range(processes)]
        began = time.perf_counter()
        results = pool.starmap(_get_many, shares, chunksize=1)
        return {"seconds": time.perf_counter() - began, "bytes": sum(result["bytes"] for result in results)}


def _get_many(url: str, bucket: str, keys: list[str], threads: int) -> dict[str, float]:
    import obstore

    store = _store(url, bucket)

    def get(share: list[str]) -> int:
        return sum(len(obstore.get(store, key).bytes()) for key in share)

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        done = sum(pool.map(get, [keys[number::threads] for number in range(threads)]))
        return {"seconds": time.perf_counter() - began, "bytes": done}


def list_all(url: str, bucket: str, prefixes: list[str]) -> dict[str, float]:
    """The names and sizes below some prefixes, one listing after the other."""
    import obstore

    store = _store(url, bucket)
    began = time.perf_counter()
    entries = sum(len(page) for prefix in prefixes for page in obstore.list(store, prefix))
    return {"seconds": time.perf_counter() - began, "entries": entries}


def put_parts(url: str, bucket: str, key: str, size: int, threads: int = 8, piece: int = 8 * MIB) -> dict[str, float]:
    """One object in parallel parts."""
    import obstore

    store = _store(url, bucket)
    content = random.Random(3).randbytes(MIB) * (size // MIB)
    began = time.perf_counter()
    obstore.put(store, key, content, chunk_size=piece, max_concurrency=threads)
    return {"seconds": time.perf_counter() - began}


def put_many(url: str, bucket: str, files: int, size: int, threads: int = 8) -> dict[str, float]:
    """Many small objects, one PUT each."""
    import obstore

    store = _store(url, bucket)
    content = os.urandom(size)

    def put(share: range) -> None:
        for number in share:
            obstore.put(store, f"raw/{number:06}", content, use_multipart=False)

    with ThreadPoolExecutor(threads) as pool:
        began = time.perf_counter()
        list(pool.map(put, [range(number, files, threads) for number in range(threads)]))
        return {"seconds": time.perf_counter() - began}


def _store(url: str, bucket: str) -> Any:
    from obstore.store import S3Store

    from tests.bench.server import ACCESS_KEY, REGION, SECRET_KEY

    return S3Store(
        bucket,
        config={
            "endpoint": url,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "virtual_hosted_style_request": False,
        },
        client_options={"allow_http": True},
    )
