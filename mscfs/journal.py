"""The journal: what must happen even after kill -9 or a reboot.

Four tables in one SQLite file (WAL), in the state directory of a profile:

- `wishes`: "make replica R hold key K as the primary holds it now". A wanted state, not an event: one row for each
  (R, K), and carrying it out twice is harmless. `back-fill` came from a read, `replicate` from a write, `delete`
  from an unlink whose removal is to be propagated.
- `uploads`: staged content that the primary does not hold yet.
- `deletes`: names taken away on the mount whose object the primary still holds.
- `renames`: server-side copy and delete under way.

Several processes may share a journal (a mount, library programs, `mscfs drain`). A wish being worked on is claimed by
a process; the claims of dead processes are void. What a call has returned from is on disk (synchronous=FULL), except
back-fill wishes, which a crash of the machine may lose: the next read makes them again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mscfs.errors import NoSpaceError, StorageError, StoreUnavailableError
from mscfs.types import Version

SCHEMA_VERSION = 1
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0

WishKind = Literal["back-fill", "replicate", "delete"]
UploadMode = Literal["replace", "update", "create"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS wishes (
  replica TEXT NOT NULL, key BLOB NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL,
  serial INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, owner TEXT, error TEXT,
  PRIMARY KEY (replica, key)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS wishes_due ON wishes (due) WHERE owner IS NULL;
CREATE TABLE IF NOT EXISTS uploads (
  id INTEGER PRIMARY KEY, key BLOB NOT NULL, staging BLOB NOT NULL, mode TEXT NOT NULL, base TEXT,
  created REAL NOT NULL, owner TEXT, problem TEXT);
CREATE TABLE IF NOT EXISTS deletes (
  key BLOB PRIMARY KEY, version TEXT, created REAL NOT NULL, owner TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS renames (
  id INTEGER PRIMARY KEY, source BLOB NOT NULL, target BLOB NOT NULL, version TEXT NOT NULL, created REAL NOT NULL,
  owner TEXT);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counters VALUES ('serial', 0);
"""

# A later wish replaces an earlier one, except that a back-fill never weakens a wish that a write or delete made.
_UPSERT = """
INSERT INTO wishes (replica, key, kind, size, created, serial, due) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (replica, key) DO UPDATE SET
  kind = CASE WHEN excluded.kind = 'back-fill' THEN kind ELSE excluded.kind END,
  size = excluded.size, serial = excluded.serial, due = MIN(due, excluded.due)
"""


@dataclass(frozen=True, slots=True)
class Wish:
    """One wanted state. `size` in bytes is what the replica lacks, as far as known."""

    replica: str
    key: str
    kind: WishKind
    size: int = 0


@dataclass(frozen=True, slots=True)
class ClaimedWish:
    """A wish this process works on. `serial` tells whether the wish was renewed meanwhile."""

    replica: str
    key: str
    kind: WishKind
    size: int
    serial: int
    attempts: int


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a replica is behind: entries, bytes, and the age of the oldest entry in seconds."""

    entries: int = 0
    bytes: int = 0
    oldest_seconds: float = 0.0
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class PendingUpload:
    """Staged content on its way. `base` is the version it was made from (mode `update`)."""

    id: int
    key: str
    staging: Path
    mode: UploadMode
    base: Version | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class PendingDelete:
    """A name that is gone on the mount; the object of that version is still to be removed."""

    key: str
    version: Version | None


@dataclass(frozen=True, slots=True)
class PendingRename:
    """A rename under way: `version` is what the source held when it began."""

    id: int
    source: str
    target: str
    version: Version


class Journal:
    """See the module. Thread-safe; works in forked children (each process has its own connection).

    Raises NoSpaceError when the disk is full and StoreUnavailableError for other failures of the journal file: the
    caller must not acknowledge anything then.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._durable = True
        with _fork_lock:
            _journals.add(self)

    # -- wishes -------------------------------------------------------------------------------------------------

    def wish(self, wishes: Iterable[Wish]) -> None:
        """Record wanted states. On disk when this returns, unless all are back-fills."""
        wishes = list(wishes)
        if not wishes:
            return
        durable = any(wish.kind != "back-fill" for wish in wishes)
        with self._transaction(durable=durable) as connection:
            self._insert_wishes(connection, wishes)

    def claim(
        self, limit: int, *, replicas: Iterable[str] | None = None, even_if_not_due: bool = False
    ) -> list[ClaimedWish]:
        """Take up to `limit` due wishes, oldest first, for this process; of the named replicas only, if given."""
        condition, parameters = _of_replicas(replicas)
        where = "owner IS NULL" + ("" if even_if_not_due else " AND due <= :now") + condition
        query = f"SELECT replica, key, kind, size, serial, attempts FROM wishes WHERE {where} ORDER BY due LIMIT :limit"  # noqa: S608 - see _of_replicas
        parameters.update(now=self._clock(), limit=limit)
        with self._transaction(durable=False) as connection:
            rows = connection.execute(query, parameters).fetchall()
            connection.executemany(
                "UPDATE wishes SET owner = ? WHERE replica = ? AND key = ?",
                [(process_token(), row[0], row[1]) for row in rows],
            )
        return [ClaimedWish(row[0], _key(row[1]), row[2], row[3], row[4], row[5]) for row in rows]

    def finish(self, claimed: ClaimedWish) -> None:
        """The wanted state is reached. A wish renewed since it was claimed stays, and is due again."""
        key = _blob(claimed.key)
        # Not forced to disk: a finish lost in a crash costs one repetition that finds nothing to do.
        with self._transaction(durable=False) as connection:
            connection.execute(
                "DELETE FROM wishes WHERE replica = ? AND key = ? AND serial = ?",
                (claimed.replica, key, claimed.serial),
            )
            connection.execute(
                "UPDATE wishes SET owner = NULL, attempts = 0, due = ? WHERE replica = ? AND key = ?",
                (self._clock(), claimed.replica, key),
            )

    def postpone(self, claimed: ClaimedWish, error: str) -> float:
        """Try again later: pauses grow with each attempt and are jittered. Returns the pause in seconds."""
        pause = min(FIRST_PAUSE * 2.0 ** min(claimed.attempts, 30), LONGEST_PAUSE) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        with self._transaction(durable=False) as connection:
            connection.execute(
                "UPDATE wishes SET owner = NULL, attempts = attempts + 1, due = ?, error = ?"
                " WHERE replica = ? AND key = ?",
                (self._clock() + pause, error, claimed.replica, _blob(claimed.key)),
            )
        return pause

    def release(self, claimed: ClaimedWish) -> None:
        """Give a claim back untouched (shutdown)."""
        with self._transaction(durable=False) as connection:
            connection.execute(
                "UPDATE wishes SET owner = NULL WHERE replica = ? AND key = ?", (claimed.replica, _blob(claimed.key))
            )

    def release_dead_claims(self) -> int:
        """Void the claims of processes that are gone. Returns how many wishes became free."""
        with self._transaction(durable=False) as connection:
            rows = connection.execute("SELECT DISTINCT owner FROM wishes WHERE owner IS NOT NULL").fetchall()
            dead = [owner for (owner,) in rows if not is_alive(owner)]
            released = 0
            for owner in dead:
                released += connection.execute("UPDATE wishes SET owner = NULL WHERE owner = ?", (owner,)).rowcount
        return released

    def next_due(self, *, replicas: Iterable[str] | None = None) -> float | None:
        """Seconds until the next wish is due (0 when one is); None when there is none to take.

        Of the named replicas only, if given.
        """
        condition, parameters = _of_replicas(replicas)
        query = f"SELECT MIN(due) FROM wishes WHERE owner IS NULL{condition}"  # noqa: S608 - see _of_replicas
        with self._transaction(durable=False) as connection:
            due = connection.execute(query, parameters).fetchone()[0]
        return None if due is None else max(0.0, due - self._clock())

    def lag(self) -> dict[str, Lag]:
        """For each replica with wishes: how far it is behind."""
        now = self._clock()
        with self._transaction(durable=False) as connection:
            rows = connection.execute(
                "SELECT replica, COUNT(*), SUM(size), MIN(created), MAX(COALESCE(error, ''))"
                " FROM wishes GROUP BY replica"
            ).fetchall()
        return {row[0]: Lag(row[1], row[2], max(0.0, now - row[3]), row[4]) for row in rows}

    def pending(self) -> int:
        """The number of wishes, uploads, deletes and renames not finished yet."""
        with self._transaction(durable=False) as connection:
            return int(
                connection.execute(
                    "SELECT (SELECT COUNT(*) FROM wishes) + (SELECT COUNT(*) FROM uploads)"
                    " + (SELECT COUNT(*) FROM deletes) + (SELECT COUNT(*) FROM renames)"
                ).fetchone()[0]
            )

    # -- uploads ------------------------------------------------------------------------------------------------

    def begin_upload(self, key: str, staging: Path, mode: UploadMode, base: Version | None) -> int:
        """Record staged content before it is sent. Returns the row to finish."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO uploads (key, staging, mode, base, created, owner) VALUES (?, ?, ?, ?, ?, ?)",
                (_blob(key), os.fsencode(staging), mode, _stamp(base), self._clock(), process_token()),
            )
            return int(cursor.lastrowid or 0)

    def finish_upload(self, upload: int, wishes: Iterable[Wish]) -> None:
        """The primary holds it: the upload goes and the wishes to replicate come, in one step (W2)."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload,))
            self._insert_wishes(connection, list(wishes))

    def drop_upload(self, upload: int) -> None:
        """Forget an upload that will not be sent (its error was reported, its content is still staged or given up)."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload,))

    def keep_upload(self, upload: int, problem: str) -> None:
        """Keep staged content that may not be sent by itself: a person decides (`mscfs status` shows it)."""
        with self._transaction() as connection:
            connection.execute("UPDATE uploads SET problem = ? WHERE id = ?", (problem, upload))

    def uploads(self, *, orphaned: bool = False) -> list[PendingUpload]:
        """Uploads not finished; with `orphaned` only those whose process is gone."""
        with self._transaction(durable=False) as connection:
            rows = connection.execute(
                "SELECT id, key, staging, mode, base, COALESCE(problem, ''), owner FROM uploads ORDER BY id"
            ).fetchall()
        return [
            PendingUpload(row[0], _key(row[1]), Path(os.fsdecode(row[2])), row[3], Version.from_stamp(row[4]), row[5])
            for row in rows
            if not (orphaned and is_alive(row[6]))
        ]

    # -- deletes and renames --------------------------------------------------------------------------------------

    def begin_delete(self, key: str, version: Version | None) -> None:
        """A name is taken away now; its object goes later."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO deletes VALUES (?, ?, ?, ?)",
                (_blob(key), _stamp(version), self._clock(), process_token()),
            )

    def finish_delete(self, key: str, wishes: Iterable[Wish] = ()) -> None:
        """The object is gone from the primary (or the name was taken again)."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM deletes WHERE key = ?", (_blob(key),))
            self._insert_wishes(connection, list(wishes))

    def deletes(self, *, orphaned: bool = False) -> list[PendingDelete]:
        """Deletes not carried out; with `orphaned` only those whose process is gone."""
        with self._transaction(durable=False) as connection:
            rows = connection.execute("SELECT key, version, owner FROM deletes").fetchall()
        return [
            PendingDelete(_key(row[0]), Version.from_stamp(row[1]))
            for row in rows
            if not (orphaned and is_alive(row[2]))
        ]

    def begin_rename(self, source: str, target: str, version: Version) -> int:
        """A copy-and-delete rename begins. Returns the row to finish."""
        with self._transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO renames (source, target, version, created, owner) VALUES (?, ?, ?, ?, ?)",
                (_blob(source), _blob(target), _stamp(version), self._clock(), process_token()),
            )
            return int(cursor.lastrowid or 0)

    def finish_rename(self, rename: int, wishes: Iterable[Wish] = ()) -> None:
        """The rename is complete, or was undone."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM renames WHERE id = ?", (rename,))
            self._insert_wishes(connection, list(wishes))

    def renames(self, *, orphaned: bool = False) -> list[PendingRename]:
        """Renames not finished; with `orphaned` only those whose process is gone."""
        with self._transaction(durable=False) as connection:
            rows = connection.execute("SELECT id, source, target, version, owner FROM renames ORDER BY id").fetchall()
        return [
            PendingRename(row[0], _key(row[1]), _key(row[2]), version)
            for row in rows
            if (version := Version.from_stamp(row[3])) and not (orphaned and is_alive(row[4]))
        ]

    def close(self) -> None:
        """Close this process's connection; the next call opens a new one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    # -- inside -------------------------------------------------------------------------------------------------

    def _insert_wishes(self, connection: sqlite3.Connection, wishes: list[Wish]) -> None:
        now = self._clock()
        for wish in wishes:
            connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'serial'")
            serial = connection.execute("SELECT value FROM counters WHERE name = 'serial'").fetchone()[0]
            connection.execute(_UPSERT, (wish.replica, _blob(wish.key), wish.kind, wish.size, now, serial, now))

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._connect()
                if durable != self._durable:
                    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                    self._durable = durable
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise self._explain(error) from error

    def _connect(self) -> sqlite3.Connection:
        if self._connection is not None:
            return self._connection
        existed = self.path.exists()
        connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
        if not existed:
            self.path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        found = connection.execute("PRAGMA user_version").fetchone()[0]
        if found > SCHEMA_VERSION:
            connection.close()
            raise StoreUnavailableError(
                f"the journal {self.path} was written by a newer mscfs (format {found}; this one knows"
                f" {SCHEMA_VERSION}): upgrade mscfs on this node"
            )
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._connection, self._durable = connection, True
        return connection

    def _pause_for_fork(self) -> None:
        self._lock.acquire()

    def _resume_after_fork(self, *, in_child: bool) -> None:
        if in_child and self._connection is not None:
            # Neither used nor closed here: the file and its locks are the parent's.
            _inherited.append(self._connection)
            self._connection = None
        self._lock.release()

    def _explain(self, error: sqlite3.Error) -> StorageError:
        if "full" in str(error):
            return NoSpaceError(f"no room for the journal {self.path}: {error}")
        return StoreUnavailableError(f"the journal {self.path} cannot be used: {error}")


# SQLite must not be inside a call while its process forks: the child would wait for ever for locks, of this module or
# of SQLite's own, that a thread held which the child does not have.
_journals: weakref.WeakSet[Journal] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []
_fork_lock = threading.Lock()
_paused: list[Journal] = []


def _before_fork() -> None:
    _fork_lock.acquire()
    _paused.extend(_journals)
    for journal in _paused:
        journal._pause_for_fork()  # noqa: SLF001 - the module's own class


def _after_fork(*, in_child: bool) -> None:
    for journal in _paused:
        journal._resume_after_fork(in_child=in_child)  # noqa: SLF001 - the module's own class
    _paused.clear()
    _fork_lock.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=functools.partial(_after_fork, in_child=False),
    after_in_child=functools.partial(_after_fork, in_child=True),
)


def process_token() -> str:
    """This process, told apart from a later one with the same pid by its start time."""
    return f"{os.getpid()}-{_start_time(os.getpid())}"


def is_alive(token: str | None) -> bool:
    """Whether the process of a token still runs."""
    if not token:
        return False
    pid, _, started = token.partition("-")
    return started == _start_time(int(pid)) != ""


def _start_time(pid: int) -> str:
    # Field 22 of /proc/PID/stat, counted behind the command name, which may hold spaces (proc(5)).
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    # A zombie has ended; in a container nobody may ever collect it.
    return "" if fields[0] == "Z" else fields[19]


def _of_replicas(names: Iterable[str] | None) -> tuple[str, dict[str, object]]:
    """A condition and its parameters. Only parameter names are put together here, never values."""
    if names is None:
        return "", {}
    parameters: dict[str, object] = {f"r{index}": name for index, name in enumerate(names)}
    return " AND replica IN (" + ",".join(f":{name}" for name in parameters) + ")", parameters


def _blob(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _key(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogateescape")


def _stamp(version: Version | None) -> str | None:
    return version.stamp() if version else None
