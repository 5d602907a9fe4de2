from __future__ import annotations

import subprocess
import sys

import pytest

import mscfs

NAMES = {
    "ByteRange",
    "DrainResult",
    "ExecutionMode",
    "ObjectMetadata",
    "Range",
    "StorageClient",
    "StorageClientConfig",
    "SyncResult",
    "delete",
    "download_file",
    "errors",
    "glob",
    "info",
    "is_empty",
    "is_file",
    "list",
    "open",
    "resolve_storage_client",
    "sync_replicas",
    "upload_file",
    "write",
}


def test_the_public_names():
    assert set(mscfs.__all__) == NAMES
    assert set(dir(mscfs)) >= NAMES
    for name in NAMES:
        assert getattr(mscfs, name) is not None
    assert mscfs.Range is mscfs.ByteRange
    with pytest.raises(AttributeError, match="nothing"):
        mscfs.nothing  # noqa: B018 - the access is what is tested


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout


def test_importing_mscfs_loads_nothing_heavy():
    heavy = ("trio", "pydantic", "boto3", "botocore", "google.cloud", "azure", "obstore", "yaml", "typer", "rich")
    loaded = run("import sys, mscfs; print(*sorted(sys.modules))").split()
    assert [name for name in loaded if name.split(".")[0] in heavy or name.startswith(("mscfs.", *heavy))] == []


def test_the_client_loads_no_sdk_and_no_trio_before_a_profile_is_opened():
    heavy = {"trio", "boto3", "botocore", "obstore", "azure", "google", "typer", "rich"}
    code = (
        "import sys, mscfs;"
        "mscfs.StorageClient(mscfs.StorageClientConfig.from_dict({'profiles': {'p':"
        " {'storage_provider': {'type': 's3', 'options': {'base_path': 'b'}}}}}, 'p'));"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    assert heavy.isdisjoint(run(code).split())


def test_importing_mscfs_takes_less_than_120_ms():
    code = "import time; begun = time.process_time(); import mscfs; print(time.process_time() - begun)"
    assert min(float(run(code)) for _ in range(5)) < 0.120  # of the processor: what else the machine does is no matter


def test_from_mscfs_import_star_gives_exactly_the_public_names():
    names = run("before = set(globals()) | {'before'}\nfrom mscfs import *\nprint(*sorted(set(globals()) - before))")
    assert set(names.split()) == NAMES
