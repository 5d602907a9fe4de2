"""A process that runs Python programs on directories, one after the other: its imports are paid once.

Each line of standard input is a JSON list [program, directory]; each line of output is what the program returned, or
the traceback of its error.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path


def serve() -> None:
    # Whatever a program prints goes to stderr: the real standard output is for answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from tests.programs.training import PROGRAMS

    for line in sys.stdin:
        name, directory = json.loads(line)
        answer: dict[str, object]
        try:
            answer = {"result": PROGRAMS[name](Path(directory))}
        except BaseException:  # noqa: BLE001  the one who asked tells it
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
