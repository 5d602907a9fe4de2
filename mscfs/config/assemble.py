"""From files to a `Config`: variables, schema, includes, and the rules between them. Imports pydantic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mscfs.config.check import check
from mscfs.config.document import Document
from mscfs.config.merge import Merger, Part, read_includes
from mscfs.config.problems import Kind, Location, Problem, printable
from mscfs.config.profiles import RawProfile, build_profile, check_replicas
from mscfs.config.schema import File
from mscfs.config.sections import build_cache, build_path_mapping, build_posix, merge_opentelemetry
from mscfs.config.values import Config, ProfileConfig
from mscfs.config.variables import Expansion


def assemble(main: Document, environment: Mapping[str, str]) -> tuple[Config | None, tuple[Problem, ...]]:
    """The configuration in `main` and the files it includes, and all problems; None where one is an error."""
    return _Assembly(environment).run(main)


class _Assembly:
    """One run of `assemble`, and the problems found so far."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._problems: list[Problem] = []
        self._unset: set[tuple[str, Location]] = set()

    def run(self, main: Document) -> tuple[Config | None, tuple[Problem, ...]]:
        first = self._read(main)
        included, problems = read_includes(first)
        self._add(problems)
        merger = Merger([first, *map(self._read, included)])
        profiles = self._build_profiles(merger)
        cache, problems = build_cache(merger.section("cache"))
        self._add(problems)
        posix = build_posix(merger.section("posix"))
        path_mapping, problems = build_path_mapping(merger, profiles)
        self._add(problems)
        opentelemetry = merge_opentelemetry(merger)
        self._add(merger.problems)

        found = tuple(sorted(dict.fromkeys(self._problems), key=lambda problem: (problem.file, problem.line or 0)))
        if any(problem.kind == "error" for problem in found):
            return None, found
        unusable = _unusable(found, profiles)
        config = Config(
            profiles={name: profile for name, profile in profiles.items() if profile and name not in unusable},
            cache=cache,
            posix=posix,
            path_mapping=path_mapping,
            opentelemetry=opentelemetry,
            files=tuple(document.path for document in (main, *included) if document.path),
            warnings=tuple(str(problem) for problem in found if problem.kind == "warning"),
            unusable=unusable,
        )
        return config, found

    def _read(self, document: Document) -> Part:
        """Expand the variables of one file and check all of it but the inside of its profiles."""
        expansion = Expansion(self._environment)
        # An empty section, as `cache:` with nothing below, is none at all.
        data = {name: value for name, value in expansion.expand(document.data).items() if value is not None}
        for location in document.repeated_keys():
            message = "stands here twice: the last one counts; remove the other"
            self._problems.append(document.problem("warning", location, message))
        for location in expansion.odd_keys:
            self._problems.append(document.problem("error", location, "is no string: put this key in quotes"))
        for location, message in expansion.unset.items():
            self._unset.add((document.source, location))
            self._problems.append(document.problem(_kind_of_unset(location), location, message))
        checked, problems = check(File, data, document, ())
        self._add(problems)
        return Part(document, data, checked or {})

    def _build_profiles(self, merger: Merger) -> dict[str, ProfileConfig | None]:
        raws = {
            name: RawProfile(name, part.expanded("profiles", name), part.document)
            for name, part in merger.entries("profiles")
        }
        profiles = {}
        for name, raw in raws.items():
            profiles[name], problems = build_profile(raw)
            self._add(problems)
            self._add(check_replicas(raw, raws))
        return profiles

    def _add(self, problems: Iterable[Problem]) -> None:
        """Note problems, but not those of a value whose variable is not set: there is nothing to judge yet."""
        for problem in problems:
            if problem.kind == "warning" or (problem.file, problem.location) not in self._unset:
                self._problems.append(problem)


def _unusable(problems: Iterable[Problem], profiles: Mapping[str, ProfileConfig | None]) -> dict[str, tuple[str, ...]]:
    """The profiles that cannot be used, for reasons of their own or of a replica, and the reasons."""
    own: dict[str, list[Problem]] = {}
    for problem in problems:
        if problem.kind in {"unusable", "unsupported"}:
            own.setdefault(problem.profile, []).append(problem)
    inherited: dict[str, list[str]] = {}
    for name, profile in profiles.items():
        for replica in profile.replicas if profile else ():
            why = f"profile '{printable(name)}' cannot be used because of its replica '{printable(replica.profile)}'"
            # What a replica itself lists matters only to itself.
            reasons = [reason for reason in own.get(replica.profile, ()) if reason.location[2:3] != ("replicas",)]
            inherited.setdefault(name, []).extend(f"{why}: {reason}" for reason in reasons)
    return {name: lines for name in profiles if (lines := (*map(str, own.get(name, ())), *inherited.get(name, ())))}


def _kind_of_unset(location: Location) -> Kind:
    if location[0] == "profiles":
        return "unusable"
    # A mount does its work without `opentelemetry`.
    return "warning" if location[0] == "opentelemetry" else "error"
