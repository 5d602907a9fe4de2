"""Stores for worker processes: a directory whose objects can hold a reader up, or kill it.

What an object does to its reader stands in a file beside it, so that a test in another process can arrange it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import trio

from mscfs.config.values import Config, ProfileConfig, ProviderConfig
from mscfs.errors import AlreadyExistsError, ConfigError, NotFoundError, StoreUnavailableError, VersionMismatchError
from mscfs.journal import Journal
from mscfs.providers.base import Capabilities, MultipartUpload, ObjectReader, StorageProvider
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
from mscfs.types import ByteRange, ObjectMetadata, from_ns

FACTORY = "tests.workers.stores:open_store"
PIECE = 300_000


class Hold:
    """Two named pipes: on one a reader says that it waits, from the other it takes the leave to go on."""

    def __init__(self, arrived: Path, leave: Path) -> None:
        os.mkfifo(arrived)
        os.mkfifo(leave)
        self._arrived = os.open(arrived, os.O_RDWR | os.O_NONBLOCK)
        self._leave = os.open(leave, os.O_RDWR | os.O_NONBLOCK)
        self._path = leave

    async def arrival(self) -> None:
        """Return when a reader waits."""
        await trio.lowlevel.wait_readable(self._arrived)
        os.read(self._arrived, 1)

    def release(self) -> None:
        """Let one reader go on by one piece."""
        os.write(self._leave, b".")

    def end(self) -> None:
        """Let all readers go on."""
        self._path.unlink()
        os.write(self._leave, b"." * 100)

    @staticmethod
    def wait(arrived: Path, leave: Path) -> None:
        """What a reader does."""
        try:
            pipe = os.open(leave, os.O_RDWR)
        except FileNotFoundError:
            return
        with arrived.open("r+b", buffering=0) as file:
            file.write(b".")
        os.read(pipe, 1)
        os.close(pipe)


class DirectoryStore(StorageProvider):
    """Objects as files, metadata as JSON beside them. Only what workers use."""

    capabilities = Capabilities()

    def __init__(self, root: Path, profile: str = "test") -> None:
        self.root = root
        self.profile = profile
        self.identity = f"test://{root}"

    def file(self, key: str, suffix: str = "") -> Path:
        return self.root / (quote_from_bytes(os.fsencode(key), safe="") + suffix)

    def hold(self, key: str) -> Hold:
        """Have readers of a key wait after each piece until they are let go."""
        return Hold(self.file(key, ".arrived"), self.file(key, ".hold"))

    def kill(self, key: str, times: int, *, when: str = "read") -> None:
        """Have the next so many readers (or, `put`, writers after their write) of a key die."""
        self.file(key, f".kill-{when}").write_text(str(times))

    def fail(self, key: str) -> None:
        """Have all reads of a key fail from now on."""
        self.file(key, ".fail").touch()

    def head(self, key: str) -> ObjectMetadata:
        try:
            data = self.file(key).read_bytes()
        except FileNotFoundError:
            raise NotFoundError("no such key", store=self.profile, key=key) from None
        stored = self.file(key, ".json")
        return ObjectMetadata(
            key,
            len(data),
            from_ns(10**18),
            tag=hashlib.sha256(data).hexdigest()[:16],
            metadata=json.loads(stored.read_text()) if stored.exists() else {},
        )

    def get(self, key: str, byte_range: ByteRange | None = None, *, expected: Any = None) -> ObjectReader:
        metadata = self.head(key)
        if expected is not None and metadata.version != expected:
            raise VersionMismatchError("another version", store=self.profile, key=key)
        if self.file(key, ".fail").exists():
            raise StoreUnavailableError("as it was told", store=self.profile, key=key)
        wanted = (byte_range or ByteRange(0, metadata.content_length)).clip(metadata.content_length)
        with self.file(key, ".requests").open("a") as log:
            log.write(f"{wanted.offset}+{wanted.size} by {os.getpid()}\n")
        return _Reader(self, metadata, wanted)

    def requests(self, key: str) -> list[str]:
        """The ranges that were asked for."""
        log = self.file(key, ".requests")
        return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    def readers(self, key: str) -> list[int]:
        """The processes that asked."""
        return [int(line.split()[-1]) for line in self.file(key, ".requests").read_text().splitlines()]

    def put(self, key, source, *, metadata=None, content_type=None, if_absent=False, expected=None) -> ObjectMetadata:
        path = self.file(key)
        if if_absent and path.exists():
            raise AlreadyExistsError("exists", store=self.profile, key=key)
        if expected is not None and (not path.exists() or self.head(key).version != expected):
            raise VersionMismatchError("another version", store=self.profile, key=key)
        data = source.read_bytes() if isinstance(source, Path) else b"".join(source)
        path.write_bytes(data)
        self.file(key, ".json").write_text(json.dumps(dict(metadata or {})))
        self.die(key, "put")
        return self.head(key)

    def die(self, key: str, when: str) -> None:
        lives = self.file(key, f".kill-{when}")
        if lives.exists() and (times := int(lives.read_text())):
            lives.write_text(str(times - 1))
            os.kill(os.getpid(), signal.SIGKILL)

    def has_directory(self, directory: str) -> bool:
        return False

    def delete(self, key, *, expected=None):
        self.file(key).unlink(missing_ok=True)

    def probe(self) -> None:
        pass

    def close(self) -> None:
        (self.root / f"closed-by-{os.getpid()}").touch()

    def _unused(self, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError

    def list_directory(self, directory: str = "") -> Iterator[ObjectMetadata]:
        """Enough names for some pages; `dies` ends the process in the middle, once."""
        for number in range(2500):
            yield ObjectMetadata(f"{directory}{number:05}", number, from_ns(0), tag="t")
            if number == 1500 and directory == "dies/":
                with suppress(FileExistsError):
                    (self.root / "died").mkdir()
                    os.kill(os.getpid(), signal.SIGKILL)

    def start_upload(self, key, *, metadata=None, content_type=None) -> MultipartUpload:
        return _Upload(self, key, metadata)

    def abort_upload(self, key: str, token: str) -> None:
        self.file(key, ".aborted").write_text(token)

    copy = list = make_directory = remove_directory = set_metadata = _unused


class _Upload(MultipartUpload):
    def __init__(self, store: DirectoryStore, key: str, metadata: Any) -> None:
        self._store = store
        self._key = key
        self._metadata = metadata
        self._parts: dict[int, bytes] = {}
        self.token = f"by-{os.getpid()}"

    def put_part(self, number: int, data: bytes | memoryview) -> None:
        self._store.die(self._key, "part")
        self._parts[number] = bytes(data)

    def complete(self, *, if_absent: bool = False, expected: Any = None) -> ObjectMetadata:
        parts = [self._parts[number] for number in sorted(self._parts)]
        return self._store.put(self._key, parts, metadata=self._metadata, if_absent=if_absent, expected=expected)

    def abort(self) -> None:
        self._store.abort_upload(self._key, self.token)


class _Reader(ObjectReader):
    def __init__(self, store: DirectoryStore, metadata: ObjectMetadata, byte_range: ByteRange) -> None:
        super().__init__(metadata, byte_range, source=store.profile)
        self._store = store

    def _pieces(self) -> Iterator[bytes]:
        key = self.metadata.key
        with self._store.file(key).open("rb") as file:
            file.seek(self.byte_range.offset)
            left = self.byte_range.size
            while left:
                piece = file.read(min(PIECE, left))
                left -= len(piece)
                yield piece
                Hold.wait(self._store.file(key, ".arrived"), self._store.file(key, ".hold"))
                self._store.die(key, "read")


def open_store(config: Config, profile: str, *, record_back_fill: Any) -> StorageProvider:
    """What a worker opens: a plain store, or with the option `replica` a manager of two."""
    options = config.profiles[profile].storage_provider.options
    if "refuse" in options:
        raise ConfigError(options["refuse"])
    if "talkative" in options:
        logging.getLogger("botocore.auth").debug("Authorization: %s", options["secret"])
        logging.getLogger("mscfs.providers").warning("%s is odd", options["talkative"])
    primary = DirectoryStore(Path(options["root"]), profile)
    if "replica" not in options:
        return primary
    copy = Replica("near", DirectoryStore(Path(options["replica"]), "near"), read_priority=1, read_only=False, index=0)
    return ReplicaManager(
        Source(profile, primary), [copy], Journal(primary.root / "journal.db"), record_back_fill=record_back_fill
    )


def configuration(**options: str) -> Config:
    """A configuration with one profile, `test`."""
    return Config({"test": ProfileConfig("test", ProviderConfig("test", options))})
