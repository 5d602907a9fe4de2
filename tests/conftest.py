"""Fixtures of all tests. Those of servers live in `tests.emulators` and are listed here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

pytest.register_assert_rewrite("tests.providers.contract")

pytest_plugins = [
    "tests.emulators.azure",
    "tests.emulators.broken",
    "tests.emulators.fault_proxy",
    "tests.emulators.gcs",
    "tests.emulators.s3",
    "tests.secret_scan",
]

# How quick a machine is tells nothing of a property.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

_LEAKING_PREFIXES = ("AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "STORAGE_EMULATOR", "MSC_", "MSCFS_")
_SYSTEMD_DIRECTORIES = ("STATE_DIRECTORY", "CACHE_DIRECTORY", "RUNTIME_DIRECTORY")


@pytest.fixture(autouse=True)
def isolated_environment(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own for every test: no state, configuration or credentials of the machine leak in or out.

    What mounts have logged there is searched for secrets (contract L5).
    """
    home = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(_LEAKING_PREFIXES) or name in _SYSTEMD_DIRECTORIES:
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    for variable, directory in (
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_STATE_HOME", "state"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_RUNTIME_DIR", "run"),
    ):
        (home / directory).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(home / directory))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(home / "etc"))
    # The SDKs would otherwise ask the metadata service of a cloud machine, and wait for it.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield home
    # It is a plugin: not before pytest has rewritten its assertions.
    from tests import secret_scan

    for log in home.rglob("*.log"):
        assert secret_scan.find(log.read_text(errors="replace")) is None, f"a secret is in {log}"


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests of time-outs and outages mostly wait."""
    return (os.cpu_count() or 1) + 1


class TogetherScheduling(LoadFileScheduling):
    """The tests of a file stay in one process, with their servers; those of `tests/programs` share mounts."""

    def _split_scope(self, nodeid: str) -> str:
        path: str = super()._split_scope(nodeid)
        return "tests/programs" if path.startswith("tests/programs/") else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> TogetherScheduling:
    """See TogetherScheduling."""
    return TogetherScheduling(config, log)
