"""The client: objects of one profile, read from the nearest healthy copy and written to the primary."""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice, takewhile
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from mscfs.client import drain as draining
from mscfs.client import sync, transfer
from mscfs.client.attributes import to_metadata, without_own
from mscfs.client.config import StorageClientConfig
from mscfs.client.opening import open_file
from mscfs.client.paths import SCHEME, AnyPath, literal_prefix, match, to_key
from mscfs.client.replicator import Replicator, upload_threads
from mscfs.client.retry import while_replaced
from mscfs.client.tree import remove_tree
from mscfs.config.values import Config
from mscfs.errors import IsADirectoryKeyError, NotFoundError, StorageError, UnsupportedError
from mscfs.replicas.manager import ReplicaManager
from mscfs.store import open_store
from mscfs.types import ByteRange, ObjectMetadata, from_ns

OpenStore = Callable[[Config, str], ReplicaManager]


@dataclass(frozen=True, slots=True)
class _Process:
    """What belongs to one process: connections and threads do not survive a fork."""

    pid: int
    store: ReplicaManager
    replicator: Replicator | None


class StorageClient:
    """Read and write the objects of one profile. Thread-safe, picklable, and usable in forked children.

    Reads come from the first healthy replica that holds the primary's version, else from the primary. Writes return
    when the primary holds the bytes and the wish to replicate them is on disk; background threads carry the wishes
    out until the program ends: what is left waits in the journal for the next program, a mount, or `drain`.

    Paths are keys, with or without a leading `/`. All methods raise subclasses of `mscfs.errors.MscfsError`, those for
    missing and existing keys and for denied access are also FileNotFoundError, FileExistsError and PermissionError.
    """

    def __init__(self, config: StorageClientConfig, *, open_store: OpenStore = open_store) -> None:
        """No request is made yet. ConfigError when `MSC_REPLICA_UPLOAD_THREADS` is no number from 1."""
        self._config = config
        self._open_store = open_store
        self._threads = upload_threads()
        self._process: _Process | None = None
        self._inherited: builtins.list[_Process] = []
        self._locks: dict[int, threading.Lock] = {}

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def profile(self) -> str:
        """The name of the profile."""
        return self._config.profile

    @property
    def config(self) -> StorageClientConfig:
        """What it was made from."""
        return self._config

    @property
    def store(self) -> ReplicaManager:
        """The profile's stores as one provider, in this process."""
        return self._here().store

    @property
    def replicas(self) -> builtins.list[StorageClient]:
        """A client for each replica's own profile, in reading order."""
        return [
            StorageClient(self._config.of_profile(replica.profile), open_store=self._open_store)
            for replica in self.store.replicas
        ]

    def __repr__(self) -> str:
        return f"StorageClient(profile={self.profile!r})"

    # -- reading ------------------------------------------------------------------------------------------------

    def read(self, path: AnyPath, byte_range: ByteRange | None = None) -> bytes:
        """The bytes of an object, or of a range of it (clipped to its end): always of one version.

        NotFoundError when there is none. A range moves only its own bytes.
        """

        def read() -> bytes:
            with self.store.get(to_key(path), byte_range) as answer:
                return answer.read_all()

        return while_replaced(read)

    def open(
        self,
        path: AnyPath,
        mode: str = "rb",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        *,
        attributes: dict[str, Any] | None = None,
    ) -> IO[Any]:
        """Open an object as a file, with the modes of the built-in `open` (text is UTF-8 unless `encoding` says else).

        A file opened for reading stays at the version of that moment: VersionMismatchError (ESTALE) when the object is
        replaced and no store holds that version any more. A written file appears whole at `close()`, which raises what
        the store says; after an exception inside `with`, after a crash, and without `close()`, nothing appears. `a` and
        `r+` fetch the object first and fail at `close()` when it was replaced meanwhile; `x` fails when it exists.
        """
        return open_file(
            lambda: self.store,
            to_key(path),
            mode,
            buffering=buffering,
            encoding=encoding,
            errors=errors,
            newline=newline,
            metadata=to_metadata(attributes),
        )

    def download_file(self, remote_path: AnyPath, local_path: AnyPath | IO[bytes]) -> None:
        """Fetch an object to a local path or into an open file. A path has the old content or the whole new one."""
        if isinstance(local_path, str | os.PathLike):
            transfer.download(self.store, to_key(remote_path), Path(local_path))
        else:
            transfer.download_into(self.store, to_key(remote_path), local_path)

    def info(self, path: AnyPath) -> ObjectMetadata:
        """The metadata of an object or a directory (type `directory`, a key that ends in `/`).

        NotFoundError when there is neither; while the primary is down, StoreUnavailableError for what no replica has.
        """
        key = to_key(path)
        if not key:
            return ObjectMetadata("", 0, from_ns(0), type="directory")
        if key.endswith("/"):
            return self.store.head_directory(key)
        try:
            return without_own(self.store.head(key))
        except StorageError as error:
            # With the primary down nobody knows for sure that there is no such object; a directory may be known all
            # the same.
            if not error.transient and not isinstance(error, NotFoundError):
                raise
            try:
                return self.store.head_directory(f"{key}/")
            except NotFoundError:
                raise error from None

    def is_file(self, path: AnyPath) -> bool:
        """Whether an object has this key."""
        try:
            return not self.info(path).is_directory
        except NotFoundError:
            return False

    def is_empty(self, path: AnyPath) -> bool:
        """Whether no object has this key or lies below it."""
        return next(self.list(path), None) is None

    def list(
        self,
        path: AnyPath = "",
        start_after: str | None = None,
        end_at: str | None = None,
        include_directories: bool = False,
        include_url_prefix: bool = False,
        *,
        prefix: str | None = None,
    ) -> Iterator[ObjectMetadata]:
        """The object `path` and all objects below the directory `path`, in key order (UTF-8 bytes), page by page.

        Keys after `start_after` up to and including `end_at`. With `include_directories` only what is directly in the
        directory, sub-directories (keys that end in `/`) included, in the store's own order. `prefix` instead of a
        path: all keys that begin so.
        """
        if include_directories:
            directory = to_key(path if prefix is None else prefix).rstrip("/")
            entries = self.store.list_directory(f"{directory}/" if directory else "")
        elif prefix is not None:
            entries = self._objects(prefix.lstrip("/"), start_after)
        else:
            entries = self._below(to_key(path), start_after)
        for entry in entries:
            if start_after is not None and _order(entry.key) <= _order(start_after):
                continue
            if end_at is not None and _order(entry.key) > _order(end_at):
                if include_directories:
                    continue
                return
            yield replace(entry, key=f"{SCHEME}{self.profile}/{entry.key}") if include_url_prefix else entry

    def glob(self, pattern: str, include_url_prefix: bool = False) -> builtins.list[str]:
        """The keys of objects and directories that match, in key order.

        `*`, `?` and `[…]` match inside one segment, `**` any number of segments; names that begin with a dot only match
        a pattern that does. A directory has no `/` at its end here.
        """
        pattern = to_key(pattern)
        keys = (entry.key for entry in self._objects(literal_prefix(pattern)))
        found = sorted(match(keys, pattern), key=_order)
        return [f"{SCHEME}{self.profile}/{key}" for key in found] if include_url_prefix else found

    # -- writing ------------------------------------------------------------------------------------------------

    def write(
        self, path: AnyPath, body: bytes | bytearray | memoryview, attributes: dict[str, Any] | None = None
    ) -> None:
        """Store an object. A reader anywhere sees the old content or the new; returns when the primary holds it."""
        content = bytes(body) if isinstance(body, bytearray) else body
        self.store.put(to_key(path), content, metadata=to_metadata(attributes))

    def upload_file(
        self, remote_path: AnyPath, local_path: AnyPath | IO[bytes], attributes: dict[str, Any] | None = None
    ) -> None:
        """Store a local file, or what an open file delivers. The file may be changed as soon as this returns."""
        source = Path(local_path) if isinstance(local_path, str | os.PathLike) else local_path
        transfer.upload(self.store, to_key(remote_path), source, metadata=to_metadata(attributes))

    def copy(self, src_path: AnyPath, dest_path: AnyPath) -> None:
        """Copy an object inside the primary, its attributes included; the copy is replicated."""
        self.store.copy(to_key(src_path), to_key(dest_path))

    def delete(self, path: AnyPath, recursive: bool = False) -> None:
        """Remove an object, or with `recursive` a directory and all below it.

        The primary's copy goes; replicas keep theirs unless `propagate_deletes` is set, and it is never read again.
        NotFoundError when there is nothing; IsADirectoryKeyError for a directory without `recursive`.
        """
        found = self.info(path)
        if not found.is_directory:
            self.store.delete(found.key)
        elif recursive:
            remove_tree(self.store, found.key)
        else:
            message = "is a directory: only recursive=True removes it and all below it"
            raise IsADirectoryKeyError(message, store=self.profile, key=found.key)

    # -- replicas -----------------------------------------------------------------------------------------------

    def sync_replicas(
        self,
        source_path: AnyPath = "",
        replica_indices: Iterable[int] | None = None,
        delete_unmatched_files: bool = False,
        dryrun: bool = False,
        execution_mode: sync.ExecutionMode = sync.ExecutionMode.LOCAL,
        num_workers: int | None = None,
        on_progress: sync.OnProgress | None = None,
    ) -> sync.SyncResult:
        """Bring everything at and below `source_path` to the replicas: see `mscfs.client.sync.sync_replicas`."""
        if execution_mode is not sync.ExecutionMode.LOCAL:
            message = f"execution mode {execution_mode.value} is not supported yet: use {sync.ExecutionMode.LOCAL}"
            raise UnsupportedError(message, store=self.profile)
        return sync.sync_replicas(
            self.store,
            to_key(source_path),
            replica_indices=replica_indices,
            delete_unmatched_files=delete_unmatched_files,
            dryrun=dryrun,
            num_workers=num_workers,
            on_progress=on_progress,
        )

    def drain(
        self,
        timeout: float | None = None,
        on_progress: Callable[[draining.DrainProgress], object] | None = None,
    ) -> draining.DrainResult:
        """Wait until the replicas have everything: see `mscfs.client.drain.drain`. `timeout` in seconds."""
        return draining.drain(self.store, timeout=timeout, threads=self._threads, on_progress=on_progress)

    # -- life ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give connections and threads back. Waits for nothing and loses nothing; the next call opens them again."""
        process = self._process
        if process is None or process.pid != os.getpid():
            return
        self._process = None
        if process.replicator is None:
            process.store.close()
        else:
            process.replicator.stop(process.store.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> tuple[StorageClientConfig, OpenStore]:
        return self._config, self._open_store

    def __setstate__(self, state: tuple[StorageClientConfig, OpenStore]) -> None:
        config, open_store = state
        StorageClient.__init__(self, config, open_store=open_store)

    # -- inside -------------------------------------------------------------------------------------------------

    def _here(self) -> _Process:
        process = self._process
        if process is not None and process.pid == os.getpid():
            return process
        # A lock for each process: one that another thread held during a fork would stay locked in the child for ever.
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            process = self._process
            if process is None or process.pid != os.getpid():
                if process is not None:
                    # Kept, never used: closing connections here would disturb the parent that shares them.
                    self._inherited.append(process)
                process = self._process = self._begin()
            return process

    def _begin(self) -> _Process:
        store = self._open_store(self._config.config, self._config.profile)
        journal = store.journal
        if journal is None or not store.replicas:
            return _Process(os.getpid(), store, None)
        replicator = Replicator(store, journal, threads=self._threads)
        store.on_wish = replicator.wake
        if journal.path.exists():
            # What earlier programs left.
            replicator.wake()
        return _Process(os.getpid(), store, replicator)

    def _objects(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectMetadata]:
        entries = self.store.list(prefix, start_after=start_after or "")
        return (entry for entry in entries if not entry.is_directory)

    def _below(self, path: str, start_after: str | None) -> Iterator[ObjectMetadata]:
        if not path or path.endswith("/"):
            return self._objects(path, start_after)
        # In key order, the object itself comes before everything else that begins like it.
        itself = takewhile(lambda entry: entry.key == path, islice(self._objects(path), 1))
        return chain(itself, self._objects(f"{path}/", start_after))


def _order(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")
