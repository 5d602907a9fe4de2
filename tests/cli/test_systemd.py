import configparser
import re
import subprocess
from pathlib import Path

import pytest

from mscfs.config.values import MscfsOptions

SYSTEMD = Path(__file__).parents[2] / "systemd"
UNIT = SYSTEMD / "mscfs@.service"


class Unit(configparser.RawConfigParser):
    optionxform = staticmethod(str)


@pytest.fixture(scope="module")
def service():
    unit = Unit(strict=False)
    # A key that stands several times keeps its last value here: the tests ask for single ones.
    unit.read_string(UNIT.read_text())
    return unit["Service"]


def test_the_unit_verifies_without_a_word():
    verified = subprocess.run(["systemd-analyze", "verify", UNIT], capture_output=True, text=True, check=False)
    # An unknown value is only a warning with exit code 0.
    assert (verified.returncode, verified.stderr) == (0, "")


def test_L2_systemd_waits_longer_than_a_mount_takes_to_stop(service):
    assert float(service["TimeoutStopSec"]) > MscfsOptions().shutdown_timeout


def test_L5_directories_are_0700(service):
    assert {service[f"{kind}DirectoryMode"] for kind in ("State", "Cache", "Runtime")} == {"0700"}
    assert {service[f"{kind}Directory"] for kind in ("State", "Cache", "Runtime")} == {"mscfs"}


def test_one_instance_that_stops_leaves_the_sockets_of_the_others(service):
    assert service["RuntimeDirectoryPreserve"] == "yes"


def test_the_mount_is_seen_outside_of_the_service():
    # Each of these gives the service a mount namespace of its own (systemd.exec(5)).
    private = r"^(Protect(System|Home|KernelTunables|KernelModules|KernelLogs|ControlGroups|Proc|Clock)|Private\w+|"
    private += r"ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|TemporaryFileSystem|Bind\w*Paths|DynamicUser|Root\w+)="
    assert re.findall(private, UNIT.read_text(), re.MULTILINE) == []


def test_every_setting_of_the_example_is_used_by_the_unit_or_by_mscfs():
    names = re.findall(r"^#?([A-Z_]+)=", (SYSTEMD / "mscfs.env.example").read_text(), re.MULTILINE)
    unit = UNIT.read_text()
    assert names
    for name in names:
        assert name in unit or name in {"MSC_CONFIG", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
