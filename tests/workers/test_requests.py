"""Who is served first."""

import threading

from msgspec.structs import replace

from mscfs.types import Version
from mscfs.workers.protocol import Download, Fetch, Step, Upload
from mscfs.workers.requests import RequestQueue

VERSION = Version(1, "tag")


def fetch(number, *, foreground):
    return Fetch(number, b"key", VERSION, 0, 1, 0, foreground)


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


def test_a_promoted_fetch_overtakes_the_background_and_needs_no_thread_of_it():
    queue = RequestQueue(background_threads=1)
    for number in range(1, 5):
        queue.put(fetch(number, foreground=False))
    first = queue.get()
    assert first.request.id == 1  # takes the one thread for the background
    queue.promote(3)
    queue.put(fetch(5, foreground=True))
    third = queue.get()
    assert [third.request.id, queue.get().request.id] == [3, 5]
    queue.done(third)  # it gives no thread back that it did not take
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.get().request.id))
    thread.start()
    queue.done(first)
    thread.join(10)
    assert got == [2]


def test_promoting_what_is_under_way_answered_or_in_the_foreground_changes_nothing():
    queue = RequestQueue(background_threads=1)
    queue.put(fetch(1, foreground=False))
    queue.put(fetch(2, foreground=True))
    queue.promote(2)
    queue.promote(99)
    assert queue.get().request.id == 2
    under_way = queue.get()
    queue.promote(1)
    queue.put(fetch(3, foreground=False))
    queue.done(under_way)
    queue.promote(1)
    assert queue.get().request.id == 3


def test_a_promoted_request_can_be_abandoned():
    queue = RequestQueue(1)
    queue.put(fetch(1, foreground=False))
    queue.promote(1)
    queue.abandon(1)
    assert queue.get().is_abandoned


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


def test_R9_a_thread_that_is_given_up_counts_no_more():
    queue = RequestQueue(background_threads=1)
    queue.put(fetch(1, foreground=False))
    queue.put(fetch(2, foreground=False))
    assert not queue.give_up(1), "no thread has it"
    stuck = queue.get()
    assert queue.give_up(1)
    assert not queue.give_up(1)
    assert queue.get().request.id == 2  # another thread may work in the background meanwhile
    assert stuck.is_given_up
    queue.put(fetch(3, foreground=False))
    queue.done(stuck)
    assert not queue.give_up(1)
    got = []
    thread = threading.Thread(target=lambda: got.append(queue.get().request.id))
    thread.start()
    thread.join(0.05)
    assert got == []
    queue.put(fetch(4, foreground=True))
    thread.join(10)
    assert got == [4]


def test_R9_a_second_request_goes_before_all_others():
    queue = RequestQueue(background_threads=1)
    for number in range(1, 4):
        queue.put(fetch(number, foreground=True))
    queue.put(replace(fetch(4, foreground=True), without=("slow",)))
    assert [queue.get().request.id for _ in range(4)] == [4, 1, 2, 3]
