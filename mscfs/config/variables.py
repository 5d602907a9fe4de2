"""`$VAR` and `${VAR}` in a file's strings, and the file's data as plain lists and dictionaries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mscfs.config.problems import Location, printable
from mscfs.config.secrets import mask, secret_depth

_REFERENCE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.ASCII)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HARMLESS_CREDENTIALS_OPTIONS = frozenset({"type", "audience", "file", "credential_file_path"})
_PLAIN_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}|\$[A-Z_][A-Z0-9_]*", re.ASCII)


@dataclass
class Expansion:
    """Expands a tree of values; what went wrong is collected by location, and the text there stays as it was."""

    environment: Mapping[str, str]
    unset: dict[Location, str] = field(default_factory=dict)
    """Messages for strings that name a variable that is not set."""
    odd_keys: list[Location] = field(default_factory=list)
    """Mappings' keys that are no strings (`on:` and `12:` in YAML); they are left out."""

    def expand(self, value: Any, location: Location = ()) -> Any:
        """The value with every variable replaced, once: a `$` in a variable's own value is just a `$`."""
        if isinstance(value, Mapping):
            plain = {}
            for key, item in value.items():
                if isinstance(key, str):
                    plain[key] = self.expand(item, (*location, key))
                else:
                    self.odd_keys.append((*location, str(key)))
            return plain
        if isinstance(value, list | tuple):
            return [self.expand(item, (*location, index)) for index, item in enumerate(value)]
        if isinstance(value, str) and not _is_comment(location):
            return self._expand_text(value, location)
        return value

    def _expand_text(self, text: str, location: Location) -> str:
        missing = [name for name in _names(text) if name not in self.environment or not _NAME.fullmatch(name)]
        if missing:
            self.unset[location] = _explain(missing, text, location)
            return text
        return _REFERENCE.sub(lambda match: self.environment[match[1] or match[2]], text)


def _names(text: str) -> list[str]:
    return [braced or bare for braced, bare in _REFERENCE.findall(text)]


def _explain(missing: list[str], text: str, location: Location) -> str:
    if _may_be_secret(text, location) and not _PLAIN_REFERENCE.fullmatch(text):
        # Here "$word" may be part of the secret itself: the name must not be told.
        return "names a variable that is not set; a secret that holds a '$' must come from a variable of its own"
    odd = [name for name in missing if not _NAME.fullmatch(name)]
    if odd:
        return f"'${{{printable(odd[0])}}}' is no variable: only $NAME and ${{NAME}} are known, without defaults"
    names = ", ".join(dict.fromkeys(missing))
    return f"the environment variable{'s' if len(set(missing)) > 1 else ''} {names} must be set"


def _may_be_secret(text: str, location: Location) -> bool:
    # The options of a credentials provider of one's own may have any name.
    unknown = "credentials_provider" in location and location[-1] not in _HARMLESS_CREDENTIALS_OPTIONS
    return unknown or mask(text) != text or secret_depth(location) is not None


def _is_comment(location: Location) -> bool:
    # Nobody reads a profile's comment: a "$" in it means nothing.
    return len(location) == 3 and location[0] == "profiles" and location[2] == "comment"
