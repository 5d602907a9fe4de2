"""What stands in a log: one line for each message, and nothing that a terminal would obey."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from mscfs import log

HOSTILE = "a\x1b[2J\nINFO mscfs: all is well\r\x9b31m\x07b"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("mscfs").level
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr(log, "_is_journal", lambda: request.param)
    log.configure_logging()
    yield file
    root.handlers[:], level, ours = before
    root.setLevel(level)
    logging.getLogger("mscfs").setLevel(ours)
    logging.captureWarnings(capture=False)


def breaks(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable()}


@pytest.mark.parametrize("written", [False, True], ids=["file", "journal"], indirect=True)
def test_L5_a_key_gives_a_terminal_no_orders_and_makes_no_lines(written: io.StringIO) -> None:
    logger = logging.getLogger("mscfs.test")
    logger.warning("%s is stale", HOSTILE)
    logger.warning("a literal \x1b[2J")
    assert len(written.getvalue().splitlines()) == 2
    assert "a\\x1b[2J\\nINFO" in written.getvalue()
    try:
        int(HOSTILE)
    except ValueError:
        logger.exception("a bug with %s", HOSTILE)
    assert breaks(written.getvalue()) == {"\n"}
    assert "Traceback (most recent call last):\n" in written.getvalue()
    assert "int(HOSTILE)" in written.getvalue()
