"""`mscfs cp`: objects and files, in every direction."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from mscfs.cli.mount import ConfigFile
from mscfs.cli.names import Clients, RemoteName, parse
from mscfs.cli.program import EXIT_INTERRUPTED, examples, note
from mscfs.errors import MscfsError, NotFoundError, UsageError

LONGEST_NAME = 255
_LOOK = 0.2
"""Seconds that one wait lasts: an interrupt that comes just before a wait is noticed when that is over."""
MOST_SHOWN = 3

Place = RemoteName | Path


@dataclass(frozen=True)
class Job:
    """One object or file to copy. `size` in bytes."""

    source: Place
    target: Place
    size: int


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog=examples(
            "mscfs cp model.pt data:models/model.pt",
            "mscfs cp data:a.tar data:b.tar /scratch/",
            "mscfs cp -r data:train /scratch/train",
            "mscfs cp -r data:train archive:2024/train",
        )
    )(cp)


def cp(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="PLACE", help="Sources, then the target: PROFILE:KEY, msc://PROFILE/KEY or local paths."
        ),
    ],
    *,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Directories: what is below SOURCE comes to lie below TARGET.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Copies at the same time.")] = 8,
    config_file: ConfigFile = None,
) -> None:
    """Copy: upload, download, inside a profile and between profiles.

    A target appears whole or not at all. What fails does not stop the rest; the exit code tells. Ctrl-C lets what has
    begun finish; a second one does not.
    """
    if len(names) < 2:
        raise UsageError("cp needs at least one source and a target")
    *sources, target = map(parse, names)
    with Clients(config_file) as clients:
        for place in (*sources, target):
            if isinstance(place, RemoteName):
                clients.of(place.profile)  # made here, because the copies share them
        if recursive:
            work = (job for source in sources for job in _tree(clients, source, target))
        else:
            into = len(sources) > 1 or _is_directory(clients, target, names[-1])
            work = (
                _single(clients, source, _below(target, _last_part(source)) if into else target) for source in sources
            )
        _run(clients, work, jobs)


def _run(clients: Clients, work: Iterator[Job], jobs: int) -> None:
    failures: list[str] = []
    done = 0
    begun: set[Future[None]] = set()
    lock = threading.Lock()
    # As many as the workers can take soon: a listing of millions is not drawn into memory.
    places = threading.BoundedSemaphore(jobs * 4)
    with _progress() as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task("", total=0)

        def finished(job: Job, future: Future[None]) -> None:
            nonlocal done
            begun.discard(future)
            places.release()
            if future.cancelled():
                return
            with lock:
                error = future.exception()
                done += 1
                if error is not None:
                    failures.append(f"{job.source}: {getattr(error, 'message', None) or error}")

        total = 0
        try:
            for job in work:
                total += job.size
                progress.update(task, total=total)
                while not places.acquire(timeout=_LOOK):
                    pass
                copy = partial(_copy, clients, job, lambda size: progress.advance(task, size))
                future = pool.submit(copy)
                begun.add(future)
                future.add_done_callback(partial(finished, job))
            # Not by joining threads: CPython takes one for ended when that is interrupted.
            _finish(begun)
        except BaseException as error:
            # Interrupted, or nothing more can be found: what has begun is finished, what waits is not.
            is_interrupted = isinstance(error, KeyboardInterrupt)
            if is_interrupted:
                signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_INTERRUPTED))
            pool.shutdown(wait=False, cancel_futures=True)
            progress.stop()
            if is_interrupted:
                note("interrupted: what has begun is finished; interrupt again to end at once")
                _finish(begun)
            raise
    if failures:
        for failure in failures[:MOST_SHOWN]:
            note(failure)
        raise MscfsError(f"{len(failures)} of {done} could not be copied")


def _finish(begun: set[Future[None]]) -> None:
    """Wait for all of them; they leave the set when they have ended."""
    while wait(tuple(begun), timeout=_LOOK).not_done:
        pass


def _copy(clients: Clients, job: Job, on_bytes: Callable[[int], object]) -> None:
    from mscfs.client import transfer  # noqa: PLC0415 - imports what only clients need

    source, target = job.source, job.target
    if isinstance(source, RemoteName) and isinstance(target, Path):
        transfer.download(clients.of(source.profile).store, source.key, target, on_bytes=on_bytes)
        return
    if isinstance(source, Path) and isinstance(target, RemoteName):
        transfer.upload(clients.of(target.profile).store, target.key, source)
    elif isinstance(source, RemoteName) and isinstance(target, RemoteName):
        if source.profile == target.profile:
            clients.of(source.profile).copy(source.key, target.key)
        else:
            stores = clients.of(source.profile).store, clients.of(target.profile).store
            transfer.copy_between(stores[0], source.key, stores[1], target.key)
    else:
        raise UsageError(f"{source} and {target} are both local: use cp(1)")
    on_bytes(job.size)


def _single(clients: Clients, source: Place, target: Place) -> Job:
    if isinstance(source, Path):
        if source.is_dir():
            raise UsageError(f"{source} is a directory: give -r to copy what is below it")
        return Job(source, target, source.stat().st_size)
    found = clients.of(source.profile).info(source.key)
    if found.is_directory:
        raise UsageError(f"{source} is a directory: give -r to copy what is below it")
    return Job(source, target, found.content_length)


def _tree(clients: Clients, source: Place, target: Place) -> Iterator[Job]:
    if isinstance(source, Path):
        if not source.is_dir():
            yield _single(clients, source, _below(target, source.name))
            return
        for directory, subdirectories, files in os.walk(source):
            subdirectories.sort()
            for name in sorted(files):
                path = Path(directory, name)
                if not path.is_file():
                    note(f"{path} is left out: it is no regular file")
                    continue
                yield Job(path, _below(target, str(path.relative_to(source))), path.stat().st_size)
        return
    found = clients.of(source.profile).info(source.key)
    if not found.is_directory:
        yield _single(clients, source, _below(target, _last_part(source)))
        return
    empty = True
    for entry in clients.of(source.profile).list(found.key):
        empty = False
        name = entry.key.removeprefix(found.key)
        if isinstance(target, Path) and not _is_path(name):
            note(f"{source.profile}:{entry.key} is left out: its name cannot be a path")
            continue
        yield Job(RemoteName(source.profile, entry.key), _below(target, name), entry.content_length)
    if empty:
        raise NotFoundError("nothing is below it", store=source.profile, key=source.key)


def _is_directory(clients: Clients, target: Place, text: str) -> bool:
    """Whether a target means "into this directory"."""
    if text.endswith("/"):
        return True
    if isinstance(target, Path):
        return target.is_dir()
    return not target.key or clients.of(target.profile).store.has_directory(f"{target.key}/")


def _below(target: Place, name: str) -> Place:
    return target / name if isinstance(target, Path) else target.below(name)


def _last_part(source: Place) -> str:
    return source.name if isinstance(source, Path) else source.key.rstrip("/").rpartition("/")[2]


def _is_path(name: str) -> bool:
    """Whether a key may become a local path: nothing in a store leads out of the target directory."""
    parts = name.split("/")
    return "\0" not in name and all(
        part not in {"", ".", ".."} and len(part.encode("utf-8", "surrogateescape")) <= LONGEST_NAME for part in parts
    )


def _progress() -> Progress:
    return Progress(
        TextColumn("copying"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
