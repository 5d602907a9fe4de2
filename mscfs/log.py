"""Where the lines of a mount's processes go: the journal under systemd, else standard error (a file, for a daemon)."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from mscfs.printable import printable

_PRIORITIES = {logging.CRITICAL: 2, logging.ERROR: 3, logging.WARNING: 4, logging.INFO: 6, logging.DEBUG: 7}


def configure_logging(level: int = logging.INFO, *, process: str = "") -> None:
    """Send mscfs's log, from `level` on, to standard error; `process` is named in each line.

    Other libraries' logs appear from warnings on: their details quote requests with credentials (contract L5).
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter(process) if _is_journal() else _LineFormatter(process))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("mscfs").setLevel(level)
    logging.captureWarnings(capture=True)


def configure_terminal() -> None:
    """Send the warnings of a command to standard error, as it writes its other lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("mscfs: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


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
