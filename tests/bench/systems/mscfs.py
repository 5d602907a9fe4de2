"""mscfs itself."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from tests.bench.interruption import ending
from tests.bench.server import ACCESS_KEY, REGION, SECRET_KEY
from tests.bench.systems.base import Mount, MountFailedError, Place, System, is_mounted, said

_COMMAND = [sys.executable, "-m", "mscfs.cli.main"]
_UNMOUNT_SECONDS = 120.0
PROFILE = "bench"


@dataclass
class Mscfs(System):
    """Mounted by `mscfs mount`, which returns when the mount answers."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """Keys of the profile's `mscfs` block."""
    replica_url: str = ""
    replica_bucket: str = ""
    """With these the profile has a replica."""
    name: str = "mscfs"
    install: str = "bash .ci/bootstrap"
    settings: str = "defaults; caching_enabled where the disk cache is measured"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return said([*_COMMAND, "--version"])

    @contextmanager
    def start(self, place: Place) -> Iterator[Mount]:
        environment = self.prepare(place)
        try:
            began = perf_counter()
            self.run(environment, "mount", PROFILE, str(place.mountpoint))
            ready = perf_counter() - began
            logs = list((place.directory / "xdg_state_home").glob("**/*.log"))
            log = logs[0] if logs else None
            yield Mount(place.mountpoint, [self._daemon(place)], ready, log, lambda: self._reads(environment))
        finally:
            # It returns when the daemon has ended. When `mount` failed or was interrupted nothing is mounted.
            if is_mounted(place.mountpoint):
                self.run(environment, "umount", str(place.mountpoint), timeout=_UNMOUNT_SECONDS)

    def prepare(self, place: Place) -> dict[str, str]:
        """Write the configuration; returns the environment that finds it."""
        (place.directory / "config.json").write_text(json.dumps(self.configuration(place)))
        directories = {name: str(place.made(name.lower())) for name in _DIRECTORIES}
        return place.environment({"MSC_CONFIG": str(place.directory / "config.json"), **directories})

    def configuration(self, place: Place) -> dict[str, Any]:
        """The configuration file."""
        profiles = {PROFILE: {**_store(place.url, place.bucket), "caching_enabled": place.disk_cache}}
        if self.options:
            profiles[PROFILE]["mscfs"] = dict(self.options)
        if self.replica_url:
            profiles["near"] = _store(self.replica_url, self.replica_bucket)
            profiles[PROFILE]["replicas"] = [{"replica_profile": "near", "read_priority": 1}]
        return {"profiles": profiles, "cache": {"size": "20G", "location": str(place.made("cache"))}}

    def run(self, environment: Mapping[str, str], *arguments: str, timeout: float = 60.0) -> str:
        """Run a command of mscfs; returns what it prints. Raises MountFailedError with its last line."""
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*_COMMAND, *arguments], env=environment, cwd="/", start_new_session=True, **pipes)
        # Interrupted, it leaves nothing mounted and nothing running; killed, it could not see to that.
        with process, ending(process, signal.SIGINT):
            try:
                output, errors = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                raise MountFailedError(f"mscfs {arguments[0]} took longer than {timeout:g} s") from None
        if process.returncode != 0:
            raise MountFailedError((errors or output).strip().splitlines()[-1])
        return output

    def _reads(self, environment: Mapping[str, str]) -> int:
        """How often the daemon was asked for a chunk so far."""
        [mount] = json.loads(self.run(environment, "status", "--json"))
        return int(mount["cache"]["hits"] + mount["cache"]["misses"])

    def _daemon(self, place: Place) -> int:
        records = list((place.directory / "xdg_runtime_dir").glob("**/*.mount"))
        if len(records) != 1:
            raise MountFailedError(f"{len(records)} records of mounts instead of one")
        return int(json.loads(records[0].read_text())["pid"])


_DIRECTORIES = ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")


def _store(url: str, bucket: str) -> dict[str, Any]:
    return {
        "storage_provider": {
            "type": "s3",
            "options": {"base_path": bucket, "endpoint_url": url, "region_name": REGION},
        },
        "credentials_provider": {
            "type": "S3Credentials",
            "options": {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY},
        },
    }
