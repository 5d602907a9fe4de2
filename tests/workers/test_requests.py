"""Who is served first."""

import threading

from mscfs.types import Version
from mscfs.workers.protocol import Download, Fetch, Step, Upload
from mscfs.workers.requests import RequestQueue

VERSION = Version(1, "tag")


def fetch(number, *, foreground):
    return Fetch(number, b"key", VERSION, 0, 1, foreground)


def test_foreground_goes_before_what_came_earlier_in_the_background():
    queue = RequestQueue(2)
    for request in [
        fetch(1, foreground=False),
        Step(2, "replica", b"key", False),
        fetch(3, foreground=True),
        Upload(4, b"key", b"/path", None, None, False, None),
        Download(5, b"key", VERSION, b"/path"),
    ]:
        queue.put(request)
    assert [queue.get().request.id for _ in range(5)] == [3, 4, 5, 1, 2]


def test_background_work_never_takes_all_threads():
    queue = RequestQueue(background_threads=1)
    queue.put(fetch(1, foreground=False))
    queue.put(fetch(2, foreground=False))
    first = queue.get()
    assert first.request.id == 1
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.get().request.id))
    thread.start()
    queue.put(fetch(3, foreground=True))
    thread.join(10)
    assert got == [3]
    thread = threading.Thread(target=lambda: got.append(queue.get().request.id))
    thread.start()
    queue.done(first)
    thread.join(10)
    assert got == [3, 2]


def test_a_request_is_open_until_done_and_can_be_abandoned_meanwhile():
    queue = RequestQueue(1)
    assert queue.is_idle
    queue.put(fetch(1, foreground=True))
    queue.put(fetch(2, foreground=True))
    queue.abandon(2)
    first, second = queue.get(), queue.get()
    queue.abandon(1)
    assert (first.is_abandoned, second.is_abandoned) == (True, True)
    queue.done(first)
    assert not queue.is_idle
    queue.done(second)
    queue.abandon(2)
    assert queue.is_idle
