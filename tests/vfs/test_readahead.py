"""How far in front of a reader bytes are asked for."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from mscfs.vfs.readahead import (
    BACKWARD_TOLERANCE,
    FIRST_WINDOW,
    FORWARD_TOLERANCE,
    LARGEST_WINDOW,
    ReadAhead,
    Window,
)

MIB = 1 << 20
READ = 128 << 10
LIMIT = LARGEST_WINDOW


def advance(window, end, *, stalled=False, limit=LIMIT):
    return window.advance(end, stalled=stalled, limit=limit)


def read(ahead, offset, size=READ, *, stalled=False, limit=LIMIT):
    """Tell of one read; what to fetch ahead."""
    window = ahead.window(offset, offset + size)
    return window.advance(offset + size, stalled=stalled, limit=limit) if window else None


def test_a_first_read_asks_for_nothing_and_the_second_for_the_first_window():
    ahead = ReadAhead()
    assert read(ahead, 0) is None
    assert read(ahead, READ) == (2 * READ, 2 * READ + FIRST_WINDOW)


def test_a_window_is_refilled_when_half_of_it_is_used_and_not_before():
    window = Window(0)
    assert advance(window, READ) == (READ, READ + FIRST_WINDOW)
    end = READ
    while end - READ < FIRST_WINDOW // 2 - READ:
        end += READ
        assert advance(window, end) is None
    end = READ + FIRST_WINDOW // 2 + 1
    assert advance(window, end) == (READ + FIRST_WINDOW, end + FIRST_WINDOW)


def test_ranges_asked_for_follow_each_other_without_gap_or_overlap():
    window, end, asked = Window(0), 0, []
    for number in range(2000):
        end += READ
        wanted = advance(window, end, stalled=number % 100 == 5)
        if wanted:
            asked.append(wanted)
    assert len(asked) > 5
    for (_, before), (begin, after) in itertools.pairwise(asked):
        assert begin == before
        assert after > begin


def test_a_window_doubles_when_the_reader_catches_up_with_it_up_to_the_limit():
    window, end = Window(0), READ
    _, until = advance(window, end)
    assert until - end == FIRST_WINDOW
    for expected in (2, 4, 8, 16, 32):
        end = until
        _, until = advance(window, end, stalled=True)
        assert until - end == expected * FIRST_WINDOW
    for _ in range(3):
        end = until
        _, until = advance(window, end, stalled=True)
        assert until - end == LARGEST_WINDOW


def test_a_window_stays_as_it_is_while_the_reader_never_waits():
    window, end = Window(0), READ
    for _ in range(1000):
        wanted = advance(window, end)
        assert wanted is None or wanted[1] - end == FIRST_WINDOW
        end += READ


def test_L4_no_window_is_larger_than_memory_allows():
    window = Window(0)
    assert advance(window, READ, limit=MIB // 2) == (READ, READ + MIB // 2)
    end = READ + MIB // 2
    assert advance(window, end, stalled=True, limit=3 * MIB // 4) == (end, end + 3 * MIB // 4)


def test_what_was_refused_is_asked_for_again_when_half_of_a_smaller_window_is_used():
    window = Window(0)
    advance(window, READ)
    end = READ + FIRST_WINDOW
    assert advance(window, end, stalled=True) == (end, end + 2 * FIRST_WINDOW)
    window.refused(end + FIRST_WINDOW)  # the first half was granted
    used = 0
    while used < FIRST_WINDOW // 2 - READ:
        used += READ
        assert advance(window, end + used) is None
    used = FIRST_WINDOW // 2 + READ
    assert advance(window, end + used) == (end + FIRST_WINDOW, end + used + FIRST_WINDOW)


def test_a_window_that_was_refused_altogether_grows_again_when_memory_is_back():
    window, end = Window(0), READ
    for _ in range(40):
        wanted = advance(window, end)
        if wanted:
            window.refused(end)
        end += READ
    stalls = 0
    while (wanted := advance(window, end, stalled=True)) is None or wanted[1] - end < FIRST_WINDOW:
        stalls += 1
        end += MIB
    assert stalls <= 5


def test_a_reader_that_steps_back_or_forward_a_little_goes_on_with_its_window():
    ahead = ReadAhead()
    read(ahead, 0)
    read(ahead, READ)
    here = ahead.window(2 * READ, 3 * READ)
    here.advance(32 * MIB, stalled=False, limit=LIMIT)
    assert here.position == 32 * MIB
    for offset in (32 * MIB - BACKWARD_TOLERANCE, 32 * MIB + FORWARD_TOLERANCE, 32 * MIB):
        assert ahead.window(offset, offset + READ) is here


def test_a_step_back_asks_for_nothing_that_was_asked_for_already():
    window = Window(0)
    _, until = advance(window, 10 * MIB)
    assert advance(window, 9 * MIB + READ) is None
    assert window.position == 10 * MIB
    wanted = advance(window, until)
    assert wanted[0] == until


def test_a_step_forward_leaves_out_what_it_jumped_over():
    window = Window(0)
    advance(window, READ)
    assert advance(window, 15 * MIB) == (15 * MIB, 15 * MIB + FIRST_WINDOW)


def test_a_jump_begins_a_stream_of_its_own():
    ahead = ReadAhead()
    read(ahead, 0)
    read(ahead, READ)
    beyond = 2 * READ + FORWARD_TOLERANCE + 1
    assert ahead.window(beyond, beyond + READ) is None
    assert ahead.window(beyond + READ, beyond + 2 * READ) is not None
    before = beyond + 2 * READ - BACKWARD_TOLERANCE - READ - 1
    assert ReadAhead().window(before, before + READ) is None


def test_two_parts_of_a_file_read_in_turn_keep_a_window_each():
    ahead = ReadAhead()
    one, two = 0, 500 * MIB
    asked = {0: [], 1: []}
    for _ in range(100):
        for number, offset in ((0, one), (1, two)):
            wanted = read(ahead, offset)
            if wanted:
                asked[number].append(wanted)
        one, two = one + READ, two + READ
    for begin, ranges in ((0, asked[0]), (500 * MIB, asked[1])):
        assert ranges[0] == (begin + 2 * READ, begin + 2 * READ + FIRST_WINDOW)
        assert ranges[-1][1] > begin + 100 * READ


def test_of_three_parts_the_one_read_longest_ago_begins_anew():
    ahead = ReadAhead()
    for begin in (0, 500 * MIB, 1000 * MIB):
        read(ahead, begin)
        read(ahead, begin + READ)
    assert ahead.window(1000 * MIB + 2 * READ, 1000 * MIB + 3 * READ) is not None
    assert ahead.window(500 * MIB + 2 * READ, 500 * MIB + 3 * READ) is not None
    assert ahead.window(2 * READ, 3 * READ) is None


def test_R7_a_random_reader_asks_for_nothing_ahead():
    ahead = ReadAhead()
    order = list(range(200))
    random.Random(7).shuffle(order)
    places = [number * 100 * MIB for number in order]
    assert [read(ahead, place, 4096) for place in places] == [None] * 200


def page_faults(ahead, begin, size=8 * MIB):
    """The kernel's requests around a fault of a mapped file, as they come; returns the bytes asked for ahead."""
    ranges = [read(ahead, offset, MIB, stalled=True) for offset in range(begin, begin + size, MIB)]
    return sum(wanted[1] - wanted[0] for wanted in ranges if wanted)


def test_page_faults_in_order_are_a_sequential_reader_also_after_a_first_touch_of_each_tensor():
    ahead = ReadAhead()
    for place in range(0, 2048 * MIB, 64 * MIB):
        page_faults(ahead, place)
    assert page_faults(ahead, 8 * MIB) > FIRST_WINDOW
    for place in range(16 * MIB, 64 * MIB, 8 * MIB):
        page_faults(ahead, place)
    last = None
    for offset in range(72 * MIB, 128 * MIB, MIB):  # behind what is in the page cache already
        last = read(ahead, offset, MIB, stalled=True) or last
    assert last[1] - 128 * MIB > 32 * MIB


def test_a_window_begins_anew_after_a_rest():
    ahead = ReadAhead()
    read(ahead, 0)
    ahead.rest()
    assert read(ahead, READ) is None


@given(
    st.lists(
        st.tuples(
            st.integers(-2 * MIB, 20 * MIB), st.integers(1, MIB), st.booleans(), st.integers(1, 80 * MIB), st.booleans()
        ),
        max_size=60,
    )
)
def test_L4_whatever_is_read_a_window_asks_only_for_what_lies_ahead_within_its_limit(steps):
    ahead, position = ReadAhead(), 0
    for step, size, stalled, limit, refuse in steps:
        offset = max(0, position + step)
        position = offset + size
        window = ahead.window(offset, position)
        if window is None:
            continue
        size_before = window._size
        wanted = window.advance(position, stalled=stalled, limit=limit)
        if wanted is None:
            continue
        begin, end = wanted
        assert position <= window.position <= begin < end <= window.position + max(limit, size_before)
        if refuse:
            window.refused(begin)


def test_R7_a_reader_that_passes_over_more_than_it_reads_gets_nothing_ahead_until_it_reads_on():
    ahead, offset, asked = ReadAhead(), 0, 0
    for _ in range(100):
        wanted = read(ahead, offset, 4096, stalled=True)
        asked += wanted[1] - wanted[0] if wanted else 0
        offset += 5 * MIB
    assert asked < 2 * FORWARD_TOLERANCE
    answers = []
    for _ in range(64 * MIB // READ):
        answers.append(read(ahead, offset))
        offset += READ
    assert any(answers)


def test_one_step_forward_within_the_tolerance_keeps_reading_ahead():
    ahead = ReadAhead()
    read(ahead, 0)
    assert read(ahead, READ)
    assert read(ahead, FORWARD_TOLERANCE)
