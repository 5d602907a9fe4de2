from __future__ import annotations

import pytest

from mscfs.errors import AccessDeniedError, NotFoundError, StoreMissingError
from mscfs.providers.presence import BELIEVED_SECONDS, BucketPresence


class Bucket:
    """A bucket without objects that counts how often it is asked for, and a clock."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.asked = 0
        self.now = 0.0
        self.presence = BucketPresence(self.probe, clock=lambda: self.now)

    def probe(self) -> None:
        self.asked += 1
        if self.failure:
            raise self.failure

    def read(self) -> None:
        with self.presence.confirmed():
            raise NotFoundError("no such object", key="k")


def test_missing_object_stays_missing_and_the_bucket_is_asked_for_once_a_minute() -> None:
    bucket = Bucket()
    for _ in range(5):
        with pytest.raises(NotFoundError):
            bucket.read()
    assert bucket.asked == 1
    bucket.now += BELIEVED_SECONDS
    with pytest.raises(NotFoundError):
        bucket.read()
    assert bucket.asked == 2


def test_missing_bucket_is_told_each_time() -> None:
    bucket = Bucket()
    bucket.failure = StoreMissingError("the bucket does not exist")
    for asked in (1, 2):
        with pytest.raises(StoreMissingError):
            bucket.read()
        assert bucket.asked == asked


def test_bucket_that_may_not_be_listed_is_there() -> None:
    bucket = Bucket()
    bucket.failure = AccessDeniedError("no")
    with pytest.raises(NotFoundError):
        bucket.read()


def test_success_and_other_errors_ask_for_nothing() -> None:
    bucket = Bucket()
    with bucket.presence.confirmed():
        pass
    with pytest.raises(AccessDeniedError), bucket.presence.confirmed():
        raise AccessDeniedError("no")
    assert bucket.asked == 0
