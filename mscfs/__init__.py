"""mscfs: objects of several stores as one, read from the nearest healthy copy. This is the Python library.

    import mscfs

    with mscfs.open("msc://datasets/train/part-0001.tar", "rb") as file:
        ...

    client = mscfs.StorageClient(mscfs.StorageClientConfig.from_file(profile="datasets"))
    client.write("results/run-1.json", b"{}")

Nothing is loaded before it is used, so that importing mscfs costs next to nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mscfs import errors as errors
    from mscfs.client.client import StorageClient as StorageClient
    from mscfs.client.config import StorageClientConfig as StorageClientConfig
    from mscfs.client.drain import DrainResult as DrainResult
    from mscfs.client.shortcuts import delete as delete
    from mscfs.client.shortcuts import download_file as download_file
    from mscfs.client.shortcuts import glob as glob
    from mscfs.client.shortcuts import info as info
    from mscfs.client.shortcuts import is_empty as is_empty
    from mscfs.client.shortcuts import is_file as is_file
    from mscfs.client.shortcuts import list as list  # noqa: A004 - the name other object-storage libraries use
    from mscfs.client.shortcuts import open as open  # noqa: A004 - the library's counterpart of the built-in
    from mscfs.client.shortcuts import resolve_storage_client as resolve_storage_client
    from mscfs.client.shortcuts import sync_replicas as sync_replicas
    from mscfs.client.shortcuts import upload_file as upload_file
    from mscfs.client.shortcuts import write as write
    from mscfs.client.sync import ExecutionMode as ExecutionMode
    from mscfs.client.sync import SyncResult as SyncResult
    from mscfs.types import ByteRange as ByteRange
    from mscfs.types import ByteRange as Range  # noqa: F401 - public under both names
    from mscfs.types import ObjectMetadata as ObjectMetadata

# Where a public name lives: module and name in it.
_HOMES = {
    "ByteRange": "mscfs.types:ByteRange",
    "DrainResult": "mscfs.client.drain:DrainResult",
    "ExecutionMode": "mscfs.client.sync:ExecutionMode",
    "ObjectMetadata": "mscfs.types:ObjectMetadata",
    "Range": "mscfs.types:ByteRange",  # what other object-storage libraries call it
    "StorageClient": "mscfs.client.client:StorageClient",
    "StorageClientConfig": "mscfs.client.config:StorageClientConfig",
    "SyncResult": "mscfs.client.sync:SyncResult",
    "delete": "mscfs.client.shortcuts:delete",
    "download_file": "mscfs.client.shortcuts:download_file",
    "errors": "mscfs.errors:",
    "glob": "mscfs.client.shortcuts:glob",
    "info": "mscfs.client.shortcuts:info",
    "is_empty": "mscfs.client.shortcuts:is_empty",
    "is_file": "mscfs.client.shortcuts:is_file",
    "list": "mscfs.client.shortcuts:list",
    "open": "mscfs.client.shortcuts:open",
    "resolve_storage_client": "mscfs.client.shortcuts:resolve_storage_client",
    "sync_replicas": "mscfs.client.shortcuts:sync_replicas",
    "upload_file": "mscfs.client.shortcuts:upload_file",
    "write": "mscfs.client.shortcuts:write",
}

__all__ = tuple(_HOMES)


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'mscfs' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = importlib.import_module(module)
    if attribute:
        value = getattr(value, attribute)
    globals()[name] = value
    return value


def __dir__() -> Iterable[str]:
    return sorted({*globals(), *_HOMES})
