"""Each program of `tests.programs.training`, on a mount and on local disk: what it finds is the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.programs.places import Twins, Worker, on_all, on_one, on_two

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

# Not imported: PyTorch is for the worker.
_WRITTEN = Path(__file__).with_name("training.py").read_text()


def written_for(where: str) -> list[str]:
    return re.findall(rf"^@{where}\ndef (\w+)", _WRITTEN, re.MULTILINE)


@on_all
@pytest.mark.parametrize("program", written_for("demanding"))
def test_python(program: str, twins: Twins, worker: Worker, results: dict[str, Any]):
    run(program, twins, worker, results)


@on_two
@pytest.mark.parametrize("program", written_for("program"))
def test_more_python(program: str, twins: Twins, worker: Worker, results: dict[str, Any]):
    run(program, twins, worker, results)


@on_one
def test_python_with_spawned_workers(twins: Twins, worker: Worker, results: dict[str, Any]):
    """PyTorch is imported anew for it: once, and not again for the local directory, where forked ones say the same."""
    expected = on_local_disk("dataloader_with_forked_workers", twins, worker, results)
    assert worker.run("dataloader_with_persistent_spawned_workers", twins.mounted) == expected


def run(program: str, twins: Twins, worker: Worker, results: dict[str, Any]) -> None:
    expected = on_local_disk(program, twins, worker, results)
    assert worker.run(program, twins.mounted) == expected


def on_local_disk(program: str, twins: Twins, worker: Worker, results: dict[str, Any]) -> Any:
    if program not in results:
        results[program] = worker.run(program, twins.local)
    return results[program]
