"""Work done by a program of its own, so that the benchmark's own threads and memory do not disturb what is timed.

`call("tests.bench.load", "read_file", path=...)` runs that function in a fresh interpreter. Arguments and result are
JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.bench.interruption import ending

_PROJECT = Path(__file__).parents[2]


class ChildError(Exception):
    """The program failed; the message is the last it said."""


def call(module: str, function: str, /, *, timeout: float = 300.0, **arguments: Any) -> Any:
    """Run one function in a program of its own. Raises ChildError, also after `timeout` seconds."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(_PROJECT), os.environ.get("PYTHONPATH", "")))}
    command = [sys.executable, "-m", "tests.bench.child", module, function]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, env=environment, cwd=_PROJECT, start_new_session=True, **pipes)
    with process, ending(process):
        try:
            output, errors = process.communicate(json.dumps(arguments).encode(), timeout)
        except subprocess.TimeoutExpired:
            raise ChildError(f"{function} took longer than {timeout:g} s") from None
    if process.returncode != 0:
        lines = errors.decode(errors="replace").strip().splitlines() or [f"ended with {process.returncode}"]
        raise ChildError(lines[-1])
    return json.loads(output)


def main() -> None:
    """Read arguments from standard input, write the result to standard output."""
    module, function = sys.argv[1:]
    result = getattr(importlib.import_module(module), function)(**json.load(sys.stdin))
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
