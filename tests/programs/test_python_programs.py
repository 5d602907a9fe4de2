"""Each program of `tests.programs.training`, on a mount and on local disk: what it finds is the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.programs.places import Twins, Worker

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

PROGRAMS = re.findall(r"^@program\ndef (\w+)", Path(__file__).with_name("training.py").read_text(), re.MULTILINE)


@pytest.mark.parametrize("program", PROGRAMS)
def test_python(program: str, twins: Twins, worker: Worker, results: dict[str, Any]):
    if program not in results:
        results[program] = worker.run(program, twins.local)
    assert worker.run(program, twins.mounted) == results[program]
