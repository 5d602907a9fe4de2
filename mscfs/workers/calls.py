"""The calls the daemon makes, whoever carries them out."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from mscfs.errors import StorageError
from mscfs.providers.page import Page
from mscfs.replicas.step import StepResult
from mscfs.types import ByteRange, ObjectMetadata, Version
from mscfs.workers.protocol import (
    AbortParts,
    BeginParts,
    CompleteParts,
    Download,
    Fetch,
    FetchDone,
    FetchSummary,
    List,
    ListDone,
    PartsBegun,
    Request,
    Result,
    SendPart,
    Step,
    StepDone,
    Upload,
    UploadDone,
    pack_text,
)

OnArrival = Callable[[int], None]
"""Called with the number of bytes of a fetch that are in the memory by now, from its beginning."""

OnSlow = Callable[[str, Sequence[str]], None]
"""Called when a fetch waits longer than usual for a store, with its profile and those that were tried before."""

OnEnd = Callable[[FetchSummary | None, StorageError | None], None]
"""Called once, when a fetch is over, with one of the two. From then on no worker writes into its memory."""


class StartedFetch(Protocol):
    """A fetch under way."""

    def promote(self) -> None:
        """A program waits for it now: let it overtake what is done in the background."""

    def cancel(self) -> None:
        """Nobody waits for it any more. It ends soon, and says so as always."""


OnPage = Callable[[Page], None]

Watching = Callable[[str], AbstractContextManager[None]]
"""Gives up what is done within when that store falls silent (`""`: any that it may wait for): StoreTimeoutError."""


class Calls(ABC):
    """Moves bytes between the stores, the shared memory and files. Any task may call; a cancelled call is given up.

    Every call raises the StorageError of the store or the disk; StoreUnavailableError when no worker survived it.
    """

    def __init__(self) -> None:
        self._ids = itertools.count(1)  # 0 is the start of a worker

    def start_fetch(
        self,
        key: str,
        version: Version,
        first: int,
        count: int,
        target: int,
        *,
        foreground: bool,
        present: int = 0,
        lacking: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        on_arrival: OnArrival,
        on_slow: OnSlow,
        on_end: OnEnd,
    ) -> StartedFetch:
        """Begin to bring chunks `first` to `first + count - 1` of a version into the memory with one ranged GET.

        They lie at offset `target` of the shared memory, which must be left alone until `on_end`. No callback may
        raise or wait. `present` bytes are there already. `lacking` are replicas that are asked last, `without` stores
        that are not asked at all. When no worker survives it, it ends with StoreUnavailableError.
        """
        request = Fetch(
            next(self._ids), pack_text(key), version, first, count, target, foreground, present, lacking, without
        )
        return self._start_fetch(request, on_arrival, on_slow, on_end)

    async def download(self, key: str, version: Version, target: Path) -> FetchSummary:
        """Write a whole version into a file that exists; it is emptied first.

        A call that fails leaves a part; one that is cancelled may still write for a moment: remove the file.
        """
        done = await self._perform(Download(next(self._ids), pack_text(key), version, pack_text(str(target))))
        assert isinstance(done, FetchDone)
        return done.summary

    async def upload(
        self,
        key: str,
        path: Path,
        *,
        metadata: Mapping[str, str] | None = None,
        content_type: str | None = None,
        if_absent: bool = False,
        expected: Version | None = None,
        repeated: bool = False,
    ) -> ObjectMetadata:
        """Put a file to the primary, as `StorageProvider.put` does.

        A call that is cancelled may still happen, whole. When a worker dies over it, it is repeated; a condition that
        then fails because the first attempt had succeeded is no failure. `repeated`: there was such an attempt before
        this call.
        """
        request = Upload(
            next(self._ids),
            pack_text(key),
            pack_text(str(path)),
            None if metadata is None else dict(metadata),
            content_type,
            if_absent,
            expected,
            repeated,
        )
        done = await self._perform(request)
        assert isinstance(done, UploadDone)
        return replace(done.metadata, key=key)

    async def list_directory(
        self, directory: str, on_page: OnPage, *, store: str = "", stand_in: bool = False
    ) -> Sequence[str]:
        """List a directory (`""` or a key that ends in `/`); returns the profiles of stores that are in trouble.

        It is the primary's listing; with `store` what that replica holds, and with `stand_in` what the first healthy
        replica tells of the primary's objects.

        `on_page` must not raise. When a worker dies over it, it begins again: names that came before come once more.
        """
        done = await self._perform(List(next(self._ids), pack_text(directory), store, stand_in), on_page=on_page)
        assert isinstance(done, ListDone)
        return done.suspects

    async def begin_parts(self, key: str, metadata: Mapping[str, str] | None) -> tuple[int, str]:
        """Begin an upload in parts to the primary. Returns its name for the calls below, and its token.

        The upload lives in one worker process: when that dies, all further calls but `abort_parts` raise
        StoreUnavailableError.
        """
        request = BeginParts(next(self._ids), pack_text(key), None if metadata is None else dict(metadata))
        done = await self._perform(request)
        assert isinstance(done, PartsBegun)
        return done.id, done.token

    async def send_part(self, upload: int, key: str, number: int, path: Path, part: ByteRange) -> None:
        """Send bytes of a file as part `number`, from 1."""
        await self._perform(
            SendPart(next(self._ids), upload, pack_text(key), number, pack_text(str(path)), part.offset, part.size)
        )

    async def complete_parts(
        self, upload: int, key: str, *, if_absent: bool, expected: Version | None
    ) -> ObjectMetadata:
        """Make the object of an upload in parts appear; conditions as in `upload`."""
        done = await self._perform(CompleteParts(next(self._ids), upload, pack_text(key), if_absent, expected))
        assert isinstance(done, UploadDone)
        return replace(done.metadata, key=key)

    async def abort_parts(self, upload: int, key: str, token: str) -> None:
        """Throw the parts away, whichever process began the upload."""
        await self._perform(AbortParts(next(self._ids), upload, pack_text(key), token))

    async def step(self, profile: str, key: str, *, delete: bool = False) -> StepResult:
        """Bring one replica to the primary's present state: `mscfs.replicas.step.bring_up_to_date`."""
        done = await self._perform(Step(next(self._ids), profile, pack_text(key), delete))
        assert isinstance(done, StepDone)
        return done.result

    @abstractmethod
    async def _perform(self, request: Request, on_page: OnPage | None = None) -> Result:
        """Carry out one request."""

    @abstractmethod
    def _start_fetch(self, request: Fetch, on_arrival: OnArrival, on_slow: OnSlow, on_end: OnEnd) -> StartedFetch:
        """Begin to carry out a fetch."""
