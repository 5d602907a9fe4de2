"""Where answers go."""

from __future__ import annotations

from rich.console import Console

_WIDER_THAN_ANY_LINE = 100_000


def console(*, stderr: bool = False) -> Console:
    """No line is cut or broken: a terminal breaks what is too wide, and keys can be copied and piped whole."""
    return Console(highlight=False, soft_wrap=True, stderr=stderr, width=_WIDER_THAN_ANY_LINE)
