"""The kill test in its short form. The long one: python -m tests.reliability.kill --cycles 500."""

from __future__ import annotations

import pytest

from tests.fuse.mounting import file_store
from tests.reliability.kill import run

pytestmark = [pytest.mark.mount, pytest.mark.slow]


@pytest.mark.timeout(600)
def test_W2_W3_W4_W7_W8_nothing_acknowledged_is_lost_when_the_daemon_is_killed(tmp_path):
    figures = run(tmp_path, file_store(tmp_path / "primary"), cycles=20, seed=1)
    assert figures.losses == []
    assert figures.cycles == 20


@pytest.mark.emulator
@pytest.mark.timeout(600)
def test_W2_W3_W4_W7_W8_nor_with_an_object_store(tmp_path, s3_server):
    profile = s3_server.new_bucket()
    figures = run(tmp_path, profile, cycles=4, seed=2)
    assert figures.losses == []
    bucket = profile["storage_provider"]["options"]["base_path"].partition("/")[0]
    assert s3_server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
