from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from mscfs.errors import NoSpaceError
from mscfs.journal import ClaimedWish, Journal, Wish, WishKind
from mscfs.journal.journal import FIRST_PAUSE, LONGEST_PAUSE
from tests.journal.processes import killed, program


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(tmp_path: Path, clock: Clock) -> Journal:
    return Journal(tmp_path / "journal.db", clock=clock)


def back_fill(key: str, replica: str = "r", size: int = 1) -> Wish:
    return Wish(replica, key, "back-fill", size)


def replicate(key: str, replica: str = "r", size: int = 1) -> Wish:
    return Wish(replica, key, "replicate", size)


def claim_one(journal: Journal) -> ClaimedWish:
    (claimed,) = journal.claim(10)
    return claimed


def test_W2_a_wish_is_there_after_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    for number in range(3):
        killed(path, f"journal.wish([Wish('r', 'k{number}', 'replicate', 5)]); die()")
    lag = Journal(path).lag()["r"]
    assert (lag.entries, lag.bytes) == (3, 15)


def test_W2_wishes_of_writes_are_synced_to_disk_and_those_of_reads_need_not_be(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    levels = []
    journal.wish([replicate("a")])
    levels.append(journal._database.query("PRAGMA synchronous")[0][0])
    journal.wish([back_fill("b")])
    levels.append(journal._database.query("PRAGMA synchronous")[0][0])
    journal.wish([back_fill("c"), replicate("d")])
    levels.append(journal._database.query("PRAGMA synchronous")[0][0])
    assert levels == [2, 1, 2]
    assert journal._database.query("PRAGMA journal_mode") == [("wal",)]


def test_one_row_for_each_replica_and_key(journal: Journal) -> None:
    for _ in range(3):
        journal.wish([back_fill("k", "one", 7), back_fill("k", "two", 7), back_fill("l", "one", 2)])
    assert {name: (lag.entries, lag.bytes) for name, lag in journal.lag().items()} == {"one": (2, 9), "two": (1, 7)}


@pytest.mark.parametrize(
    ("kinds", "stays"),
    [
        (("back-fill", "replicate"), "replicate"),
        (("back-fill", "delete"), "delete"),
        (("replicate", "back-fill"), "replicate"),
        (("delete", "back-fill"), "delete"),
        (("replicate", "delete"), "delete"),
        # A step that deletes copies when the primary has the object: nothing is lost by keeping it.
        (("delete", "replicate"), "delete"),
    ],
)
def test_a_wish_is_never_weakened(journal: Journal, kinds: tuple[WishKind, ...], stays: WishKind) -> None:
    for kind in kinds:
        journal.wish([Wish("r", "k", kind)])
    assert claim_one(journal).kind == stays


def test_finished_wishes_are_gone(journal: Journal) -> None:
    journal.wish([replicate("k")])
    journal.finish(claim_one(journal))
    assert journal.pending() == 0
    assert journal.claim(1) == []
    assert journal.next_due() is None
    assert journal.lag() == {}


@pytest.mark.parametrize("renewal", [back_fill("k", size=9), replicate("k", size=9)])
def test_a_wish_renewed_while_it_is_claimed_stays(journal: Journal, renewal: Wish) -> None:
    journal.wish([replicate("k")])
    claimed = claim_one(journal)
    journal.wish([renewal])
    assert journal.claim(1) == [], "one worker at a time"
    journal.finish(claimed)
    again = claim_one(journal)
    assert (again.size, again.attempts) == (9, 0)
    journal.finish(again)
    assert journal.pending() == 0


def test_a_wish_made_anew_after_it_was_finished_is_another_one(journal: Journal) -> None:
    journal.wish([replicate("k")])
    late = claim_one(journal)
    journal.finish(late)
    journal.wish([replicate("k")])
    journal.finish(late)
    assert journal.pending() == 1


def test_a_failed_wish_waits_longer_each_time(journal: Journal, clock: Clock) -> None:
    journal.wish([replicate("k")])
    for attempt in range(12):
        claimed = claim_one(journal)
        assert claimed.attempts == attempt
        pause = journal.postpone(claimed, "down")
        middle = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
        assert middle * 0.5 <= pause <= middle * 1.5
        assert journal.next_due() == pytest.approx(pause)
        assert journal.lag()["r"].last_error == "down"
        clock.now += pause - 0.01
        assert journal.claim(1) == []
        clock.now += 0.02
        assert journal.next_due() == 0


def test_W2_a_wish_of_a_clock_that_was_set_back_since_does_not_wait_for_that_day(
    journal: Journal, clock: Clock
) -> None:
    journal.wish([Wish("near", "a", "replicate")])
    clock.now -= 365 * 86_400.0
    pause = journal.next_due()
    assert pause is not None
    assert pause <= 1.5 * LONGEST_PAUSE
    clock.now += pause
    assert [claimed.key for claimed in journal.claim(10)] == ["a"]


def test_pauses_are_jittered(journal: Journal) -> None:
    journal.wish([replicate(f"k{number}") for number in range(20)])
    assert len({journal.postpone(claimed, "") for claimed in journal.claim(20)}) == 20


def test_jitter_leaves_the_random_numbers_of_the_program_alone(journal: Journal) -> None:
    import random

    journal.wish([replicate("k")])
    state = random.getstate()
    journal.postpone(claim_one(journal), "")
    assert random.getstate() == state


def test_a_drain_takes_what_is_not_due(journal: Journal) -> None:
    journal.wish([replicate("k")])
    journal.postpone(claim_one(journal), "down")
    assert journal.claim(1) == []
    assert [claimed.key for claimed in journal.claim(1, even_if_not_due=True)] == ["k"]


def test_a_write_hastens_a_postponed_wish_and_a_read_does_not(journal: Journal) -> None:
    journal.wish([replicate("k")])
    pause = journal.postpone(claim_one(journal), "cannot be copied")
    journal.wish([back_fill("k")])
    assert journal.next_due() == pytest.approx(pause)
    journal.wish([replicate("k")])
    assert journal.next_due() == 0
    assert claim_one(journal).attempts == 1, "the next pause is longer all the same"


def test_released_wishes_are_free_at_once(journal: Journal) -> None:
    journal.wish([replicate("k")])
    claimed = claim_one(journal)
    journal.release(claimed)
    assert claim_one(journal) == claimed


@pytest.mark.parametrize(
    "give_back",
    [
        lambda journal, claimed: journal.finish(claimed),
        lambda journal, claimed: journal.postpone(claimed, "down"),
        lambda journal, claimed: journal.release(claimed),
    ],
    ids=["finish", "postpone", "release"],
)
def test_W2_a_wish_that_could_not_be_given_back_is_tried_again_by_the_same_process(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, give_back: Callable[[Journal, ClaimedWish], object]
) -> None:
    journal.wish([replicate("k")])
    claimed = claim_one(journal)

    def full(**_: object) -> NoReturn:
        raise NoSpaceError("no room for the journal")

    with monkeypatch.context() as trouble:
        trouble.setattr(journal._database, "transaction", full)
        for call in (lambda: give_back(journal, claimed), lambda: journal.claim(1)):
            with pytest.raises(NoSpaceError):
                call()
    assert claim_one(journal) == claimed
    assert journal.claim(1) == [], "it is voided once"


def test_the_oldest_come_first_over_all_replicas(journal: Journal, clock: Clock) -> None:
    for number, replica in enumerate("bababa"):
        clock.now += 1
        journal.wish([replicate(f"k{number}", replica)])
    assert [claimed.key for claimed in journal.claim(4)] == ["k0", "k1", "k2", "k3"]
    assert [claimed.key for claimed in journal.claim(4)] == ["k4", "k5"]


def test_wishes_of_chosen_replicas_only(journal: Journal, clock: Clock) -> None:
    journal.wish([replicate("1", "one"), replicate("2", "two")])
    clock.now += 5
    journal.wish([replicate("3", "three")])
    assert journal.pending(replicas=["one", "three"]) == 2
    assert journal.next_due(replicas=["none", "three"]) == 0
    assert journal.next_due(replicas=["none"]) is None
    assert journal.next_due(replicas=[]) is None
    assert journal.claim(5, replicas=[]) == []
    assert [claimed.key for claimed in journal.claim(5, replicas=["three", "two"])] == ["2", "3"]
    assert journal.next_due() == 0
    assert journal.next_due(replicas=["two"]) is None, "claimed"


def test_wishes_of_a_replica_that_left_the_configuration_stay_until_they_are_forgotten(journal: Journal) -> None:
    journal.wish([replicate("k", "gone"), Wish("gone", "h", "hide"), replicate("k", "kept")])
    assert set(journal.lag()) == {"gone", "kept"}
    assert journal.forget_replica("gone") == 1
    assert set(journal.lag()) == {"kept"}
    assert not journal.is_behind("gone", "h")


def test_lag_tells_the_age_of_the_oldest_entry(journal: Journal, clock: Clock) -> None:
    journal.wish([replicate("old")])
    clock.now += 100
    journal.wish([replicate("new"), replicate("old")])
    assert journal.lag()["r"].oldest_seconds == 100


def test_lag_is_never_negative_when_the_clock_is_set_back(journal: Journal, clock: Clock) -> None:
    journal.wish([replicate("k")])
    clock.now -= 500
    assert journal.lag()["r"].oldest_seconds == 0


KEYS = ["plain", "sp ace", "ü", "a\nb", "%+#'\"", "\udcff\udc80", "nul\0nul", "é" * 500, "d/"]


@pytest.mark.parametrize("key", KEYS)
def test_N3_keys_of_any_bytes(journal: Journal, tmp_path: Path, key: str) -> None:
    journal.wish([replicate(key)])
    row = journal.begin_upload(key, tmp_path / os.fsdecode(b"st\xffaging"), "create", None)
    journal.begin_delete(key, None)
    assert claim_one(journal).key == key
    assert [(upload.key, upload.id) for upload in journal.uploads()] == [(key, row)]
    assert os.fsencode(journal.uploads()[0].staging).endswith(b"st\xffaging")
    assert journal.deletes()[0].key == key


class TestClaims:
    def test_claims_of_a_killed_process_are_void(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.db"
        journal = Journal(path)
        journal.wish([replicate(key) for key in "abc"])
        killed(path, "assert len(journal.claim(2)) == 2; die()")
        assert len(journal.claim(5)) == 1, "not before somebody looks"
        assert journal.release_dead_claims() == 2
        assert len(journal.claim(5)) == 2, "the live claim stays"
        assert journal.release_dead_claims() == 0

    def test_claims_of_a_zombie_are_void(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.db"
        journal = Journal(path)
        journal.wish([replicate("k")])
        with program(path, "journal.claim(1); say('claimed'); hear(); die()") as process:
            assert process.stdout is not None
            assert process.stdin is not None
            process.stdout.readline()
            assert journal.release_dead_claims() == 0
            process.stdin.write("\n")
            process.stdin.flush()
            process.stdout.read()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            assert journal.release_dead_claims() == 1

    def test_two_processes_never_claim_the_same_wish(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.db"
        journal = Journal(path)
        journal.wish([replicate(f"k{number}") for number in range(400)])
        text = """
hear()
while claimed := journal.claim(7):
    for wish in claimed:
        say(wish.key)
        journal.finish(wish)
"""
        workers = [program(path, text) for _ in range(3)]
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
        done = [key for worker in workers for key in worker.communicate(timeout=60)[0].split()]
        assert sorted(done) == sorted(f"k{number}" for number in range(400))
        assert journal.pending() == 0


class TestCopiesWhileThePrimaryIsDown:
    def test_R8_a_copy_is_behind_while_a_write_waits_for_it(self, journal: Journal) -> None:
        journal.wish([replicate("k", "one"), back_fill("l", "one")])
        assert journal.is_behind("one", "k")
        assert not journal.is_behind("one", "l"), "a read found it missing: whatever comes there is new"
        assert not journal.is_behind("two", "k")
        assert not journal.is_deleted("one", "k")
        for claimed in journal.claim(5):
            journal.finish(claimed)
        assert not journal.is_behind("one", "k")

    @pytest.mark.parametrize("kind", ["hide", "delete"])
    def test_W8_a_deleted_object_is_remembered(self, journal: Journal, kind: WishKind) -> None:
        journal.wish([Wish("r", "k", kind)])
        assert journal.is_deleted("r", "k")
        assert journal.is_behind("r", "k")
        assert not journal.is_deleted("other", "k")

    def test_W8_hiding_is_done_at_once_and_stays(self, journal: Journal) -> None:
        journal.wish([Wish("r", "k", "hide")])
        assert journal.pending() == 0
        assert journal.claim(1) == []
        journal.wish([back_fill("k")])
        assert journal.is_deleted("r", "k"), "a read that began before the delete"
        journal.show("r", "k")
        assert not journal.is_deleted("r", "k")

    def test_W8_an_object_written_anew_is_shown(self, journal: Journal) -> None:
        journal.wish([Wish("r", "k", "hide")])
        journal.wish([replicate("k")])
        assert not journal.is_deleted("r", "k")
        assert journal.is_behind("r", "k")
