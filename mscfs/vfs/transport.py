"""What the file system asks of whatever moves bytes for it: worker processes, or a double in tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from mscfs.errors import StorageError
from mscfs.providers.page import Page
from mscfs.replicas.step import StepResult
from mscfs.types import ByteRange, ObjectMetadata, Version
from mscfs.workers.calls import OnArrival, OnEnd, OnSlow, StartedFetch, Watching
from mscfs.workers.protocol import FetchSummary, Stores

Result = TypeVar("Result")

OnPage = Callable[[Page], None]
"""Called with each page of a listing as soon as it has come; must not raise."""


class Transport(Protocol):
    """Moves bytes between the stores, the shared memory and staging files. Whoever awaits may be cancelled."""

    on_trouble: Callable[[str, StorageError], None]
    """Called with each failure of a store that a worker met."""

    watching: Watching
    """Around each call that waits for a store, but no fetch."""

    def tell(self, stores: Stores) -> None:
        """Let all workers know how the stores are, those that are started later too."""

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
        """Begin to bring chunks `first` to `first + count - 1` of a version to offset `target` of the memory.

        `present` bytes are there already. `lacking` are replicas that are asked last, as they are said to lack the
        object, `without` stores that are not asked at all.
        """

    async def upload(
        self,
        key: str,
        path: Path,
        *,
        metadata: Mapping[str, str] | None,
        if_absent: bool,
        expected: Version | None,
        repeated: bool = False,
    ) -> ObjectMetadata:
        """Put a staging file to the primary. `repeated`: an attempt before may have succeeded, which is no failure."""

    async def begin_parts(self, key: str, metadata: Mapping[str, str] | None) -> tuple[int, str]:
        """Begin an upload in parts: its name here, and its token for whoever must abort it later."""

    async def send_part(self, upload: int, key: str, number: int, path: Path, part: ByteRange) -> None:
        """Send bytes of a staging file as part `number`, from 1."""

    async def complete_parts(
        self, upload: int, key: str, *, if_absent: bool, expected: Version | None
    ) -> ObjectMetadata:
        """Make the object appear."""

    async def abort_parts(self, upload: int, key: str, token: str) -> None:
        """Throw the parts away."""

    async def download(self, key: str, version: Version, target: Path) -> FetchSummary:
        """Write a whole version into a file."""

    async def list_directory(
        self, directory: str, on_page: OnPage, *, store: str = "", stand_in: bool = False
    ) -> Sequence[str]:
        """List a directory (`""` or a key that ends in `/`); returns the profiles of stores that are in trouble.

        It is the primary's listing; with `store` what that replica holds, and with `stand_in` what the first healthy
        replica tells of the primary's objects.

        Names that came before may come once more, when whoever lists had to begin again.
        """

    async def step(self, profile: str, key: str, *, delete: bool) -> StepResult:
        """Bring one replica to the primary's present state."""


class RunBlocking(Protocol):
    """Runs a blocking call off the trio thread (a thread in the daemon, inline in tests)."""

    def __call__(self, call: Callable[..., Result], /, *arguments: object) -> Awaitable[Result]:
        """Await the result of `call(*arguments)`."""
