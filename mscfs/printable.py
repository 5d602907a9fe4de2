"""Text of others on a terminal or in a log: a key, a name or a store's message may hold anything (contract L5)."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line, without what a terminal would take for an order."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
