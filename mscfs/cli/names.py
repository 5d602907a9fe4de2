"""Names on the command line: `PROFILE:KEY`, `msc://PROFILE/KEY`, or a local path; and the clients that serve them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from mscfs.errors import StorageError, UsageError

if TYPE_CHECKING:
    from mscfs.client.client import StorageClient
    from mscfs.config.values import Config

NAME_HELP = "PROFILE:KEY or msc://PROFILE/KEY."
EXIT_BROKEN_PIPE = 141
"""What a shell shows for a program that SIGPIPE ended."""


@dataclass(frozen=True)
class RemoteName:
    """An object or directory of a profile; an empty key is the whole profile."""

    profile: str
    key: str

    def __str__(self) -> str:
        return f"{self.profile}:{self.key}"

    def below(self, name: str) -> RemoteName:
        """A name in this directory."""
        return RemoteName(self.profile, "/".join(part for part in (self.key.rstrip("/"), name) if part))


def parse_remote(text: str) -> RemoteName:
    """A name that can only be remote: a bare word is a profile."""
    name = parse(text)
    if isinstance(name, RemoteName):
        return name
    if "/" not in text:
        return RemoteName(text, "")
    raise UsageError(f"{text}: names no object: write PROFILE:KEY or msc://PROFILE/KEY")


def parse(text: str) -> RemoteName | Path:
    """A remote name, or a local path: what has no `:`, or a `/` before it (`./a:b`)."""
    from mscfs.client.paths import locate_url, to_key  # noqa: PLC0415 - commands that need no client start quicker

    if text.startswith("msc:/"):
        return RemoteName(*locate_url(text, {}))
    profile, colon, key = text.partition(":")
    if not colon or "/" in profile:
        return Path(text)
    if not profile:
        raise UsageError(f"{text}: no profile stands before the colon; a local path is written ./{text}")
    return RemoteName(profile, to_key(key))


class Clients:
    """One client for each profile that a command uses, from one configuration. Close it at the end."""

    def __init__(self, config_file: Path | None) -> None:
        self._config_file = config_file
        self._config: Config | None = None
        self._clients: dict[str, StorageClient] = {}

    def of(self, profile: str) -> StorageClient:
        """The client of a profile. Raises ConfigError."""
        from mscfs.client.client import StorageClient  # noqa: PLC0415 - see parse
        from mscfs.client.config import StorageClientConfig  # noqa: PLC0415
        from mscfs.config.load import load_config  # noqa: PLC0415

        if profile not in self._clients:
            self._config = self._config or load_config(self._config_file)
            self._clients[profile] = StorageClient(StorageClientConfig(self._config, profile))
        return self._clients[profile]

    def __enter__(self) -> Self:
        return self

    def __exit__(  # an error of an object store leaves with what to do about it
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            client.close()
        if isinstance(error, StorageError) and self._is_of_object_store(error):
            raise type(error)(f"{error.message}: {error.advice}", store=error.store, key=error.key) from error

    def _is_of_object_store(self, error: StorageError) -> bool:
        """Whether there is advice about this error."""
        profile = self._config.profiles.get(error.store) if self._config and error.advice else None
        return profile is not None and profile.storage_provider.type != "file"


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """Standard output may be closed by whoever reads it (`| head`): then there is nothing more to do."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_BROKEN_PIPE) from None
