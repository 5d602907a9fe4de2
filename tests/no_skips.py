"""A pytest plugin for continuous integration: a skipped test is a failure, unless its reason is allowed here.

On a Linux machine with /dev/fuse every test has to run; a test that quietly stopped running proves nothing. Loaded
by `.ci/run` with `-p no_skips`. A person without, say, Node.js runs plain `pytest` and sees ordinary skips.
"""

from __future__ import annotations

import pytest

ALLOWED = frozenset(
    {
        # Tests of the provider contract about something that one kind of store cannot do by nature.
        "a directory keeps no content types",
        "a name is a file or a directory here",
        "directories are markers here",
        "directories are no markers here",
        "the store has no atomic creation",
        "the store has no conditional put",
        "the store has no symbolic links",
        "which of two threads' calls fails is not decided here",
    }
)

# A test of the provider contract about something that one server of the tests cannot do; the reason names it.
ALLOWED_PREFIX = "capability: "

_refused: list[tuple[str, str]] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        _judge(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.skipped:
        _judge(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _refused and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, reason in _refused:
        terminalreporter.write_line(f"SKIPPED BUT HAD TO RUN: {name}: {reason}", red=True)


def _judge(report: pytest.TestReport | pytest.CollectReport) -> None:
    # For a skip, longrepr is (file, line, "Skipped: reason").
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if reason not in ALLOWED and not reason.startswith(ALLOWED_PREFIX):
        _refused.append((report.nodeid, reason))
