import errno
from contextlib import suppress

import pyfuse3
import pytest

from mscfs.errors import StoreUnavailableError
from mscfs.fuse.operations import Operations
from mscfs.fuse.requests import BOUNDS, OperationCounts, RequestCounts


def test_a_duration_belongs_to_the_first_bound_that_it_does_not_exceed():
    counts = OperationCounts()
    for seconds in (0.0, *BOUNDS, BOUNDS[-1] * 2):
        counts.ended(seconds)
    assert counts.durations == [2, *[1] * (len(BOUNDS) - 1), 1]
    assert counts.seconds == pytest.approx(sum(BOUNDS) + BOUNDS[-1] * 2)


class Answering:
    """A file system whose read does what it is told."""

    def __init__(self, ends_with):
        self._ends_with = ends_with

    async def read(self, handle, offset, size):
        if isinstance(self._ends_with, Exception):
            raise self._ends_with
        return self._ends_with

    async def open(self, inode, flags):
        raise self._ends_with


@pytest.mark.parametrize(
    ("ends_with", "errors"),
    [
        (b"content", {}),
        (StoreUnavailableError("refused"), {errno.EIO: 1}),
        (OSError("without a number"), {errno.EIO: 1}),
        (FileNotFoundError(errno.ENOENT, "gone"), {errno.ENOENT: 1}),
        (pyfuse3.FUSEError(errno.ESTALE), {errno.ESTALE: 1}),
        (ZeroDivisionError(), {errno.EIO: 1}),
    ],
)
async def test_every_request_is_counted_however_it_ends(ends_with, errors):
    requests = RequestCounts()
    operations = Operations(Answering(ends_with), None, requests, read_only=False)
    with suppress(pyfuse3.FUSEError):
        await operations.read(1, 0, 4096)
    assert list(requests) == ["read"]
    counts = requests["read"]
    assert (counts.begun, sum(counts.durations), dict(counts.errors)) == (1, 1, errors)
    assert 0 < counts.seconds < 10


async def test_a_name_that_the_kernel_looks_up_anew_is_no_warning(caplog):
    """A busy mount whose files are replaced elsewhere would fill its log."""
    operations = Operations(Answering(OSError(errno.ESTALE, "replaced")), None, RequestCounts(), read_only=False)
    for call in (operations.open(1, 0, None), operations.read(1, 0, 4096)):
        with pytest.raises(pyfuse3.FUSEError):
            await call
    assert [record.getMessage() for record in caplog.records] == ["read failed with ESTALE: [Errno 116] replaced"]
