"""Where the lines of a mount's processes go: the journal under systemd, else standard error (a file, for a daemon)."""

from __future__ import annotations

import fcntl
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from mscfs.printable import printable

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}
_SDKS = ("azure", "google", "botocore", "urllib3")
"""The loggers of the libraries that speak to stores."""
_LARGEST = 16 << 20
"""Bytes of a log file, beyond which the next line begins a new one."""


def configure_logging(level: int = logging.INFO, *, process: str = "", file: Path | None = None) -> None:
    """Send mscfs's log, from `level` on, to standard error; `process` is named in each line.

    `file` is what standard error of this and of other processes was opened on, to append, if they are to begin a new
    one when it has grown large; None: it is somebody else's.

    Other libraries' logs appear from warnings on: their details quote requests with credentials (contract L5). Those of
    the stores' SDKs appear from errors on: what their warnings tell is in our own words too, and some quote URLs.
    """
    handler = _FileHandler(file) if file is not None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter(process) if _is_journal() else _LineFormatter(process))
    _begin(handler)
    logging.getLogger("mscfs").setLevel(level)
    logging.captureWarnings(capture=True)


def logged_to() -> Path | None:
    """The `file` that this process's log was configured with."""
    files = [handler.file for handler in logging.getLogger().handlers if isinstance(handler, _FileHandler)]
    return files[0] if files else None


def configure_terminal() -> None:
    """Send the warnings of a command to standard error, as it writes its other lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("mscfs: %(message)s"))
    _begin(handler)


def _begin(handler: logging.Handler) -> None:
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for name in _SDKS:
        logging.getLogger(name).setLevel(logging.ERROR)


class _FileHandler(logging.StreamHandler[Any]):
    """Several processes append to a file; whichever finds it too large puts it aside, the others follow.

    What stands behind their descriptors is exchanged, so that nothing they write is lost, a traceback of the
    interpreter's included. Two files are all that is kept: the predecessor of the one put aside is emptied, for a
    process that has nothing to say still has it open. No process waits for another.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(sys.stderr)
        self.file = file
        self._follow()

    def emit(self, record: logging.LogRecord) -> None:
        self._follow()
        super().emit(record)

    def _follow(self) -> None:
        ours = os.fstat(2)
        if ours.st_size <= _LARGEST and ours.st_nlink:
            return
        with suppress(OSError):  # the disk is full, or another process is at it: this line goes where the last one went
            fcntl.lockf(2, fcntl.LOCK_EX | fcntl.LOCK_NB)  # belongs to the process, not to what it was forked with
            with suppress(FileNotFoundError):
                if os.path.samestat(ours, self.file.stat()):
                    _put_aside(self.file)
            opened = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for descriptor in (1, 2):
                if os.path.samestat(ours, os.fstat(descriptor)):
                    os.dup2(opened, descriptor)  # which closes the old file, and so gives the lock back
            os.close(opened)


def _put_aside(file: Path) -> None:
    predecessor = file.with_name(f"{file.name}.1")
    with suppress(FileNotFoundError):
        os.truncate(predecessor, 0)
    file.replace(predecessor)


class _Formatter(logging.Formatter):
    """A message is one line, and neither it nor a traceback holds what a terminal would take for an order."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the base class's name
        return "\n".join(map(printable, super().formatException(ei).split("\n")))


class _LineFormatter(_Formatter):
    """`2026-01-31 12:00:00,000 INFO mscfs.fuse: …`; of a worker `… INFO mscfs-fetch[4711] mscfs.providers.retry: …`."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {_before(process)}%(name)s: %(message)s")


class _JournalFormatter(_Formatter):
    """The journal adds the time itself and takes the priority from `<N>` at the start of each line (sd-daemon(3))."""

    def __init__(self, process: str) -> None:
        super().__init__(f"{_before(process)}%(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def _before(process: str) -> str:
    return f"{process} " if process else ""


def _is_journal() -> bool:
    """Whether standard error is a stream to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    status = os.fstat(2)
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
