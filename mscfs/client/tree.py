"""Removing a directory and everything below it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from mscfs.providers.base import StorageProvider

THREADS = 8
BATCH = 1000


def remove_tree(store: StorageProvider, directory: str) -> None:
    """Remove all objects below `directory` (a key that ends in `/`, or "" for all), then the directories.

    Raises the first error after the batch of objects it belongs to; what was removed until then stays removed.
    """
    directories = [directory]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="mscfs-delete") as pool:
        for current in directories:  # grows while it is walked
            keys = _split(store, current, directories)
            while batch := list(islice(keys, BATCH)):
                errors = [future.exception() for future in [pool.submit(store.delete, key) for key in batch]]
                for error in errors:
                    if error is not None:
                        raise error
    for emptied in reversed(directories):
        if emptied:
            store.remove_directory(emptied)


def _split(store: StorageProvider, directory: str, directories: list[str]) -> Iterator[str]:
    """The objects directly in a directory; its sub-directories are appended to `directories`."""
    for entry in store.list_directory(directory):
        if entry.is_directory:
            directories.append(entry.key)
        else:
            yield entry.key
