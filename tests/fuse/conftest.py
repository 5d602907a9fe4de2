"""A mount for each test that asks for one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuse.mounting import Mounted, prepare, unmount_whatever_is_left


@pytest.fixture
def make_mount(tmp_path: Path) -> Iterator[Callable[..., Mounted]]:
    """Mount a `file` primary with two `file` replicas; keywords are `mscfs` options."""
    made: list[Mounted] = []

    def make(*arguments: str, **options: Any) -> Mounted:
        mounted = prepare(tmp_path, **options)
        made.append(mounted)
        mounted.mount(*arguments)
        return mounted

    yield make
    for mounted in made:
        unmount_whatever_is_left(mounted)
