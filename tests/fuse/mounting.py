"""Real mounts for tests, made with the command line as a person would."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

MSCFS = [sys.executable, "-m", "mscfs.cli.main"]


def mscfs(*arguments: str | Path, check: bool = True, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run one command; its output is text."""
    done = subprocess.run(
        [*MSCFS, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, **more
    )
    if check and done.returncode:
        raise AssertionError(f"mscfs {arguments} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done


@dataclass
class Mounted:
    """A mount of profile `data`; `stores` are the directories of `file` stores by profile.

    `environment` is that of its commands; None: the test's.
    """

    root: Path
    profile: str = "data"
    environment: dict[str, str] | None = None

    @property
    def path(self) -> Path:
        return self.root / "mnt"

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    def store(self, name: str) -> Path:
        return self.root / name

    def mount(self, *options: str) -> None:
        # Not looked at first: a dead mountpoint answers nothing, and mscfs has to put that right by itself.
        with suppress(OSError):
            self.path.mkdir()
        self.mscfs("mount", "--config", self.config, self.profile, self.path, *options)

    def umount(self) -> None:
        self.mscfs("umount", self.path)

    def drain(self) -> None:
        self.mscfs("drain", self.path, "--timeout", "60")

    def status(self) -> dict[str, Any]:
        return json.loads(self.mscfs("status", self.path, "--json").stdout)

    def mscfs(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        return mscfs(*arguments, check=check, env=self.environment)

    @property
    def pid(self) -> int:
        return int(self.status()["pid"])

    def is_mounted(self) -> bool:
        return str(self.path) in Path("/proc/self/mounts").read_text()


def write_config(root: Path, profiles: dict[str, Any], **top: Any) -> Path:
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump({"profiles": profiles, **top}))
    return path


def file_store(directory: Path) -> dict[str, Any]:
    directory.mkdir(parents=True, exist_ok=True)
    return {"storage_provider": {"type": "file", "options": {"base_path": str(directory)}}}


def with_replicas(primary: dict[str, Any], *replicas: str, **mscfs_options: Any) -> dict[str, Any]:
    return {
        **primary,
        "replicas": [
            {"replica_profile": name, "read_priority": priority} for priority, name in enumerate(replicas, start=1)
        ],
        "mscfs": mscfs_options,
    }


def prepare(root: Path, **mscfs_options: Any) -> Mounted:
    """A `file` primary with replicas `near` and `far`, not mounted yet."""
    write_config(
        root,
        {
            "data": with_replicas(file_store(root / "primary"), "near", "far", **mscfs_options),
            "near": file_store(root / "near"),
            "far": file_store(root / "far"),
        },
    )
    return Mounted(root)


def unmount_whatever_is_left(mounted: Mounted) -> None:
    """The end of every test: nothing stays mounted, whatever happened."""
    if mounted.is_mounted():
        mounted.mscfs("umount", mounted.path, check=False)
    if mounted.is_mounted():
        subprocess.run(["fusermount3", "-uz", str(mounted.path)], check=False)


def wait_until(condition, seconds: float = 20.0) -> None:
    """Poll for what another process brings about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.02)


def is_running(pid: int) -> bool:
    """Whether a process has not ended; one that nobody collected yet has."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    return False


def tree(directory: Path) -> dict[str, bytes]:
    """All files below a directory by relative path."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
