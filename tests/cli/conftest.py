import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mscfs.cli import mount_table
from mscfs.cli.mount_table import MSCFS_TYPE
from mscfs.fuse.mounts import mounted_at


@dataclass
class Machine:
    """A place with three stores, and the command line in an environment of its own."""

    root: Path
    environment: dict[str, str]

    @property
    def mountpoint(self) -> Path:
        return self.root / "mnt"

    def store(self, name: str) -> Path:
        return self.root / "stores" / name

    def run(self, *arguments, module="mscfs.cli.main", timeout=60, **variables):
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.root,
            check=False,
        )

    def mount(self, *more):
        done = self.run("mount", "data", self.mountpoint, *more)
        assert (done.returncode, done.stderr) == (0, "")

    def status(self):
        return json.loads(self.run("status", self.mountpoint, "--json").stdout)

    def states(self):
        """What `mscfs status` tells of the mounts of the test; others may run on this machine."""
        told = json.loads(self.run("status", "--json").stdout)
        return [mount["state"] for mount in told if Path(mount["mountpoint"]).is_relative_to(self.root)]

    def is_mounted(self):
        return mounted_at(self.mountpoint) is not None

    def daemons(self):
        """The records of mounts that were not taken back."""
        return [json.loads(path.read_text()) for path in (self.root / "run" / "mscfs").glob("*.mount")]


@pytest.fixture
def machine(tmp_path):
    names = ("primary", "near", "far")
    profiles = {
        "data": {
            "storage_provider": {"type": "file", "options": {"base_path": str(tmp_path / "stores" / "primary")}},
            "replicas": [
                {"replica_profile": "near", "read_priority": 1},
                {"replica_profile": "far", "read_priority": 2},
            ],
        },
        **{
            name: {"storage_provider": {"type": "file", "options": {"base_path": str(tmp_path / "stores" / name)}}}
            for name in names[1:]
        },
    }
    for name in names:
        (tmp_path / "stores" / name).mkdir(parents=True)
    (tmp_path / "mnt").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"profiles": profiles}))
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MSC", "XDG_"))}
    machine = Machine(
        tmp_path,
        {
            **kept,
            "MSC_CONFIG": str(tmp_path / "config.json"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "XDG_RUNTIME_DIR": str(tmp_path / "run"),
            "COLUMNS": "120",
        },
    )
    yield machine
    for record in machine.daemons():
        try:
            os.kill(record["pid"], signal.SIGKILL)
        except ProcessLookupError:
            continue
    while (entry := mounted_at(machine.mountpoint)) is not None and entry.type == MSCFS_TYPE:
        mount_table.unmount(machine.mountpoint, lazy=True)
