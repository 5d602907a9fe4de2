"""Which configuration and which profile a client uses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from mscfs.config.implicit import FILESYSTEM_PROFILE
from mscfs.config.load import find_profile, load_config, parse_config
from mscfs.config.values import Config
from mscfs.errors import ConfigError


@dataclass(frozen=True)
class StorageClientConfig:
    """A configuration and the profile to use of it. Picklable; `repr` shows no secrets.

    Every way to make one raises ConfigError for a configuration that cannot be read and for a profile that is unknown
    or cannot be used. The profile `__filesystem__` is the local file system and needs no configuration.
    """

    config: Config
    profile: str

    def __post_init__(self) -> None:
        find_profile(self.config, self.profile)

    @classmethod
    def from_file(
        cls, config_file_paths: Iterable[str | PathLike[str]] | None = None, profile: str = FILESYSTEM_PROFILE
    ) -> StorageClientConfig:
        """Read the first of `config_file_paths` that exists; without them, the file that `mscfs` itself would use."""
        if config_file_paths is None:
            return cls(load_config(), profile)
        paths = [Path(path) for path in config_file_paths]
        for path in paths:
            if path.exists():
                return cls(load_config(path), profile)
        raise ConfigError(f"no configuration file found: none of {', '.join(map(str, paths)) or '(no paths)'} exists")

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], profile: str = FILESYSTEM_PROFILE) -> StorageClientConfig:
        """Use a configuration given as a mapping."""
        return cls(parse_config(config_dict), profile)

    @classmethod
    def from_yaml(cls, config_yaml: str, profile: str = FILESYSTEM_PROFILE) -> StorageClientConfig:
        """Use a configuration given as YAML text (JSON is YAML)."""
        import yaml  # noqa: PLC0415 - only this way of making one needs it

        try:
            data = yaml.safe_load(config_yaml)
        except yaml.YAMLError as error:
            # The parser quotes what it read, which may be part of a secret: its words are not repeated.
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1})" if mark else ""
            raise ConfigError(f"<yaml>: is not valid YAML{where}") from None
        return cls(parse_config(data or {}, source="<yaml>"), profile)

    def of_profile(self, profile: str) -> StorageClientConfig:
        """The same configuration, another profile."""
        return replace(self, profile=profile)

    def __repr__(self) -> str:
        files = ", ".join(map(str, self.config.files)) or "no file"
        return f"StorageClientConfig(profile={self.profile!r}, from {files})"
