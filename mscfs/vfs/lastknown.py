"""What the primary last told of names, on disk: a mount that starts while the primary is down goes on from it (R8).

One SQLite file in the profile's state directory, which may be thrown away at any time. A directory's listing is kept
as the pages it came in (columns, about 35 bytes a name), each sealed with a digest; what was told of single names
since, or changed on a mount, stands beside it and wins when it is younger than the listing's beginning. The pages of a
large one are written while it is under way, below a number that is no directory's, so that nobody has to hold them all.
Moments are seconds since the epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import Connection

import msgspec

from mscfs.journal.database import Database
from mscfs.providers.page import Entry, Page
from mscfs.vfs.paths import to_bytes, to_name

VERSION = 1
LIMIT = 256 << 20
"""Bytes that it may hold, as far as is counted: about seven million names. Then what was told longest ago goes."""
_DIGEST = 16
_ROW = 200
"""Bytes that a directory counts, and a name told of by itself, whatever its length."""

_SCHEMA = """
DROP TABLE IF EXISTS directories; DROP TABLE IF EXISTS pages; DROP TABLE IF EXISTS names;
CREATE TABLE directories (
  id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, taken REAL, bytes INTEGER NOT NULL, touched REAL NOT NULL);
CREATE TABLE pages (
  directory INTEGER NOT NULL, position INTEGER NOT NULL, content BLOB NOT NULL, PRIMARY KEY (directory, position));
CREATE TABLE names (
  directory INTEGER NOT NULL, name BLOB NOT NULL, moment REAL NOT NULL, content BLOB,
  PRIMARY KEY (directory, name)) WITHOUT ROWID;
"""

_TABLES = (("pages", "directory"), ("names", "directory"), ("directories", "id"))
"""Where a directory's id stands."""

_SIZE = f"""{_ROW} + (SELECT COALESCE(SUM(LENGTH(content)), 0) FROM pages WHERE directory = id)
  + {_ROW} * (SELECT COUNT(*) FROM names WHERE directory = id)"""  # noqa: S608 - a number of ours

_RECORD = """
INSERT INTO names VALUES (?, ?, ?, ?) ON CONFLICT (directory, name) DO UPDATE SET
  moment = excluded.moment, content = excluded.content WHERE excluded.moment >= moment
"""


@dataclass(frozen=True, slots=True)
class Told:
    """The primary's word on one name at a moment; `entry` None: there is no such name."""

    directory: str
    name: bytes
    moment: float
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A directory as it was last told: `pages` of its listing, and what `names` were told to be since.

    Without a listing (not `is_whole`) only of those names something is known.
    """

    pages: Sequence[Page]
    names: dict[bytes, Entry | None]
    is_whole: bool


class LastKnown:
    """See the module. Blocking and thread-safe. Raises StorageError; the file should be discarded then."""

    def __init__(self, path: Path, *, limit: int = LIMIT) -> None:
        self._path = path
        self._limit = limit
        self._database = Database(path, _SCHEMA, VERSION, name="list of names")

    def directories(self) -> dict[str, bool]:
        """The directories of which something is known, and whether their listing is.

        What an earlier process left of listings that were under way is thrown away.
        """
        with self._database.transaction(durable=False) as connection:
            connection.execute("DELETE FROM pages WHERE directory < 0")
        return {
            to_name(row[0]): bool(row[1])
            for row in self._database.query("SELECT key, taken IS NOT NULL FROM directories")
        }

    def youngest(self) -> float:
        """The moment of what was told last; 0 when nothing is known."""
        return float(self._database.query("SELECT COALESCE(MAX(touched), 0) FROM directories")[0][0])

    def record(self, told: Sequence[Told]) -> None:
        """Take in what was told of single names; of what was told at two moments the younger counts."""
        with self._database.transaction(durable=False) as connection:
            rows: dict[str, int] = {}
            for item in told:
                if item.directory not in rows:
                    rows[item.directory] = _row(connection, item.directory, item.moment)
            connection.executemany(
                _RECORD,
                [(rows[item.directory], item.name, item.moment, _pack(item.entry)) for item in told],
            )
            connection.executemany(
                "UPDATE directories SET bytes = bytes + ?, touched = MAX(touched, ?) WHERE id = ?",
                [(_ROW, item.moment, rows[item.directory]) for item in told],
            )
            self._evict(connection)

    def keep(self, directory: str, listing: int, position: int, pages: Sequence[Page]) -> None:
        """Take in pages, from `position` on, of a listing that is under way. They count once `replace` has come.

        `listing` is its number, at least 1, which no other one has in the life of this object.
        """
        changed = self._changed(directory, position, pages)
        with self._database.transaction(durable=False) as connection:
            _insert(connection, -listing, changed)

    def drop(self, listing: int) -> None:
        """A listing came to no end: forget what `keep` had of it."""
        with self._database.transaction(durable=False) as connection:
            connection.execute("DELETE FROM pages WHERE directory = ?", (-listing,))

    def replace(
        self, directory: str, taken: float, pages: Sequence[Page], *, listing: int = 0, position: int = 0
    ) -> bool:
        """Take in a complete listing that began at `taken`: what `keep` had of it, and `pages` from `position` on.

        Pages that are the same as before are not written. False: they have been forgotten meanwhile, so that the
        listing has holes; then none is known.
        """
        changed, count = self._changed(directory, position, pages), position + len(pages)
        with self._database.transaction(durable=False) as connection:
            row = _row(connection, directory, taken)
            connection.execute("UPDATE OR REPLACE pages SET directory = ? WHERE directory = ?", (row, -listing))
            _insert(connection, row, changed)
            connection.execute("DELETE FROM pages WHERE directory = ? AND position >= ?", (row, count))
            found = connection.execute("SELECT COUNT(*) FROM pages WHERE directory = ?", (row,)).fetchone()[0]
            is_whole = bool(found == count)
            if not is_whole:
                connection.execute("DELETE FROM pages WHERE directory = ?", (row,))
            connection.execute("DELETE FROM names WHERE directory = ? AND moment < ?", (row, taken))
            connection.execute(
                f"UPDATE directories SET taken = ?, touched = MAX(touched, ?), bytes = {_SIZE} WHERE id = ?",  # noqa: S608
                (taken if is_whole else None, taken, row),
            )
            self._evict(connection)
        return is_whole

    def forget(self, directories: Sequence[str]) -> None:
        """Forget directories, not what is below them."""
        keys = [(to_bytes(directory),) for directory in directories]
        with self._database.transaction(durable=False) as connection:
            for table, column in _TABLES:
                connection.executemany(
                    f"DELETE FROM {table} WHERE {column} = (SELECT id FROM directories WHERE key = ?)",  # noqa: S608
                    keys,
                )

    def forget_below(self, directory: str) -> None:
        """Forget a directory and all below it."""
        prefix = to_bytes(directory)
        below = "SELECT id FROM directories WHERE SUBSTR(key, 1, ?) = ?"
        with self._database.transaction(durable=False) as connection:
            for table, column in _TABLES:
                connection.execute(
                    f"DELETE FROM {table} WHERE {column} IN ({below})",  # noqa: S608 - our own words
                    (len(prefix), prefix),
                )

    def read(self, directory: str) -> Snapshot | None:
        """What is known of a directory; None when nothing is, or something is damaged."""
        found = self._database.query("SELECT id, taken FROM directories WHERE key = ?", (to_bytes(directory),))
        if not found:
            return None
        row, taken = found[0]
        try:
            pages = [
                msgspec.msgpack.decode(unseal(content), type=Page)
                for (content,) in self._database.query(
                    "SELECT content FROM pages WHERE directory = ? ORDER BY position", (row,)
                )
            ]
            rows = self._database.query("SELECT name, content FROM names WHERE directory = ?", (row,))
            return Snapshot(pages, {name: _unpack(content) for name, content in rows}, taken is not None)
        except (ValueError, zlib.error):
            return None

    def read_name(self, directory: str, name: bytes) -> tuple[Entry | None] | None:
        """What was told of one name by itself, `(None,)`: that it does not exist; None when nothing was told."""
        rows = self._database.query(
            "SELECT content FROM names JOIN directories ON directories.id = names.directory WHERE key = ? AND name = ?",
            (to_bytes(directory), name),
        )
        try:
            return (_unpack(rows[0][0]),) if rows else None
        except (ValueError, zlib.error):
            return None

    def discard(self) -> None:
        """Forget everything and begin anew: a file that lacks something would tell what is not so any more."""
        self._database.close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self._path.with_name(self._path.name + suffix).unlink()

    def close(self) -> None:
        """Close this process's connection."""
        self._database.close()

    def _changed(self, directory: str, position: int, pages: Sequence[Page]) -> list[tuple[int, bytes]]:
        """Position and sealed content of those pages that are not the same as in the last listing."""
        before: dict[int, bytes] = dict(
            self._database.query(
                f"SELECT position, SUBSTR(content, 1, {_DIGEST}) FROM pages"  # noqa: S608 - a number of ours
                " JOIN directories ON directories.id = pages.directory WHERE key = ? AND position BETWEEN ? AND ?",
                (to_bytes(directory), position, position + len(pages) - 1),
            )
        )
        changed = []
        for at, page in enumerate(pages, position):
            content = msgspec.msgpack.encode(page)
            if before.get(at) != _digest(content):
                changed.append((at, seal(content)))
        return changed

    def _evict(self, connection: Connection) -> None:
        """Forget directories, those that were told of longest ago first, until what is kept is below the limit."""
        if self._total(connection) <= self._limit:
            return
        # Names that were told of again were counted again.
        connection.execute(f"UPDATE directories SET bytes = {_SIZE}")  # noqa: S608 - our own words
        total = self._total(connection)
        if total <= self._limit:
            return
        for row, size in connection.execute("SELECT id, bytes FROM directories ORDER BY touched").fetchall():
            for table, column in _TABLES:
                connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (row,))  # noqa: S608 - our own words
            total -= size
            if total <= self._limit * 0.9:
                return

    @staticmethod
    def _total(connection: Connection) -> int:
        return int(connection.execute("SELECT COALESCE(SUM(bytes), 0) FROM directories").fetchone()[0])


def _insert(connection: Connection, row: int, pages: Sequence[tuple[int, bytes]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO pages VALUES (?, ?, ?)", [(row, *page) for page in pages])


def seal(content: bytes) -> bytes:
    """Compressed, with a digest in front."""
    return _digest(content) + zlib.compress(content, 1)


def unseal(sealed: bytes) -> bytes:
    """The inverse of `seal`; ValueError or zlib.error when it is damaged."""
    content = zlib.decompress(sealed[_DIGEST:])
    if _digest(content) != sealed[:_DIGEST]:
        raise ValueError("the digest does not match")
    return content


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()


def _pack(entry: Entry | None) -> bytes | None:
    return None if entry is None else seal(msgspec.msgpack.encode(entry))


def _unpack(content: bytes | None) -> Entry | None:
    return None if content is None else msgspec.msgpack.decode(unseal(content), type=Entry)


def _row(connection: Connection, directory: str, moment: float) -> int:
    found = connection.execute(
        f"INSERT INTO directories (key, bytes, touched) VALUES (?, {_ROW}, ?)"  # noqa: S608 - a number of ours
        " ON CONFLICT (key) DO UPDATE SET touched = MAX(touched, excluded.touched) RETURNING id",
        (to_bytes(directory), moment),
    ).fetchall()
    return int(found[0][0])
