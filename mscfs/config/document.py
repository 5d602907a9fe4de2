"""One configuration file: its data, and the line of every key in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from mscfs.config.problems import Kind, Location, Problem

MOST_VALUES = 200_000
"""Of one file: those of thousands of profiles."""

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class UnreadableError(Exception):
    """A file cannot be read at all; `problem` says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class Document:
    """The contents of one file, or of a mapping that never was a file (`text` empty, no lines then)."""

    def __init__(
        self, data: Mapping[str, Any], *, source: str, base: Path | None, path: Path | None = None, text: str = ""
    ) -> None:
        self.data = data
        self.source = source
        """What messages call it: the path as given."""
        self.base = base
        """Where relative includes start."""
        self.path = path
        self._text = text

    @classmethod
    def read(cls, path: Path) -> Document:
        """Read a file: JSON where the name ends in `.json`, else YAML. Raises UnreadableError."""
        source = str(path)
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise _unreadable(source, f"cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise _unreadable(source, "is not UTF-8 text") from None
        try:
            data = _parse_json(text, source) if path.suffix == ".json" else _parse_yaml(text, source)
            count = _count(data, {})
        except RecursionError:
            raise _unreadable(source, "is nested too deeply") from None
        if data is None:
            data = {}
        if count > MOST_VALUES:
            raise _unreadable(source, f"holds more than {MOST_VALUES} values, or aliases that multiply them")
        if not isinstance(data, dict):
            raise _unreadable(source, "must be a mapping with the key 'profiles' at its top")
        return cls(data, source=source, base=path.absolute().parent, path=path, text=text)

    def problem(self, kind: Kind, location: Location, message: str) -> Problem:
        """A problem at a key of this document."""
        return Problem(kind, message, self.source, self.line(location), location)

    def line(self, location: Location) -> int | None:
        """The line, from 1, of a key or of the nearest one above it; None where nothing is known."""
        node, line = self._root, None
        for step in location:
            found = _child(node, step)
            if found is None:
                break
            line, node = found
        return line

    def repeated_keys(self) -> Iterator[Location]:
        """Keys that stand twice in one mapping: the parsers silently keep the last."""
        yield from _repeated(self._root, (), set())

    @cached_property
    def _root(self) -> Any:
        # Composed again rather than kept from parsing: lines are wanted only when there is something to tell, and
        # JSON is (all but) YAML. Without the loader's flattening, merged keys are not mistaken for repeated ones.
        try:
            return yaml.compose(self._text, Loader=_LOADER)
        except yaml.YAMLError:
            return None


def _count(value: Any, known: dict[int, int]) -> int:
    """How many values there are, those behind an alias each time anew: so many will be looked at."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        known[id(value)] = 1  # inside itself it has no end, which others tell
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_count(item, known) for item in inside)
    return known[id(value)]


def _child(node: Any, step: str | int) -> tuple[int, Any] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        item = node.value[step]
        return item.start_mark.line + 1, item
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == step:
                return key.start_mark.line + 1, value
    return None


def _repeated(node: Any, location: Location, seen: set[int]) -> Iterator[Location]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*location, index), seen)
    elif isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
                continue
            if key.value in names:
                yield (*location, key.value)
            names.add(key.value)
            yield from _repeated(value, (*location, key.value), seen)


def _parse_json(text: str, source: str) -> Any:
    try:
        data = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise _unreadable(source, f"is not valid JSON: {error.msg} (column {error.colno})", error.lineno) from None
    except ValueError:
        raise _unreadable(source, "is not valid JSON: a number is out of range; put it in quotes") from None
    if _holds_no_text(data):
        raise _unreadable(source, "is not valid: it holds characters that are not allowed (NUL, half a surrogate pair)")
    return data


def _holds_no_text(value: Any) -> bool:
    """Whether there is a string that can neither be a path nor be written down, as only JSON can express it."""
    if isinstance(value, str):
        return "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(_holds_no_text(item) for pair in value.items() for item in pair)
    return isinstance(value, list) and any(map(_holds_no_text, value))


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe loader, the C one where there is one
    except yaml.MarkedYAMLError as error:
        if "nesting depth" in (error.problem or ""):  # the parser's own bound, which newer versions have
            raise RecursionError from None
        mark = error.problem_mark or error.context_mark
        # The parser quotes the text it stumbled over, which may be part of a secret.
        what = re.sub(r"""['"].*['"]|!\S+""", "…", error.problem or "unreadable", flags=re.DOTALL)
        last = max(1, len(text.splitlines()))
        if mark is None or mark.line >= last:  # what is missing at the end is missed behind the last line
            raise _unreadable(source, f"is not valid YAML: {what}", last) from None
        raise _unreadable(source, f"is not valid YAML: {what} (column {mark.column + 1})", mark.line + 1) from None
    except yaml.YAMLError:
        raise _unreadable(source, "is not valid YAML: it holds characters that are not allowed") from None
    except ValueError:
        # A date or number that looks right and is not, as 2024-13-45.
        raise _unreadable(source, "is not valid YAML: a date or number is out of range; put it in quotes") from None


def _unreadable(source: str, message: str, line: int | None = None) -> UnreadableError:
    return UnreadableError(Problem("error", message, source, line))
