from pathlib import Path

import pytest

from mscfs.cli import umount
from mscfs.cli.mount_table import BusyError
from mscfs.errors import MountError

PLACE = Path("/mnt/data")


@pytest.fixture
def busy(monkeypatch):
    """A mount that is busy so often, and who uses it; `pauses` between the tries are not waited for."""
    pauses = []

    def pretend(times, users=(), state="answers"):
        left = iter(range(times))

        def unmount(place, *, lazy=False):
            if next(left, None) is not None:
                raise BusyError("target is busy")

        monkeypatch.setattr(umount, "unmount", unmount)
        monkeypatch.setattr(umount, "probe", lambda place, timeout: state)
        monkeypatch.setattr(umount, "holders", lambda place: list(users))
        monkeypatch.setattr(umount.time, "sleep", pauses.append)
        return pauses

    return pretend


def test_L2_a_call_that_is_just_under_way_keeps_nobody_from_unmounting(busy):
    pauses = busy(3)
    umount.detach(PLACE)
    assert len(pauses) == 3


@pytest.mark.parametrize(
    ("users", "state", "tries"), [(["bash (7)"], "answers", 1), ([], "hangs", 1), ([], "answers", umount._TRIES)]
)
def test_a_mount_that_stays_in_use_is_said_to_be(busy, users, state, tries):
    pauses = busy(100, users, state)
    with pytest.raises(MountError, match=f"in use by {users[0][:4] if users else 'a program'}"):
        umount.detach(PLACE)
    assert len(pauses) == tries - 1
