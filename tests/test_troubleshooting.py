"""The page on troubleshooting keeps up with the code: every warning and error that can be logged stands there."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = re.sub(r"[*`]|\s+", " ", (ROOT / "docs" / "troubleshooting.md").read_text())
LEVELS = {"warning", "error", "exception", "critical"}


def logged() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "mscfs").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
                continue
            if node.func.attr not in LEVELS or getattr(node.func.value, "id", "") not in {"log", "logger", "_logger"}:
                continue
            template = node.args[0]
            assert isinstance(template, ast.Constant), f"{path}:{node.lineno}: a log line needs a constant template"
            yield f"{path.relative_to(ROOT)}:{node.lineno}", str(template.value)


def test_every_warning_and_error_of_the_log_is_explained():
    lines = list(logged())
    assert len(lines) > 20
    missing = []
    for place, template in lines:
        pieces = [" ".join(piece.split()) for piece in re.split(r"%[-.0-9]*[a-zA-Z]|[`:;()]", template)]
        longest = max(pieces, key=len)
        if longest not in " ".join(PAGE.split()):
            missing.append(f"{place}: {longest!r}")
    assert missing == []
