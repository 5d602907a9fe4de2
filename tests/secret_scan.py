"""A pytest plugin: what the tests write, log and raise is searched for the secrets that their stores are opened with.

Every test that opens a store with one of these secrets may meet a message, a log line or a traceback that tells it; no
single test could look everywhere (contract L5). Loaded by `tests/conftest.py`.
"""

from __future__ import annotations

import pytest

from tests.emulators.azure import KEY

SECRETS = ("not-so-secret", KEY, "-----BEGIN PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----")
"""Of the S3, Azure and Google servers of the tests."""

_told: list[tuple[str, str]] = []


def find(text: str) -> str | None:
    """The place where a text tells a secret, cut around it."""
    for secret in SECRETS:
        at = text.find(secret)
        if at >= 0:
            return f"…{text[max(0, at - 80) : at + 8]}…"
    return None


@pytest.hookimpl(trylast=True)
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A failing test shows its own source and values in `longrepr`: only what was captured is the product's.
    for title, content in report.sections:
        place = find(content)
        if place is not None:
            _told.append((f"{report.nodeid} ({title})", place))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _told and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for name, place in _told:
        terminalreporter.write_line(f"A SECRET WAS TOLD by {name}: {place}", red=True)
