"""What the benchmark needs of a file system: mount a bucket with nothing cached, take it away again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.interruption import ending, mountpoints, scratch
from tests.bench.server import ACCESS_KEY, SECRET_KEY

_READY_SECONDS = 30.0
_UNMOUNT_SECONDS = 60.0


class MountFailedError(Exception):
    """A file system could not be mounted; the message is the last it said."""


@dataclass
class Mount:
    """A bucket as a directory."""

    path: Path
    roots: list[int]
    """The processes that make it, without their descendants."""
    ready: float
    """Seconds from the command to the first answer."""
    log: Path | None = None
    """Where the file system complains."""
    count_reads: Callable[[], int] | None = None
    """How many reads have reached the file system so far, where it can tell."""

    def complaint(self) -> str:
        """The last line of the log that is no mere information."""
        if self.log is None or not self.log.exists():
            return ""
        lines = self.log.read_text(errors="replace").splitlines()
        return next((line for line in reversed(lines) if line.strip() and " INFO " not in line), "")


@dataclass(frozen=True)
class Place:
    """Directories of one mount, all empty, and its store."""

    directory: Path
    url: str
    bucket: str
    disk_cache: bool

    @property
    def mountpoint(self) -> Path:
        """Where it is mounted."""
        return self.directory / "mnt"

    def made(self, name: str) -> Path:
        """A directory for files of the system's own."""
        path = self.directory / name
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Nothing of this machine's: no credentials, no CA bundle (rclone fails with one), a home of its own."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH", "VIRTUAL_ENV") if name in os.environ}
        own = {
            "HOME": str(self.made("home")),
            "TMPDIR": str(self.made("tmp")),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return {**kept, **own, **(extra or {})}


class System(ABC):
    """One file system."""

    name: str
    install: str
    """What to do when it is not there."""
    settings: str = "defaults"
    """How it is started, in words for the report."""

    def missing(self) -> str | None:
        """How to get it, when it is not installed."""
        return None if shutil.which(self.name) else self.install

    def version(self) -> str:
        """What it says of itself."""
        return said([self.name, "--version"])

    @contextmanager
    def mounted(self, directory: Path, url: str, bucket: str, *, disk_cache: bool = False) -> Iterator[Mount]:
        """Mount a bucket cold; afterwards nothing of it is left. Raises MountFailedError.

        With `disk_cache`, its cache on local disk is turned on.
        """
        with scratch(directory, re.sub(r"[^a-z0-9]+", "-", self.name) + "-") as own:
            place = Place(own, url, bucket, disk_cache)
            place.made("mnt")
            try:
                with self.start(place) as mount:
                    yield mount
            finally:
                detach(place.mountpoint)

    @abstractmethod
    def start(self, place: Place) -> AbstractContextManager[Mount]:
        """Mount, as a context manager."""


class ForegroundSystem(System):
    """A file system whose program stays in the foreground, and is ready when its directory is a mount that answers."""

    @abstractmethod
    def command(self, place: Place) -> Sequence[str | os.PathLike[str]]:
        """What to run."""

    def prepare(self, place: Place) -> None:
        """Write configuration files."""

    def mounted_path(self, place: Place) -> Path:
        """Where the bucket's objects appear."""
        return place.mountpoint

    @contextmanager
    def start(self, place: Place) -> Iterator[Mount]:
        self.prepare(place)
        log = place.directory / "log"
        with log.open("wb") as output:
            began = time.perf_counter()
            process = subprocess.Popen(
                list(self.command(place)),
                env=place.environment(),
                cwd=place.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        with process, ending(process):
            wait_until_mounted(place.mountpoint, process, log)
            path = self.mounted_path(place)
            path.stat()
            yield Mount(path, [process.pid], time.perf_counter() - began, log)
            unmount(place.mountpoint)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_UNMOUNT_SECONDS)


def unmount(mountpoint: Path) -> None:
    """Unmount in order. Raises MountFailedError when it is in use for long."""
    deadline = time.monotonic() + _UNMOUNT_SECONDS
    while is_mounted(mountpoint):
        done = subprocess.run(["fusermount3", "-u", mountpoint], capture_output=True, check=False)
        if done.returncode != 0 and is_mounted(mountpoint):
            if time.monotonic() > deadline:
                raise MountFailedError(done.stderr.decode(errors="replace").strip())
            time.sleep(0.1)


def detach(mountpoint: Path) -> None:
    """Take away what is still mounted, whatever its state."""
    while is_mounted(mountpoint):
        done = subprocess.run(["fusermount3", "-uz", mountpoint], capture_output=True, check=False)
        if done.returncode != 0 and subprocess.run(["umount", "-l", mountpoint], check=False).returncode != 0:
            break


def is_mounted(mountpoint: Path) -> bool:
    """Whether something is mounted there; does not ask the file system itself, which may not answer."""
    return str(mountpoint) in mountpoints()


def said(command: Sequence[str]) -> str:
    """The first line a command prints."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ((done.stdout or done.stderr).decode(errors="replace").strip().splitlines() or [""])[0]


def wait_until_mounted(mountpoint: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when a program has mounted something there. Raises MountFailedError with the last line of its log."""
    deadline = time.monotonic() + _READY_SECONDS
    while not is_mounted(mountpoint):
        if process.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines() or [f"ended with {process.returncode}"]
            raise MountFailedError(lines[-1])
        if time.monotonic() > deadline:
            raise MountFailedError(f"not mounted after {_READY_SECONDS:g} s")
        time.sleep(0.01)
