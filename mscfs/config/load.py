"""Reading a configuration: `load_config` from files, `parse_config` from a mapping, `find_profile` to use one.

Something wrong with the file is a ConfigError at once, all of it together, a line each. What keeps only one profile
from being used (a variable that is not set, a store that mscfs does not know, an option that is out of range) is an
error of `find_profile`, so that nobody has to set the variables of profiles that others use.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mscfs.config.document import Document, UnreadableError
from mscfs.config.implicit import implicit_profile
from mscfs.config.problems import Kind, Problem, did_you_mean, printable
from mscfs.config.search import find_file
from mscfs.config.values import Config, ProfileConfig
from mscfs.errors import ConfigError

_MOST_NAMES = 20


@dataclass(frozen=True)
class Report:
    """What `check_config` found. `config` is None when a problem is an error."""

    config: Config | None
    problems: tuple[Problem, ...]

    def of_kind(self, *kinds: Kind) -> tuple[Problem, ...]:
        """The problems of these kinds."""
        return tuple(problem for problem in self.problems if problem.kind in kinds)

    def accept(self) -> Config:
        """The configuration; ConfigError with every error where there is none.

        An unknown key beside an error is told with it: a mistyped key is often why another one is missing.
        """
        if self.config is not None:
            return self.config
        errors = self.of_kind("error")
        blocks = {(error.file, error.location[:-1]) for error in errors}
        beside = {problem for problem in self.of_kind("warning") if (problem.file, problem.location[:-1]) in blocks}
        raise ConfigError("\n".join(str(problem) for problem in self.problems if problem in {*errors, *beside}))


def load_config(path: Path | None = None) -> Config:
    """The configuration in `path`, else in the file that `search` finds. ConfigError says what is wrong with it."""
    return check_config(path).accept()


def parse_config(data: Mapping[str, Any], *, source: str = "<dict>", base: Path | None = None) -> Config:
    """The configuration in a mapping. `source` is its name in messages; relative includes start at `base`.

    ConfigError says what is wrong with it.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{source}: must be a mapping with the key 'profiles' at its top")
    return _assemble(Document(data, source=source, base=base)).accept()


def check_config(path: Path | None = None) -> Report:
    """As `load_config`, but everything that is wrong is reported, not raised. ConfigError only where no file is."""
    try:
        document = Document.read(path or find_file(os.environ))
    except UnreadableError as error:
        return Report(None, (error.problem,))
    return _assemble(document)


def find_profile(config: Config, name: str) -> ProfileConfig:
    """A profile that can be used, and whose replicas can be used.

    ConfigError for an unknown name, and for what is wrong in the profile or its replicas, a line each.
    """
    if name in config.unusable:
        raise ConfigError("\n".join(config.unusable[name]))
    profile = config.profiles.get(name) or implicit_profile(name)
    if profile is None:
        raise ConfigError(_unknown_profile(config, name))
    return profile


def _assemble(document: Document) -> Report:
    from mscfs.config.assemble import assemble  # noqa: PLC0415 - pydantic is loaded only when something is parsed

    try:
        return Report(*assemble(document, os.environ))
    except RecursionError:
        raise ConfigError(f"{document.source}: is nested too deeply, or an alias refers to itself") from None


def _unknown_profile(config: Config, name: str) -> str:
    names = sorted({*config.profiles, *config.unusable})
    where = f" in {config.files[0]}" if config.files else ""
    message = f"no profile is named '{printable(name)}'{where}{did_you_mean(name, names)}"
    listed = ", ".join(map(printable, names[:_MOST_NAMES]))
    rest = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return f"{message} (there are: {listed}{rest})" if names else f"{message} (there are none)"
