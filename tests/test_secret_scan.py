"""The search for secrets finds them, and a run in which one was told fails."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests import secret_scan


@pytest.mark.parametrize("secret", secret_scan.SECRETS)
def test_L5_a_secret_in_what_a_test_wrote_or_logged_fails_the_run(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    monkeypatch.setattr(secret_scan, "_told", told)
    session = SimpleNamespace(exitstatus=pytest.ExitCode.OK)
    for line in ("secret_key=*****", f"refused: key={secret!r}, retrying"):
        secret_scan.pytest_sessionfinish(session)  # type: ignore[arg-type]
        assert session.exitstatus == pytest.ExitCode.OK
        report = SimpleNamespace(nodeid="test", sections=[("Captured log call", line)])
        secret_scan.pytest_runtest_logreport(report)  # type: ignore[arg-type]
    assert [name for name, _ in told] == ["test (Captured log call)"]
    assert secret not in told[0][1]
    secret_scan.pytest_sessionfinish(session)  # type: ignore[arg-type]
    assert session.exitstatus == pytest.ExitCode.TESTS_FAILED
