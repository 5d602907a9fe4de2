"""Programs that write to a mount until it dies under them, and that know what was acknowledged.

A writer owns a directory. `acknowledged` is what its calls returned 0 for; `alternatives` are the states that its
directory may be in because of the one call that had not returned when the mount died.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path

SMALL = ["a", "b", "c", "d"]
LARGE = "large"
BLOCK = 1 << 20
LARGE_BLOCKS = (17, 21)
"""So many MiB: parts of it are under way while it is written."""

State = dict[str, str | None]
"""Digests of contents by path; None: not there."""


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


EMPTY = digest_of(b"")
DIRECTORY = "directory"
"""In place of a digest."""


class Writer(threading.Thread):
    """`directory` is relative to the mount. `writes_large`: large ones too."""

    def __init__(self, directory: str, seed: str, *, writes_large: bool) -> None:
        super().__init__(name=directory, daemon=True)
        self.directory = directory
        self.acknowledged: dict[str, str] = {}
        self.small: dict[str, bytes] = {}
        """The content of small files, for changes in place."""
        self.alternatives: list[State] = []
        self.deferred: set[tuple[str, str]] = set()
        """Contents whose names were taken away while they were open: the primary may hold them until the next mount."""
        self.stage = "idle"
        self.began = 0.0
        self.operations = 0
        self.bytes = 0
        self.error: OSError | None = None
        self.bug: BaseException | None = None
        self.writes_large = writes_large
        self._random = random.Random(seed)
        self._mount = Path()
        self._going = threading.Event()

    def begin(self, mount: Path) -> None:
        """Write below `mount` until that fails."""
        self._mount = mount
        self._going.set()
        self.start()

    def successor(self, seed: str) -> Writer:
        """The same directory, for the next mount."""
        writer = Writer(self.directory, seed, writes_large=self.writes_large)
        writer.acknowledged, writer.small = self.acknowledged, self.small
        return writer

    def settle(self, found: State) -> str:
        """Take over what the next mount shows; what is wrong with it, or nothing."""
        expected = [self.acknowledged, *self.alternatives]
        present = {path: digest for path, digest in found.items() if digest is not None}
        for state in expected:
            merged = {**self.acknowledged, **state}
            if present == {path: digest for path, digest in merged.items() if digest is not None}:
                self.acknowledged = present
                self.small = {path: data for path, data in self.small.items() if digest_of(data) == present.get(path)}
                return ""
        wrong = {
            path: (found.get(path), [state.get(path, self.acknowledged.get(path)) for state in expected])
            for path in {*found, *self.acknowledged, *(path for state in expected for path in state)}
            if found.get(path) not in {state.get(path, self.acknowledged.get(path)) for state in expected}
        }
        return f"{self.directory} in {self.stage}: found and expected differ: {wrong or (found, expected)}"

    def may_hold(self, path: str, digest: str) -> bool:
        """Whether a store may hold this at `path` while the call in flight is neither done nor undone (W3)."""
        states = [{}, *self.alternatives]
        return (path, digest) in self.deferred or digest in {
            state.get(path, self.acknowledged.get(path)) for state in states
        }

    def run(self) -> None:
        try:
            while True:
                self._random.choice(self._choices())()
                self.operations += 1
        except OSError as error:
            self.error = error
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.bug = error

    # -- what it does ---------------------------------------------------------------------------------------------

    def _choices(self) -> list[Callable[[], None]]:
        choices = [
            self._write_small, self._write_small, self._write_exclusively, self._save, self._append,
            self._change_in_place, self._rename, self._unlink, self._unlink_opened, self._truncate,
            self._make_or_remove_directory,
        ]  # fmt: skip
        return choices + [self._write_large] * 4 if self.writes_large else choices

    def _write_small(self) -> None:
        """A file replaced as a whole, as open(path, "w") does."""
        path, data = self._any(), self._content()
        self._replace(path, data)

    def _replace(self, path: str, data: bytes, *, sync: bool = False) -> None:
        self._enter("open")
        with self._opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            self._write(fd, data)
            self._close(fd, {path: digest_of(data)}, sync=sync)
        self._keep(path, data)

    def _write_exclusively(self) -> None:
        path, data = self._any(), self._content()
        if path in self.acknowledged:
            return self._unlink()
        self._enter("open", {path: EMPTY})  # the name is taken on the primary when open() returns (W5)
        with self._opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            self._acknowledge({path: EMPTY})
            self._keep(path, b"")
            self._write(fd, data)
            self._close(fd, {path: digest_of(data)})
        self._keep(path, data)
        return None

    def _save(self) -> None:
        """Write, fsync, go on, close, rename: what git, safetensors and torch.save do."""
        data = self._content()
        half = data[: len(data) // 2]
        self._enter("open")
        with self._opened("saving", os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            self._write(fd, half)
            self._enter("fsync", {"saving": digest_of(half)})
            os.fsync(fd)
            self._acknowledge({"saving": digest_of(half)})
            self._keep("saving", half)
            self._write(fd, data[len(half) :])
            self._close(fd, {"saving": digest_of(data)})
        self._keep("saving", data)
        self._move("saving", self._any())

    def _append(self) -> None:
        path, data = self._known_small(), self._content()
        if path is None or len(self.small[path]) > 300_000:
            return self._write_small()
        whole = self.small[path] + data
        self._enter("open")
        with self._opened(path, os.O_WRONLY | os.O_APPEND) as fd:
            self._write(fd, data)
            self._close(fd, {path: digest_of(whole)})
        self._keep(path, whole)
        return None

    def _change_in_place(self) -> None:
        path = self._known_small()
        if path is None or not self.small[path]:
            return self._write_small()
        data = bytearray(self.small[path])
        at = self._random.randrange(len(data))
        data[at : at + 100] = self._random.randbytes(100)
        self._enter("open")
        with self._opened(path, os.O_RDWR) as fd:
            self._enter("write")
            os.pwrite(fd, data[at : at + 100], at)
            self._close(fd, {path: digest_of(data)}, sync=self._random.random() < 0.5)
        self._keep(path, bytes(data))
        return None

    def _rename(self) -> None:
        source = self._known_small()
        if source is None:
            return self._write_small()
        return self._move(source, self._any())

    def _move(self, source: str, target: str) -> None:
        if source == target:
            return
        digest = self.acknowledged[source]
        self._enter("rename", {source: None, target: digest})
        os.rename(self._path(source), self._path(target))
        self._acknowledge({source: None, target: digest})
        self.small[target] = self.small.pop(source)

    def _unlink(self) -> None:
        path = self._known_small()
        if path is None:
            return self._write_small()
        self._enter("unlink", {path: None})
        os.unlink(self._path(path))
        self._acknowledge({path: None})
        self.small.pop(path)
        return None

    def _unlink_opened(self) -> None:
        """The object goes when the last handle does, or at the next mount (W8)."""
        path = self._known_small()
        if path is None:
            return self._write_small()
        self._enter("open")
        with self._opened(path, os.O_RDONLY) as fd:
            self.deferred.add((path, self.acknowledged[path]))
            self._enter("unlink", {path: None})
            os.unlink(self._path(path))
            self._acknowledge({path: None})
            data = self.small.pop(path)
            self._enter("read")
            assert os.pread(fd, len(data) + 1, 0) == data
        return None

    def _truncate(self) -> None:
        path = self._known_small()
        if path is None:
            return self._write_small()
        size = self._random.randrange(150_000)
        data = self.small[path][:size].ljust(size, b"\0")
        self._enter("truncate", {path: digest_of(data)})
        os.truncate(self._path(path), size)
        self._acknowledge({path: digest_of(data)})
        self._keep(path, data)
        return None

    def _make_or_remove_directory(self) -> None:
        if "directory" in self.acknowledged:
            self._enter("rmdir", {"directory": None})
            os.rmdir(self._path("directory"))
            self._acknowledge({"directory": None})
        else:
            self._enter("mkdir", {"directory": DIRECTORY})
            os.mkdir(self._path("directory"))
            self._acknowledge({"directory": DIRECTORY})

    def _write_large(self) -> None:
        """Sent while it is written."""
        blocks = self._random.randint(*LARGE_BLOCKS)
        block = self._random.randbytes(BLOCK)
        hashed = hashlib.sha256()
        self._enter("open")
        with self._opened(LARGE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
            for number in range(blocks):
                piece = number.to_bytes(8, "big") + block[8:]
                hashed.update(piece)
                self._enter("stream" if number * BLOCK >= 16 << 20 else "write")
                self._write(fd, piece)
            self._close(fd, {LARGE: hashed.hexdigest()})

    # -- inside ---------------------------------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self._mount / self.directory / name

    def _any(self) -> str:
        return self._random.choice(SMALL)

    def _known_small(self) -> str | None:
        return self._random.choice(sorted(self.small)) if self.small else None

    def _content(self) -> bytes:
        return self._random.randbytes(self._random.choice([1, 100, 4096, 70_000, 150_000]))

    def _keep(self, path: str, data: bytes) -> None:
        self.small[path] = data

    def _enter(self, stage: str, *alternatives: State) -> None:
        """A call begins; if it does not return, the directory may be in one of these states as well."""
        self.alternatives = list(alternatives)
        self.stage = stage
        self.began = time.monotonic()

    def _acknowledge(self, change: State) -> None:
        acknowledged = {**self.acknowledged, **change}
        self.acknowledged = {path: digest for path, digest in acknowledged.items() if digest is not None}
        self.alternatives = []

    @contextmanager
    def _opened(self, name: str, flags: int):
        fd = os.open(self._path(name), flags, 0o644)
        try:
            yield fd
        finally:
            with suppress(OSError):  # closed by us, or the mount is dead
                os.close(fd)

    def _write(self, fd: int, data: bytes) -> None:
        if self.stage == "open":
            self._enter("write")
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(fd, rest) :]
        self.bytes += len(data)

    def _close(self, fd: int, change: State, *, sync: bool = False) -> None:
        """close(2), which acknowledges; before that fsync(2), which does so too."""
        if sync:
            self._enter("fsync", change)
            os.fsync(fd)
            self._acknowledge(change)
        self._enter("close", change)
        os.close(os.dup(fd))  # flushes; the descriptor itself is closed by the context, without another number's risk
        self._acknowledge(change)
