"""One mount for each kind of primary, with a `file` replica, for all tests of this package.

The emulators of GCS and Azure are slow at many small files: on them only those programs run whose demands on a store
are special: those that save, replace, lock, map and change in place. All others run on `file` and S3.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, with_replicas, write_config
from tests.programs.places import ALL_PRIMARIES, Twins, Worker

_numbers = itertools.count()


@pytest.fixture(scope="package", params=ALL_PRIMARIES)
def mounted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    root = tmp_path_factory.mktemp(f"programs-{request.param}")
    write_config(root, {"data": with_replicas(_primary(request, root), "near"), "near": file_store(root / "near")})
    m = Mounted(root, environment=_environment(root))
    m.mount()
    yield m
    unmount_whatever_is_left(m)


def _primary(request: pytest.FixtureRequest, root: Path) -> dict[str, Any]:
    if request.param == "file":
        return file_store(root / "primary")
    server = {"s3": "ministack", "gcs": "gcs_server", "azure": "azure_server"}[request.param]
    return request.getfixturevalue(server).new_bucket()


def _environment(root: Path) -> dict[str, str]:
    """A home for the mount and the programs, which outlives the tests' own."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
    directories = {
        name: root / "home" / name.lower()
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    }
    for directory in directories.values():
        directory.mkdir(mode=0o700, parents=True)
    own = {name: str(directory) for name, directory in directories.items()}
    return {**kept, **own, "AWS_EC2_METADATA_DISABLED": "true"}


@pytest.fixture
def twins(mounted: Mounted, tmp_path: Path) -> Twins:
    name = f"{next(_numbers):03}"
    pair = Twins(mounted.path / name, tmp_path / "local")
    pair.mounted.mkdir()
    pair.local.mkdir()
    return pair


@pytest.fixture(scope="session")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    made = Worker({**_environment(tmp_path_factory.mktemp("worker")), **threads, **offline})
    yield made
    made.close()


@pytest.fixture(scope="session")
def results() -> dict[str, Any]:
    """What the Python programs returned on local disk."""
    return {}
