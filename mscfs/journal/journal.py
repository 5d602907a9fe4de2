"""The journal of one profile: seven tables in one SQLite file, in the profile's state directory.

- `wishes`: "make replica R hold key K as the primary holds it now". A wanted state, not an event: one row for each
  (R, K), and carrying it out twice is harmless.
- `hidden`: the copies that replicas keep of objects deleted here.
- `uploads`: staged content that the primary does not hold yet.
- `parts`: uploads in parts under way, which somebody must abort if their process does not live to end them.
- `deletes`: names taken away on the mount whose object the primary still holds.
- `renames`: server-side copy and delete under way.
- `moves`: directories being renamed, which are many copies and many deletes on an object store.

Several processes may share a journal (a mount, library programs, `mscfs drain`). A wish being worked on is claimed by
a process; the claims of dead processes are void. What a call has returned from is on disk (synchronous=FULL), except
back-fill wishes, which a crash of the machine may lose: the next read makes them again.
"""

from __future__ import annotations

import heapq
import itertools
import math
import operator
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from sqlite3 import Connection
from typing import Any

from mscfs.journal.database import Database
from mscfs.journal.entries import (
    ClaimedWish,
    FinishedUpload,
    Lag,
    MoveState,
    PendingDelete,
    PendingMove,
    PendingParts,
    PendingRename,
    PendingUpload,
    StagedUpload,
    UploadMode,
    Wish,
)
from mscfs.journal.process import is_alive, process_token
from mscfs.types import Version

SCHEMA_VERSION = 4
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
_JITTER = (0.5, 1.5)
_LATEST_DUE = LONGEST_PAUSE * _JITTER[1]
"""Seconds. What is due later than that was put off by a clock that has been set back since."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS wishes (
  replica TEXT NOT NULL, key BLOB NOT NULL, kind TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL,
  serial INTEGER NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, owner TEXT, error TEXT,
  PRIMARY KEY (replica, key)) WITHOUT ROWID;
DROP INDEX IF EXISTS wishes_due;
CREATE INDEX wishes_due ON wishes (replica, due) WHERE owner IS NULL;
CREATE TABLE IF NOT EXISTS hidden (
  replica TEXT NOT NULL, key BLOB NOT NULL, PRIMARY KEY (replica, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS uploads (
  id INTEGER PRIMARY KEY, key BLOB NOT NULL, staging BLOB NOT NULL, mode TEXT NOT NULL, base TEXT,
  created REAL NOT NULL, owner TEXT NOT NULL, problem TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS parts (
  id INTEGER PRIMARY KEY, key BLOB NOT NULL, token TEXT NOT NULL, owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deletes (
  key BLOB PRIMARY KEY, version TEXT, created REAL NOT NULL, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS renames (
  id INTEGER PRIMARY KEY, source BLOB NOT NULL, target BLOB NOT NULL, version TEXT NOT NULL, created REAL NOT NULL,
  owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS moves (
  id INTEGER PRIMARY KEY, source BLOB NOT NULL, target BLOB NOT NULL, state TEXT NOT NULL, replaced INTEGER NOT NULL,
  owner TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT OR IGNORE INTO counters VALUES ('serial', 0);
"""

# A wish is renewed, never weakened: a step that deletes also copies when the primary has the object. A read does not
# hasten what failed before, or an object that cannot be copied would be tried again at every read.
_UPSERT = """
INSERT INTO wishes (replica, key, kind, size, created, serial, due) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (replica, key) DO UPDATE SET
  kind = CASE WHEN kind = 'delete' OR excluded.kind = 'back-fill' THEN kind ELSE excluded.kind END,
  due = CASE WHEN excluded.kind = 'back-fill' THEN due ELSE MIN(due, excluded.due) END,
  size = excluded.size, serial = excluded.serial
"""

_UPLOAD = "id, key, staging, mode, base, problem"

_CLAIM = """
SELECT due, replica, key, kind, size, serial, attempts FROM wishes WHERE replica = ? AND owner IS NULL AND due <= ?
ORDER BY due LIMIT ?
"""

_REPLICAS = """
WITH RECURSIVE names (name) AS (
  SELECT MIN(replica) FROM wishes
  UNION ALL SELECT (SELECT MIN(replica) FROM wishes WHERE replica > name) FROM names WHERE name IS NOT NULL)
SELECT name FROM names WHERE name IS NOT NULL
"""


class Journal:
    """See the module. Thread-safe; works in forked children (each process has its own connection).

    Raises NoSpaceError when the disk is full and StoreUnavailableError for other failures of the journal file: the
    caller must not acknowledge anything then.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._database = Database(path, _SCHEMA, SCHEMA_VERSION)
        self._unsent: set[str] = set()
        """Keys of uploads that this process began, or found left behind; some may be finished."""
        self._dropped: list[ClaimedWish] = []
        """Claims of this process that it could not give back: the next `claim` voids them."""
        # Not the module's own generator: programs seed that, and rely on what it gives them next.
        self._random = random.Random()  # noqa: S311 - jitter

    # -- wishes -------------------------------------------------------------------------------------------------

    def wish(self, wishes: Iterable[Wish]) -> None:
        """Record wanted states. On disk when this returns, unless all are back-fills."""
        wishes = list(wishes)
        if not wishes:
            return
        durable = any(wish.kind != "back-fill" for wish in wishes)
        with self._database.transaction(durable=durable) as connection:
            self._insert_wishes(connection, wishes)

    def claim(
        self, limit: int, *, replicas: Iterable[str] | None = None, even_if_not_due: bool = False
    ) -> list[ClaimedWish]:
        """Take up to `limit` due wishes, oldest first, for this process; of the named replicas only, if given."""
        now = self._clock()
        until = math.inf if even_if_not_due else now
        owner, names = process_token(), list(self._named(replicas))
        dropped: list[ClaimedWish] = []
        with self._giving_back(dropped) as connection:
            dropped += self._dropped
            del self._dropped[: len(dropped)]
            connection.executemany(
                "UPDATE wishes SET owner = NULL WHERE replica = ? AND key = ? AND owner = ?",
                [(claimed.replica, _blob(claimed.key), owner) for claimed in dropped],
            )
            connection.executemany(
                "UPDATE wishes SET due = ? WHERE replica = ? AND owner IS NULL AND due > ?",
                [(now, name, now + _LATEST_DUE) for name in names],
            )
            found = [connection.execute(_CLAIM, (name, until, limit)).fetchall() for name in names]
            rows = list(itertools.islice(heapq.merge(*found, key=operator.itemgetter(0)), limit))
            connection.executemany(
                "UPDATE wishes SET owner = ? WHERE replica = ? AND key = ?", [(owner, row[1], row[2]) for row in rows]
            )
        return [ClaimedWish(row[1], _key(row[2]), row[3], row[4], row[5], row[6]) for row in rows]

    def finish(self, claimed: ClaimedWish) -> None:
        """The wanted state is reached. A wish renewed since it was claimed stays, and is due again."""
        row = (claimed.replica, _blob(claimed.key))
        # Not forced to disk: a finish lost in a crash costs one repetition that finds nothing to do.
        with self._giving_back([claimed]) as connection:
            connection.execute(
                "DELETE FROM wishes WHERE replica = ? AND key = ? AND serial = ?", (*row, claimed.serial)
            )
            connection.execute(
                "UPDATE wishes SET owner = NULL, attempts = 0, error = NULL, due = ? WHERE replica = ? AND key = ?",
                (self._clock(), *row),
            )

    def postpone(self, claimed: ClaimedWish, error: str) -> float:
        """Try again later: pauses grow with each attempt and are jittered. Returns the pause in seconds."""
        pause = min(FIRST_PAUSE * 2.0 ** min(claimed.attempts, 30), LONGEST_PAUSE) * self._random.uniform(*_JITTER)
        with self._giving_back([claimed]) as connection:
            connection.execute(
                "UPDATE wishes SET owner = NULL, attempts = attempts + 1, due = ?, error = ?"
                " WHERE replica = ? AND key = ?",
                (self._clock() + pause, error, claimed.replica, _blob(claimed.key)),
            )
        return pause

    def release(self, claimed: ClaimedWish) -> None:
        """Give a claim back untouched (shutdown)."""
        with self._giving_back([claimed]) as connection:
            connection.execute(
                "UPDATE wishes SET owner = NULL WHERE replica = ? AND key = ?", (claimed.replica, _blob(claimed.key))
            )

    @contextmanager
    def _giving_back(self, claims: Sequence[ClaimedWish]) -> Iterator[Connection]:
        """A transaction that ends claims. Where it fails nobody works on these wishes all the same."""
        try:
            with self._database.transaction(durable=False) as connection:
                yield connection
        except BaseException:
            self._dropped.extend(claims)
            raise

    def release_dead_claims(self) -> int:
        """Void the claims of processes that are gone. Returns how many wishes became free."""
        owners = self._database.query("SELECT DISTINCT owner FROM wishes WHERE owner IS NOT NULL")
        dead = [owner for (owner,) in owners if not is_alive(owner)]
        with self._database.transaction(durable=False) as connection:
            return sum(
                connection.execute("UPDATE wishes SET owner = NULL WHERE owner = ?", (owner,)).rowcount
                for owner in dead
            )

    def next_due(self, *, replicas: Iterable[str] | None = None) -> float | None:
        """Seconds until the next wish is due (0 when one is); None when there is none to take.

        Of the named replicas only, if given.
        """
        query = "SELECT MIN(due) FROM wishes WHERE replica = ? AND owner IS NULL"
        found = [self._database.query(query, (replica,))[0][0] for replica in self._named(replicas)]
        dues = [due for due in found if due is not None]
        return max(0.0, min(min(dues) - self._clock(), _LATEST_DUE)) if dues else None

    def lag(self) -> dict[str, Lag]:
        """For each replica with wishes: how far it is behind.

        Wishes for a replica that left the configuration stay, for the day it returns, until `forget_replica`.
        """
        now = self._clock()
        rows = self._database.query(
            "SELECT replica, COUNT(*), SUM(size), MIN(created), MAX(COALESCE(error, '')) FROM wishes GROUP BY replica"
        )
        return {row[0]: Lag(row[1], row[2], max(0.0, now - row[3]), row[4]) for row in rows}

    def pending(self, *, replicas: Iterable[str] | None = None) -> int:
        """The number of wishes (of the named replicas, if given), uploads, deletes and renames not finished yet.

        What was kept for a person to decide on waits for nothing.
        """
        query = "SELECT COUNT(*) FROM wishes WHERE replica = ?"
        wishes: int = sum(self._database.query(query, (replica,))[0][0] for replica in self._named(replicas))
        rest = self._database.query(
            "SELECT (SELECT COUNT(*) FROM uploads WHERE problem = '') + (SELECT COUNT(*) FROM deletes)"
            " + (SELECT COUNT(*) FROM renames) + (SELECT COUNT(*) FROM moves)"
        )
        return wishes + int(rest[0][0])

    def forget_replica(self, replica: str) -> int:
        """Drop all that is known of a replica that left the configuration for good. Returns how many wishes went."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM hidden WHERE replica = ?", (replica,))
            return connection.execute("DELETE FROM wishes WHERE replica = ?", (replica,)).rowcount

    # -- what is known of copies while the primary is down ----------------------------------------------------------

    def is_behind(self, replica: str, key: str) -> bool:
        """Whether the replica's copy is known not to be what the primary holds: a write or a delete has not reached it.

        Silence is no promise: others may have written to the primary.
        """
        row = (replica, _blob(key))
        return bool(
            self._database.query(
                "SELECT 1 FROM wishes WHERE replica = ? AND key = ? AND kind <> 'back-fill'"
                " UNION ALL SELECT 1 FROM hidden WHERE replica = ? AND key = ?",
                (*row, *row),
            )
        )

    def is_deleted(self, replica: str, key: str) -> bool:
        """Whether the replica keeps a copy of what was deleted here."""
        row = (replica, _blob(key))
        return bool(
            self._database.query(
                "SELECT 1 FROM wishes WHERE replica = ? AND key = ? AND kind = 'delete'"
                " UNION ALL SELECT 1 FROM hidden WHERE replica = ? AND key = ?",
                (*row, *row),
            )
        )

    def is_hidden(self, replica: str, key: str) -> bool:
        """Whether the replica's copy is hidden: of what was deleted here, as far as is known."""
        row = (replica, _blob(key))
        return bool(self._database.query("SELECT 1 FROM hidden WHERE replica = ? AND key = ?", row))

    def show(self, replica: str, key: str) -> None:
        """The replica holds what the primary holds: a copy that was hidden is shown again."""
        with self._database.transaction(durable=False) as connection:
            connection.execute("DELETE FROM hidden WHERE replica = ? AND key = ?", (replica, _blob(key)))

    # -- uploads ------------------------------------------------------------------------------------------------

    def begin_upload(self, key: str, staging: Path, mode: UploadMode, base: Version | None) -> int:
        """Record staged content that is not sent. Returns the row to finish.

        Survives kill -9, not a power cut. `keep_upload` makes it last.
        """
        with self._database.transaction(durable=False) as connection:
            return self._insert_upload(connection, StagedUpload(key, staging, mode, base), process_token())

    def adopt_uploads(self, uploads: Sequence[StagedUpload], owner: str) -> None:
        """Record what an ended process, `owner`, left staged; harmless when it is done again."""
        with self._database.transaction() as connection:
            for upload in uploads:
                known = connection.execute(
                    "SELECT id, problem FROM uploads WHERE staging = ?", (os.fsencode(upload.staging),)
                ).fetchone()
                if known is None:
                    self._insert_upload(connection, upload, owner)
                elif upload.problem and not known[1]:
                    connection.execute("UPDATE uploads SET problem = ? WHERE id = ?", (upload.problem, known[0]))

    def finish_upload(self, upload: int, wishes: Iterable[Wish]) -> None:
        """The primary holds it: the upload goes and the wishes to replicate come, in one step (W2)."""
        self.record([FinishedUpload(upload, list(wishes))])

    def record(self, finished: Sequence[FinishedUpload]) -> None:
        """Finish uploads, all in one transaction."""
        # A finish without wishes that a power cut takes back is found out by comparing with the primary.
        with self._database.transaction(durable=any(upload.wishes for upload in finished)) as connection:
            connection.executemany(
                "DELETE FROM uploads WHERE id = ?", [(upload.row,) for upload in finished if upload.row is not None]
            )
            self._insert_wishes(connection, [wish for upload in finished for wish in upload.wishes])

    def _insert_upload(self, connection: Connection, upload: StagedUpload, owner: str) -> int:
        self._unsent.add(upload.key)
        cursor = connection.execute(
            "INSERT INTO uploads (key, staging, mode, base, created, owner, problem) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                _blob(upload.key),
                os.fsencode(upload.staging),
                upload.mode,
                _stamp(upload.base),
                self._clock(),
                owner,
                upload.problem,
            ),
        )
        return int(cursor.lastrowid or 0)

    def drop_upload(self, upload: int) -> None:
        """Forget an upload that will not be sent (its error was reported, its content is still staged or given up)."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM uploads WHERE id = ?", (upload,))

    def keep_upload(self, upload: int, problem: str) -> None:
        """Keep staged content whose upload failed, durably. With a `problem` a person decides, else the next mount."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE uploads SET problem = ? WHERE id = ?", (problem, upload))

    def may_lack(self, key: str) -> bool:
        """Whether content of a key may wait to be sent, as far as this process knows; asks no disk."""
        return key in self._unsent

    def supersede_uploads(self, key: str, problem: str) -> None:
        """A name is used anew: what waits to be sent to it, and is in nobody's hands, a person decides on."""
        with self._database.transaction() as connection:
            rows = connection.execute("SELECT id, owner, problem FROM uploads WHERE key = ?", (_blob(key),)).fetchall()
            connection.executemany(
                "UPDATE uploads SET problem = ? WHERE id = ?",
                [(problem, row) for row, owner, known in rows if not known and not is_alive(owner)],
            )
            if not rows:
                self._unsent.discard(key)

    def uploads(self, *, orphaned: bool = False) -> list[PendingUpload]:
        """Uploads not finished. With `orphaned` those whose process is gone: they are this process's from now on."""
        return [_upload(row) for row in self._rows("uploads", "id", _UPLOAD, orphaned=orphaned)]

    def uploads_left_behind(self) -> list[PendingUpload]:
        """Those that no living process has in hand. `claim_upload` takes one, `release_upload` gives it back."""
        rows = self._database.query(f"SELECT {_UPLOAD}, owner FROM uploads ORDER BY id")  # noqa: S608 - our own words
        left = [_upload(row) for row in rows if not is_alive(row[-1])]
        self._unsent.update(upload.key for upload in left)
        return left

    def claim_upload(self, upload: int) -> bool:
        """Take an upload into this process's hands; False when it is gone, or in those of another."""
        with self._database.transaction(durable=False) as connection:
            owners = connection.execute("SELECT owner FROM uploads WHERE id = ?", (upload,)).fetchall()
            if not owners or is_alive(owners[0][0]):
                return False
            connection.execute("UPDATE uploads SET owner = ? WHERE id = ?", (process_token(), upload))
            return True

    def release_upload(self, upload: int) -> None:
        """This process has nothing more to do with an upload: the next mount or a person takes it up."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE uploads SET owner = '' WHERE id = ?", (upload,))

    def begin_parts(self, key: str, token: str) -> int:
        """An upload in parts was begun on the primary. Returns the row to finish. Survives kill -9, not a power cut."""
        with self._database.transaction(durable=False) as connection:
            cursor = connection.execute(
                "INSERT INTO parts (key, token, owner) VALUES (?, ?, ?)", (_blob(key), token, process_token())
            )
            return int(cursor.lastrowid or 0)

    def finish_parts(self, row: int) -> None:
        """The upload is complete or aborted."""
        with self._database.transaction(durable=False) as connection:
            connection.execute("DELETE FROM parts WHERE id = ?", (row,))

    def parts(self, *, orphaned: bool = False) -> list[PendingParts]:
        """Uploads in parts under way. With `orphaned` those whose process is gone: they are this process's now."""
        rows = self._rows("parts", "id", "id, key, token", orphaned=orphaned)
        return [PendingParts(row[0], _key(row[1]), row[2]) for row in rows]

    # -- deletes and renames --------------------------------------------------------------------------------------

    def begin_delete(self, key: str, version: Version | None, *, durable: bool = True) -> None:
        """A name is taken away, and its object now or later. Unless `durable` a power cut may take it back."""
        with self._database.transaction(durable=durable) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO deletes VALUES (?, ?, ?, ?)",
                (_blob(key), _stamp(version), self._clock(), process_token()),
            )

    def finish_delete(self, key: str, wishes: Iterable[Wish] = ()) -> None:
        """The object is gone from the primary (or the name was taken again)."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM deletes WHERE key = ?", (_blob(key),))
            self._insert_wishes(connection, list(wishes))

    def deletes(self, *, orphaned: bool = False) -> list[PendingDelete]:
        """Deletes not carried out. With `orphaned` those whose process is gone: they are this process's from now on."""
        rows = self._rows("deletes", "key", "key, version", orphaned=orphaned)
        return [PendingDelete(_key(row[0]), Version.from_stamp(row[1])) for row in rows]

    def begin_rename(self, source: str, target: str, version: Version) -> int:
        """A copy-and-delete rename begins. Returns the row to finish."""
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO renames (source, target, version, created, owner) VALUES (?, ?, ?, ?, ?)",
                (_blob(source), _blob(target), _stamp(version), self._clock(), process_token()),
            )
            return int(cursor.lastrowid or 0)

    def finish_rename(self, rename: int, wishes: Iterable[Wish] = ()) -> None:
        """The rename is complete, or was undone."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM renames WHERE id = ?", (rename,))
            self._insert_wishes(connection, list(wishes))

    def renames(self, *, orphaned: bool = False) -> list[PendingRename]:
        """Renames not finished. With `orphaned` those whose process is gone: they are this process's from now on."""
        rows = self._rows("renames", "id", "id, source, target, version", orphaned=orphaned)
        return [
            PendingRename(row[0], _key(row[1]), _key(row[2]), version)
            for row in rows
            if (version := Version.from_stamp(row[3]))
        ]

    def begin_move(self, source: str, target: str, *, replaced: bool) -> int:
        """A directory is about to be copied to its new name. Returns the row to finish."""
        with self._database.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO moves (source, target, state, replaced, owner) VALUES (?, ?, 'copying', ?, ?)",
                (_blob(source), _blob(target), replaced, process_token()),
            )
            return int(cursor.lastrowid or 0)

    def advance_move(self, move: int, state: MoveState) -> None:
        """Everything is copied: from now on the new names are the truth (or a move is undone after all)."""
        with self._database.transaction() as connection:
            connection.execute("UPDATE moves SET state = ? WHERE id = ?", (state, move))

    def finish_move(self, move: int, wishes: Iterable[Wish] = ()) -> None:
        """The move is complete, or was undone."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM moves WHERE id = ?", (move,))
            self._insert_wishes(connection, list(wishes))

    def moves(self, *, orphaned: bool = False) -> list[PendingMove]:
        """Moves not finished. With `orphaned` those whose process is gone: they are this process's from now on."""
        rows = self._rows("moves", "id", "id, source, target, state, replaced", orphaned=orphaned)
        return [PendingMove(row[0], _key(row[1]), _key(row[2]), row[3], bool(row[4])) for row in rows]

    def check(self) -> None:
        """Raise StoreUnavailableError when the file is damaged. Reads all of it."""
        self._database.check()

    def close(self) -> None:
        """Close this process's connection; the next call opens a new one."""
        self._database.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _insert_wishes(self, connection: Connection, wishes: list[Wish]) -> None:
        if not wishes:
            return
        now = self._clock()
        # Serials are never used twice, also not by another process.
        last = connection.execute(
            "UPDATE counters SET value = value + ? WHERE name = 'serial' RETURNING value", (len(wishes),)
        ).fetchone()[0]
        wanted = [
            (wish.replica, _blob(wish.key), wish.kind, wish.size, now, last - position, now)
            for position, wish in enumerate(wishes)
        ]
        connection.executemany(_UPSERT, [row for row in wanted if row[2] != "hide"])
        connection.executemany(
            "DELETE FROM hidden WHERE replica = ? AND key = ?", [row[:2] for row in wanted if row[2] == "replicate"]
        )
        connection.executemany(
            "INSERT OR IGNORE INTO hidden VALUES (?, ?)", [row[:2] for row in wanted if row[2] == "hide"]
        )

    def _named(self, replicas: Iterable[str] | None) -> Iterable[str]:
        """The given replicas, or all that have wishes. (One index search each; SELECT DISTINCT reads all rows.)"""
        if replicas is not None:
            return replicas
        return [name for (name,) in self._database.query(_REPLICAS)]

    def _rows(self, table: str, key: str, columns: str, *, orphaned: bool) -> list[tuple[Any, ...]]:
        """The rows of a table; with `orphaned` only those of dead processes, which become this process's."""
        query = f"SELECT {columns}, owner FROM {table} ORDER BY {key}"  # noqa: S608 - our own words
        if not orphaned:
            return self._database.query(query)
        with self._database.transaction() as connection:
            rows = [row for row in connection.execute(query) if not is_alive(row[-1])]
            connection.executemany(
                f"UPDATE {table} SET owner = ? WHERE {key} = ?",  # noqa: S608 - our own words
                [(process_token(), row[0]) for row in rows],
            )
        return rows


def _upload(row: tuple[Any, ...]) -> PendingUpload:
    return PendingUpload(row[0], _key(row[1]), Path(os.fsdecode(row[2])), row[3], Version.from_stamp(row[4]), row[5])


def _blob(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _key(blob: bytes) -> str:
    return blob.decode("utf-8", "surrogateescape")


def _stamp(version: Version | None) -> str | None:
    return version.stamp() if version else None
