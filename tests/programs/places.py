"""Where a program runs: a directory on the mount and its twin on local disk, and how the two are compared."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).parents[2]

ALL_PRIMARIES = ("file", "s3", "gcs", "azure")


def _on(*primaries: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("mounted", primaries, indirect=True, scope="package")


on_all = _on(*ALL_PRIMARIES)
on_two = _on("file", "s3")
on_one = _on("file")


@dataclass(frozen=True)
class Twins:
    """Two empty directories."""

    mounted: Path
    local: Path

    def sh(self, script: str, **variables: str | Path) -> str:
        """Run a shell script in both; returns its output, which must be the same, and so must be what it leaves.

        A script ends at its first failure. `variables` are in its environment.
        """
        outputs = [run_script(script, here, **variables) for here in (self.local, self.mounted)]
        assert outputs[1] == outputs[0]
        self.compare()
        return outputs[1]

    def compare(self) -> None:
        """Names, kinds, modes, contents and targets of links are the same."""
        assert tree(self.mounted) == tree(self.local)


def run_script(script: str, here: Path, **variables: str | Path) -> str:
    """The output of a shell script that runs in a directory."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **{name: str(value) for name, value in variables.items()}}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"in {here}: {done.stdout}{done.stderr}"
    return done.stdout


def tree(directory: Path) -> dict[str, tuple[Any, ...]]:
    """Everything below a directory by relative path."""
    return {str(path.relative_to(directory)): _described(path) for path in sorted(directory.rglob("*"))}


def _described(path: Path) -> tuple[Any, ...]:
    status = path.lstat()
    mode = oct(stat.S_IMODE(status.st_mode))
    if stat.S_ISLNK(status.st_mode):
        return ("link", os.readlink(path))
    if stat.S_ISDIR(status.st_mode):
        return ("directory", mode)
    content = path.read_bytes()
    assert len(content) == status.st_size
    return ("file", mode, content)


class Worker:
    """The process that runs Python programs; started with the first of them."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None

    def run(self, program: str, directory: Path) -> Any:
        """What a program of `tests.programs.training` returns. AssertionError with its traceback if it fails."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._process = self._started()
        print(json.dumps([program, str(directory)]), file=_pipe(process.stdin), flush=True)
        line = _pipe(process.stdout).readline()
        assert line, f"the worker ended during {program} in {directory}"
        answer = json.loads(line)
        assert "error" not in answer, f"in {directory}: {answer['error']}"
        return answer["result"]

    def close(self) -> None:
        if self._process is not None:
            _pipe(self._process.stdin).close()
            self._process.wait(30)
            _pipe(self._process.stdout).close()

    def _started(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.programs.worker"],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
