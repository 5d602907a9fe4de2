"""A file and the files it includes, as one: profiles merge by name, everything else must agree."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mscfs.config.document import Document, UnreadableError
from mscfs.config.problems import Location, Problem, printable


@dataclass(frozen=True)
class Part:
    """One file: as written, with its variables expanded, and checked."""

    document: Document
    data: dict[str, Any]
    checked: dict[str, Any]
    """Without unknown keys, with values of the right types; empty when something is wrong. Profiles as in `data`."""

    def written(self, *location: str) -> Any:
        """What stands at a key, before expansion: the form in which files are compared."""
        value: Any = self.document.data
        for step in location:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    def expanded(self, *location: str) -> Any:
        """What stands at a key; None where nothing does."""
        value: Any = self.data
        for step in location:
            value = value.get(step) if isinstance(value, dict) else None
        return value


def read_includes(part: Part) -> tuple[list[Document], list[Problem]]:
    """The files that a file includes, in the order listed, and what kept some of them from being read.

    Names are relative to the directory of the including file. An included file cannot include others.
    """
    documents, problems = [], []
    main, names = part.document, part.expanded("include")
    for index, name in enumerate(names if isinstance(names, list) else ()):
        if not isinstance(name, str) or not name:
            continue  # the schema says so
        if main.base is None and not Path(name).is_absolute():
            message = "must be an absolute path: there is no file that it could be relative to"
            problems.append(main.problem("error", ("include", index), message))
            continue
        try:
            document = Document.read((main.base or Path()) / name)
        except UnreadableError as error:
            problems.append(main.problem("error", ("include", index), str(error.problem)))
            continue
        if "include" in document.data:
            message = "must be removed: an included file cannot include others"
            problems.append(document.problem("error", ("include",), message))
        documents.append(document)
    return documents, problems


class Merger:
    """Finds where each key of several files comes from. Conflicts are collected in `problems`."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self.problems: list[Problem] = []

    def entries(self, section: str) -> Iterator[tuple[str, Part]]:
        """The keys of a section of all files (`profiles`, `path_mapping`), each with the file that has it first."""
        origins: dict[str, Part] = {}
        for part in self._parts:
            entries = part.expanded(section)
            for name in entries if isinstance(entries, dict) else ():
                first = origins.setdefault(name, part)
                self._compare(first, part, (section, name))
        yield from origins.items()

    def section(self, *location: str) -> Part | None:
        """The first file that has a section; the others must have the same or none."""
        first = None
        for part in self._parts:
            if part.expanded(*location) is not None:
                first = first or part
                self._compare(first, part, location)
        return first

    def concatenated(self, *location: str) -> list[Any]:
        """The lists at a key of all files, one after the other."""
        lists = (part.expanded(*location) for part in self._parts)
        return [item for items in lists if isinstance(items, list) for item in items]

    def _compare(self, first: Part, second: Part, location: Location) -> None:
        steps = tuple(map(str, location))
        if first.written(*steps) == second.written(*steps):
            return
        line = first.document.line(location)
        place = f"{first.document.source}:{line}" if line else first.document.source
        message = f"'{printable(steps[-1])}' is defined differently in {place}: keep one, or make them equal"
        self.problems.append(second.document.problem("error", location, message))
