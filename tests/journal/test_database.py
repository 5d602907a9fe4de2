from __future__ import annotations

import errno
import functools
import os
import resource
import sqlite3
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mscfs.errors import NoSpaceError, StoreUnavailableError
from mscfs.journal import Journal, Wish, is_alive, process_token
from tests.journal.processes import forked, program


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal.db")


def wish(key: str) -> list[Wish]:
    return [Wish("r", key, "replicate", 1)]


def keys(journal: Journal) -> set[str]:
    return {key.decode() for (key,) in journal._database.query("SELECT key FROM wishes")}


def test_L5_the_file_is_private(journal: Journal) -> None:
    umask = os.umask(0)
    try:
        journal.wish(wish("k"))
    finally:
        os.umask(umask)
    for path in journal.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_many_processes_open_a_new_journal_at_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    workers = [
        program(path, f"hear(); [journal.wish([Wish('r', f'{number}-{{i}}', 'replicate')]) for i in range(20)]")
        for number in range(6)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    assert Journal(path).pending() == 120


def test_threads_share_a_journal(journal: Journal) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: journal.wish(wish(f"k{number}")), range(100)))
        claims = list(pool.map(lambda _: journal.claim(3), range(40)))
    assert len({claimed.key for claim in claims for claimed in claim}) == 100


class TestFork:
    def test_what_a_child_recorded_outlives_a_parent_that_closes(self, journal: Journal) -> None:
        """SQLite's tables of locks would tell the parent that it is alone: it would delete the WAL."""
        journal.wish(wish("parent"))
        first, closed = os.pipe(), os.pipe()

        def child() -> None:
            journal.wish(wish("child before"))
            os.write(first[1], b".")
            os.read(closed[0], 1)
            journal.wish(wish("child after"))

        wait = forked(child)
        os.read(first[0], 1)
        journal.close()
        os.write(closed[1], b".")
        wait()
        assert keys(Journal(journal.path)) == {"parent", "child before", "child after"}
        for end in (*first, *closed):
            os.close(end)

    def test_parent_and_child_go_on_at_once(self, journal: Journal) -> None:
        journal.wish(wish("before"))

        def child() -> None:
            for number in range(20):
                journal.wish(wish(f"child {number}"))

        wait = forked(child)
        for number in range(20):
            journal.wish(wish(f"parent {number}"))
        wait()
        assert journal.pending() == 41

    def test_a_fork_while_another_thread_writes_leaves_the_child_a_working_journal(self, journal: Journal) -> None:
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                journal.wish(wish(f"thread {number}"))
                number += 1

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for number in range(8):
                forked(functools.partial(journal.wish, wish(f"child {number}")))()
        finally:
            stop.set()
            thread.join()
        assert {f"child {number}" for number in range(8)} <= keys(journal)

    def test_a_child_has_a_name_of_its_own(self) -> None:
        parent = process_token()

        def child() -> None:
            assert process_token() != parent
            assert is_alive(parent)

        forked(child)()


class TestAlive:
    def test_this_process_is_alive(self) -> None:
        assert is_alive(process_token())

    @pytest.mark.parametrize("token", [None, "", "x", "1", "-", "1-2", "1-2-3", "999999999-1-x", "-1-2-3"])
    def test_other_tokens_are_not(self, token: str | None) -> None:
        assert not is_alive(token)

    def test_a_process_with_the_same_pid_that_started_at_another_time_or_boot_is_another(self) -> None:
        pid, start, boot = process_token().split("-")
        assert not is_alive(f"{pid}-{int(start) + 1}-{boot}")
        assert not is_alive(f"{pid}-{start}-{boot[::-1]}x")

    def test_nobody_s_rows_are_taken_while_it_cannot_be_seen_who_is_alive(self, monkeypatch) -> None:
        def without_descriptors(_: Path) -> str:
            raise OSError(errno.EMFILE, "too many open files")

        token = process_token()
        monkeypatch.setattr(Path, "read_text", without_descriptors)
        assert is_alive(token)
        assert not is_alive("")


class TestTrouble:
    def test_W2_a_full_disk_is_told_and_nothing_half_is_left(self, journal: Journal) -> None:
        journal.wish(wish("before"))
        pages = journal._database.query("PRAGMA page_count")[0][0]
        journal._database.query(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(NoSpaceError, match="journal"):
            journal.wish([Wish("r", "x" * 3000 + str(number), "replicate") for number in range(10)])
        assert keys(journal) == {"before"}
        journal._database.query("PRAGMA max_page_count = 100000")
        journal.wish(wish("after"))
        assert keys(journal) == {"before", "after"}

    def test_W2_a_file_that_cannot_grow_is_told_and_the_journal_goes_on_afterwards(self, journal: Journal) -> None:
        def child() -> None:
            journal.wish(wish("before"))
            size = Path(f"{journal.path}-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            with pytest.raises((NoSpaceError, StoreUnavailableError)):
                journal.wish(wish("x" * 20000))
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            journal.wish(wish("after"))
            assert keys(journal) == {"before", "after"}

        forked(child)()

    def test_a_commit_that_fails_leaves_no_transaction_open(self, journal: Journal) -> None:
        class Reluctant(sqlite3.Connection):
            refused = 0

            def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
                if sql == "COMMIT" and not Reluctant.refused:
                    Reluctant.refused += 1
                    raise sqlite3.OperationalError("disk I/O error")
                return super().execute(sql, parameters)

        journal.wish(wish("before"))
        assert journal._database._connection is not None
        journal.close()
        journal._database._connection = sqlite3.connect(
            journal.path, isolation_level=None, check_same_thread=False, factory=Reluctant
        )
        with pytest.raises(StoreUnavailableError, match="disk I/O error"):
            journal.wish(wish("lost"))
        journal.wish(wish("after"))
        assert keys(journal) == {"before", "after"}

    @pytest.mark.parametrize("content", [b"not a database, certainly not" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_damaged_file_is_one_clear_error(self, journal: Journal, content: bytes) -> None:
        journal.path.write_bytes(content)
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match=r"damaged.*move it away"):
                journal.wish(wish("k"))

    def test_a_journal_of_a_newer_mscfs_is_left_alone(self, journal: Journal) -> None:
        with sqlite3.connect(journal.path) as connection:
            connection.execute("PRAGMA user_version = 99")
        before = journal.path.read_bytes()
        with pytest.raises(StoreUnavailableError, match="newer mscfs"):
            journal.wish(wish("k"))
        connection.close()
        assert journal.path.read_bytes() == before

    def test_a_missing_directory_is_one_clear_error(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path / "gone" / "journal.db")
        with pytest.raises(StoreUnavailableError, match="cannot be used"):
            journal.wish(wish("k"))
        assert not (tmp_path / "gone").exists()

    def test_a_writer_that_holds_the_file_too_long_is_an_error_in_bounded_time(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("mscfs.journal.database.LOCK_TIMEOUT", 0.05)
        journal.wish(wish("before"))
        other = sqlite3.connect(journal.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            journal.wish(wish("k"))
        assert journal.pending() == 1, "readers do not wait"
        other.execute("ROLLBACK")
        other.close()
        journal.wish(wish("k"))
        assert keys(journal) == {"before", "k"}
