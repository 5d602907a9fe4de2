"""Starting a mount that cannot work: one clear line, a non-zero exit, nothing left mounted (L1). And a bug (L3)."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.emulators.fault_proxy import FaultProxy
from tests.fuse.mounting import Mounted, file_store, mscfs, unmount_whatever_is_left, wait_until, write_config

pytestmark = pytest.mark.mount


def refused(root: Path, profile: dict[str, Any], **others: dict[str, Any]) -> str:
    """The one line that `mscfs mount` says."""
    write_config(root, {"data": profile, **others})
    m = Mounted(root)
    m.path.mkdir()
    done = mscfs("mount", "--config", m.config, "data", m.path, check=False)
    assert done.returncode != 0
    assert not m.is_mounted()
    # On a busy machine it says meanwhile that it is still starting.
    (line,) = [line for line in done.stderr.strip().splitlines() if "still starting" not in line]
    assert line.startswith("mscfs: ")
    assert "Traceback" not in done.stdout + done.stderr
    return line


def elsewhere(profile: dict[str, Any], place: str) -> dict[str, Any]:
    profile["storage_provider"]["options"]["base_path"] = place
    return profile


def test_L1_missing_base_directory(tmp_path: Path) -> None:
    line = refused(tmp_path, elsewhere(file_store(tmp_path / "x"), str(tmp_path / "absent")))
    assert str(tmp_path / "absent") in line
    assert not (tmp_path / "absent").exists()


@pytest.mark.emulator
@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_L1_missing_bucket(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(f"{kind}_server")
    assert "no-such-place" in refused(tmp_path, elsewhere(server.new_bucket(), "no-such-place"))


@pytest.mark.emulator
@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
def test_L1_store_is_down(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue(f"{kind}_server")
    profile = server.new_bucket()
    options = profile["storage_provider"]["options"]
    options["endpoint_url"] = "http://127.0.0.1:9/devstoreaccount1" if kind == "azure" else "http://127.0.0.1:9"
    profile["retry"] = {"attempts": 1, "delay": 0}
    if kind == "azure":
        profile["credentials_provider"]["options"]["connection"] = server.connection().replace(
            server.url, options["endpoint_url"]
        )
    refused(tmp_path, profile)


@pytest.fixture
def silent(fault_proxy: Callable[[str], FaultProxy]) -> FaultProxy:
    """A server that takes requests and never answers."""
    proxy = fault_proxy("http://127.0.0.1:9")
    proxy.freeze()
    return proxy


def nobody(url: str = "http://127.0.0.1:9") -> dict[str, Any]:
    """A store where nothing listens, or what does never answers."""
    return {
        "storage_provider": {
            "type": "s3",
            "options": {"base_path": "bucket", "endpoint_url": url, "region_name": "us-east-1"},
        },
        "credentials_provider": {"type": "S3Credentials", "options": {"access_key": "a", "secret_key": "b"}},
        "retry": {"attempts": 1, "delay": 0},
        "mscfs": {"store_timeout": 1},
    }


def test_L1_R8_no_store_answers(tmp_path: Path) -> None:
    """With a replica that answers the mount would begin without its primary; with none there is nothing to serve."""
    profile = {**nobody(), "replicas": [{"replica_profile": name, "read_priority": 1} for name in ("near", "disk")]}
    line = refused(tmp_path, profile, near=nobody(), disk=elsewhere(file_store(tmp_path / "x"), str(tmp_path / "gone")))
    assert "no replica answers either" in line


def test_L1_L2_no_store_says_anything(tmp_path: Path, silent: FaultProxy) -> None:
    """They take connections and never answer."""
    profile = {**nobody(silent.url), "replicas": [{"replica_profile": "near", "read_priority": 1}]}
    begun = time.monotonic()
    assert "no replica answers either" in refused(tmp_path, profile, near=nobody(silent.url))
    assert time.monotonic() - begun < 30


def test_R8_L2_the_primary_says_nothing_from_the_start(tmp_path: Path, silent: FaultProxy) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "near/a").write_text("a copy")
    profile = {**nobody(silent.url), "replicas": [{"replica_profile": "near", "read_priority": 1}]}
    write_config(tmp_path, {"data": profile, "near": file_store(tmp_path / "near")})
    m = Mounted(tmp_path)
    m.path.mkdir()
    begun = time.monotonic()
    try:
        done = mscfs("mount", "--config", m.config, "data", m.path)
        assert "mounted degraded, the primary is down" in done.stderr
        assert m.status()["state"] == "degraded"
        assert (m.path / "a").read_text() == "a copy"
        assert "no answer" in mscfs("where", m.path / "a").stdout
        m.drain()
        descriptor = os.open(m.path / "new", os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, b"written in the outage")
        os.kill(m.pid, signal.SIGTERM)
        wait_until(lambda: not m.is_mounted(), 30)
        with pytest.raises(OSError):
            os.close(descriptor)
        assert "new" in mscfs("recover", "list", "data", "--config", m.config).stdout
        assert time.monotonic() - begun < 90
    finally:
        unmount_whatever_is_left(m)


@pytest.mark.emulator
def test_L1_L5_denied_access_shows_no_secret(tmp_path: Path, azure_server: Any) -> None:
    profile = azure_server.new_bucket()
    wrong = azure_server.wrong_key()
    profile["credentials_provider"]["options"]["connection"] = wrong
    line = refused(tmp_path, profile)
    assert wrong.partition("AccountKey=")[2].partition(";")[0] not in line


def test_L3_a_bug_is_an_eio_for_one_call_and_the_mount_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    profile = file_store(tmp_path / "primary")
    profile["storage_provider"]["type"] = "tests.fuse.buggy.BuggyProvider"
    profile["mscfs"] = {"metadata_ttl": 0}  # so that each stat asks for the name itself
    write_config(tmp_path, {"data": profile})
    (tmp_path / "primary/fine").write_bytes(b"fine")
    m = Mounted(tmp_path)
    m.mount()
    try:
        for _ in range(3):
            with pytest.raises(OSError) as error:
                os.stat(m.path / "bug")
            assert error.value.errno == errno.EIO
            assert (m.path / "fine").read_bytes() == b"fine"
        (log,) = Path(os.environ["XDG_STATE_HOME"], "mscfs/log").iterdir()
        assert "ZeroDivisionError: a bug" in log.read_text()
        assert m.status()["state"] == "healthy"
    finally:
        unmount_whatever_is_left(m)
