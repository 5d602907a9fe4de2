"""One SQLite file (WAL) that processes and threads share, and that survives a fork at any moment."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mscfs.errors import NoSpaceError, StorageError, StoreUnavailableError

LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that writes; a write takes milliseconds."""
_ROUND_MILLISECONDS = 30


class Database:
    """Thread-safe: one connection for each process, opened by the first call.

    `schema` is a script that may run twice, `version` the format it makes, `name` what errors call it. Raises
    NoSpaceError when the disk is full and StoreUnavailableError for everything else that is wrong with the file.
    """

    def __init__(self, path: Path, schema: str, version: int, *, name: str = "journal") -> None:
        self._path = path
        self._what = f"the {name} {path}"
        self._schema = schema
        self._version = version
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._durable = True
        with _fork_lock:
            _databases.add(self)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A write, committed at the end of the block and undone by an exception; synced to disk if `durable`."""
        with self._used() as connection:
            if durable != self._durable:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            try:
                _patiently(connection, "BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # SQLite has undone the transaction by itself after some errors; a failed COMMIT leaves it open.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def query(self, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()) -> list[tuple[Any, ...]]:
        """The rows of one SELECT; waits for no writer."""
        with self._used() as connection:
            return _patiently(connection, sql, parameters).fetchall()

    def check(self) -> None:
        """Raise StoreUnavailableError when the file is damaged. Reads all of it."""
        found = self.query("PRAGMA quick_check(1)")
        if found != [("ok",)]:
            raise self._damaged(" ".join(str(found[0][0]).split()))

    def close(self) -> None:
        """Close this process's connection; the next call opens a new one."""
        with self._lock:
            self._disconnect()

    @contextlib.contextmanager
    def _used(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._connection is None:
                    self._connection, self._durable = self._connect(), True
                yield self._connection
            except sqlite3.Error as error:
                raise self._explain(error) from error

    def _connect(self) -> sqlite3.Connection:
        existed = self._path.exists()
        connection = sqlite3.connect(self._path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            if not existed:
                self._path.chmod(0o600)
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > self._version:
            raise StoreUnavailableError(
                f"{self._what} was written by a newer mscfs (format {found}; this one knows"
                f" {self._version}): upgrade mscfs on this node"
            )
        # Who makes a new one at the same time as another is told at once that it is locked, whatever the time-out.
        _patiently(connection, "PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        if found < self._version:
            connection.executescript(f"BEGIN IMMEDIATE; {self._schema} PRAGMA user_version = {self._version}; COMMIT;")
        connection.execute(f"PRAGMA busy_timeout = {_ROUND_MILLISECONDS}")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _explain(self, error: sqlite3.Error) -> StorageError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return NoSpaceError(f"no room for {self._what}")
        if code in {sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT}:
            return self._damaged(error)
        return StoreUnavailableError(f"{self._what} cannot be used: {error}")

    def _damaged(self, reason: object) -> StorageError:
        return StoreUnavailableError(
            f"{self._what} is damaged ({reason}): move it away; what the replicas lack is then found by reads and"
            " syncs, and unsent content stays in `staging` beside it"
        )

    def _pause_for_fork(self) -> None:
        self._lock.acquire()
        self._disconnect()

    def _resume_after_fork(self) -> None:
        self._lock.release()


def _patiently(
    connection: sqlite3.Connection, sql: str, parameters: Sequence[object] | Mapping[str, object] = ()
) -> sqlite3.Cursor:
    """Execute a statement that may meet another process's lock, for at most LOCK_TIMEOUT seconds."""
    # SQLite looks again after 1, 2, 5… 100 ms: beside a busy writer it may miss every gap. Short rounds begin anew.
    deadline = time.monotonic() + LOCK_TIMEOUT
    while True:
        try:
            return connection.execute(sql, parameters)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise


# No connection may cross a fork. SQLite keeps the locks it holds in tables of the process: the child would inherit the
# tables without the locks, and write to a WAL file that the parent deletes when it closes the database. Nor may another
# thread be inside SQLite or hold our lock at that moment: in the child it would never leave.
_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_paused: list[Database] = []
_fork_lock = threading.Lock()


def _before_fork() -> None:
    _fork_lock.acquire()
    _paused.extend(_databases)
    for database in _paused:
        database._pause_for_fork()  # noqa: SLF001 - the module's own class


def _after_fork() -> None:
    for database in _paused:
        database._resume_after_fork()  # noqa: SLF001 - the module's own class
    _paused.clear()
    _fork_lock.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
