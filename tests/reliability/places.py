"""Where a long form works: its own temporary directory, and nothing of the machine's state."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DIRECTORIES = {
    "HOME": "home",
    "XDG_CONFIG_HOME": "config",
    "XDG_STATE_HOME": "state",
    "XDG_CACHE_HOME": "cache",
    "XDG_RUNTIME_DIR": "run",
}


@contextmanager
def own_directories() -> Iterator[Path]:
    """What the fixture `isolated_environment` is for tests, for a program that ends afterwards."""
    with tempfile.TemporaryDirectory(prefix="mscfs-reliability-") as name:
        root = Path(name)
        for variable, directory in DIRECTORIES.items():
            (root / directory).mkdir(mode=0o700)
            os.environ[variable] = str(root / directory)
        yield root
