"""Real processes for tests: forked children, and programs that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

_SETUP = """
import os, signal, sys
from pathlib import Path
from mscfs.journal import *
from mscfs.types import Version
journal = Journal(Path(sys.argv[1]))
def die():
    os.kill(os.getpid(), signal.SIGKILL)
def say(text):
    print(text, flush=True)
def hear():
    return sys.stdin.readline()
"""


def program(path: Path, text: str) -> subprocess.Popen[str]:
    """A new Python process with `journal` open on `path`; `say` and `hear` are its pipes."""
    return subprocess.Popen(
        [sys.executable, "-c", _SETUP + text, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def killed(path: Path, text: str) -> None:
    """Run a program that must end by killing itself with SIGKILL."""
    with program(path, text) as process:
        process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL


def forked(work: Callable[[], None]) -> Callable[[], None]:
    """Run `work` in a forked child. Returns what waits for it; an exception in the child is an AssertionError here."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - shown, and told by the exit status
            traceback.print_exc()
        finally:
            os._exit(status)

    def wait() -> None:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0

    return wait
