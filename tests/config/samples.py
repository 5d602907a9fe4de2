"""Configurations that several tests start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from mscfs.config.load import parse_config
from mscfs.config.values import Config
from mscfs.errors import ConfigError


def profile(kind: str = "s3", **keys: Any) -> dict[str, Any]:
    options: dict[str, dict[str, Any]] = {
        "file": {"base_path": "/data"},
        "azure": {"base_path": "box", "endpoint_url": "https://account.example"},
    }
    return {"storage_provider": {"type": kind, "options": options.get(kind, {"base_path": "bucket"})}, **keys}


def with_options(kind: str, **options: Any) -> dict[str, Any]:
    made = profile(kind)
    made["storage_provider"]["options"].update(options)
    return made


def replica(name: str, priority: int = 1, **keys: Any) -> dict[str, Any]:
    return {"replica_profile": name, "read_priority": priority, **keys}


def parse(profiles: dict[str, Any] | None = None, **sections: Any) -> Config:
    return parse_config({"profiles": {"a": profile()} if profiles is None else profiles, **sections}, source="test")


def refusal(profiles: dict[str, Any] | None = None, **sections: Any) -> str:
    """What a refused configuration is told."""
    try:
        config = parse(profiles, **sections)
    except ConfigError as error:
        return str(error)
    raise AssertionError(f"accepted: {config}")


def write(path: Path, data: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data, sort_keys=False))
    return path
