"""Real images, an unmodified training script, and where the bytes came from."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mscfs.config.load import load_config
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, with_replicas, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator, pytest.mark.slow, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).with_name("train.py")
IMAGES = 1797


def digits() -> Iterator[tuple[str, bytes]]:
    """scikit-learn's handwritten digits as PNG files: (key, content)."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    for number, (pixels, digit) in enumerate(zip(data.images, data.target, strict=True)):
        file = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(file, format="PNG")
        yield f"digits/{digit}/{number:04d}.png", file.getvalue()


@pytest.fixture
def mounted(tmp_path: Path, s3_server: Any, gcs_server: Any) -> Iterator[Mounted]:
    write_config(
        tmp_path,
        {
            "data": with_replicas(s3_server.new_bucket(), "near", "far", page_cache=False),
            "near": file_store(tmp_path / "near"),
            "far": gcs_server.new_bucket(),
        },
    )
    m = Mounted(tmp_path)
    primary = store(m, "data")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda item: primary.put(*item), digits()))
    m.mount()
    yield m
    unmount_whatever_is_left(m)


def served_by_replicas(status: dict[str, Any]) -> int:
    """Reads; on a busy machine the second replica answers a second request now and then."""
    return sum(replica["hits"] for replica in status["replicas"])


def store(m: Mounted, profile: str) -> StorageProvider:
    return open_provider(load_config(m.config), profile)


class Training:
    """The script as a person starts it; each epoch's line as it comes."""

    def __init__(self, m: Mounted, epochs: int) -> None:
        (m.path / "checkpoints").mkdir(exist_ok=True)
        command = [sys.executable, str(SCRIPT), str(m.path / "digits"), str(m.path / "checkpoints"), str(epochs)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd="/"
        )
        self._errors: list[str] = []
        self._reader = threading.Thread(target=self._read_errors)
        self._reader.start()

    def next_epoch(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "".join(self._errors)
        return json.loads(line)

    def finish(self) -> None:
        self._process.wait(timeout=300)
        self._reader.join()
        assert self._process.returncode == 0, "".join(self._errors)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)


def test_R3_R6_W1_W2_W7_training_from_replicas(mounted: Mounted) -> None:
    m = mounted
    first = Training(m, epochs=1)
    epoch = first.next_epoch()
    first.finish()
    assert epoch["files"] == IMAGES
    m.drain()
    after_first = m.status()
    assert after_first["primary"]["hits"] >= IMAGES

    # Two epochs more: everything is on the replicas now, and the primary serves no file any more.
    training = Training(m, epochs=2)
    training.next_epoch()
    last = training.next_epoch()
    training.finish()
    assert last["accuracy"] > 0.9
    after = m.status()
    assert served_by_replicas(after) - served_by_replicas(after_first) >= 2 * IMAGES
    assert after["primary"]["hits"] == after_first["primary"]["hits"]

    # The checkpoint: byte for byte on the primary now, on both replicas after drain.
    checkpoint = (m.path / "checkpoints/last.pt").read_bytes()
    assert store(m, "data").get("checkpoints/last.pt").read_all() == checkpoint
    m.drain()
    for profile in ("near", "far"):
        assert store(m, profile).get("checkpoints/last.pt").read_all() == checkpoint
    import torch

    assert torch.load(io.BytesIO(checkpoint))["epoch"] == 2
    assert os.listdir(m.path / "checkpoints") == ["last.pt"]
