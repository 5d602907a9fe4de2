"""The kill test in its short form. The long one: python -m tests.reliability.kill --cycles 500 [--primary s3]."""

from __future__ import annotations

import pytest

from tests.emulators.s3 import S3Server
from tests.fuse.mounting import file_store
from tests.reliability.kill import run

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(600)]


def test_W2_W3_W4_W7_W8_nothing_acknowledged_is_lost_when_the_daemon_is_killed(tmp_path):
    figures = run(tmp_path, file_store(tmp_path / "primary"), cycles=20, seed=1)
    assert figures.losses == []
    assert figures.cycles == 20


def test_W2_W3_W4_W7_W8_nothing_acknowledged_is_lost_on_an_object_store(tmp_path, ministack: S3Server):
    figures = run(tmp_path, ministack.new_bucket(), cycles=8, seed=2)
    assert figures.losses == []
    assert figures.cycles == 8
