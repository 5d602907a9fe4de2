"""How a program of mscfs ends: with 0, or with one clear line on standard error and the exit code of the error."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from mscfs.errors import ConfigError, MscfsError
from mscfs.log import configure_terminal
from mscfs.printable import printable

EXIT_BUG = 70  # EX_SOFTWARE
EXIT_INTERRUPTED = 130
DEBUG_VARIABLE = "MSCFS_DEBUG"
"""Set to anything: errors show where they come from. In the environment, because a daemon inherits it."""


def run(action: Callable[[], object]) -> NoReturn:
    """Run the program; does not return."""
    configure_terminal()
    try:
        action()
    except ConfigError as error:
        _fail(str(error), error.exit_code)  # as many lines as there are problems
    except MscfsError as error:
        _fail(printable(str(error)), error.exit_code)  # its key may hold anything, also line breaks
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except OSError as error:
        _fail(what_failed(error), 1)
    except Exception as error:  # noqa: BLE001 - a bug is a line too; the traceback is for who asks for it
        _fail(f"internal error: {type(error).__name__}: {error} (set {DEBUG_VARIABLE}=1 to see where)", EXIT_BUG)
    sys.exit(0)


def what_failed(error: OSError) -> str:
    """One line for an error of the operating system."""
    return f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)


def examples(*lines: str) -> str:
    """What stands below the help of a command."""
    return "\n\n".join(["Examples:", *lines])


def note(message: str) -> None:
    """Something for the person at the terminal, on one line."""
    print(f"mscfs: {printable(message)}", file=sys.stderr)  # noqa: T201 - the answer


def _fail(message: str, code: int) -> NoReturn:
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exc()
    for line in message.splitlines():
        note(line)
    sys.exit(code)
