"""What `opentelemetry.metrics.attributes` of the configuration adds to every number."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from mscfs.errors import ConfigError

Value = str | bool | int | float

_OF_HOST: dict[str, Callable[[], Value]] = {"name": socket.gethostname}
_OF_PROCESS: dict[str, Callable[[], Value]] = {"pid": os.getpid}


def collect(providers: Sequence[Mapping[str, Any]], describe: Callable[[], Mapping[str, Any]]) -> dict[str, Value]:
    """The attributes of all providers; of two of the same name the later counts. Raises ConfigError.

    `describe` gives the configuration for `msc_config`, without secrets (contract L5).
    """
    collected: dict[str, Value] = {}
    for index, provider in enumerate(providers):
        try:
            found = _attributes(provider["type"], provider.get("options") or {}, describe)
        except (ConfigError, ImportError, TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"opentelemetry.metrics.attributes[{index}]: {error}") from error
        collected |= {name: _plain(value) for name, value in found.items() if value is not None}
    return collected


def import_class(path: str) -> Any:
    """The class of a dotted name. Raises ImportError or AttributeError."""
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _attributes(kind: str, options: Mapping[str, Any], describe: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    if "." in kind:
        return import_class(kind)(**options).attributes() or {}
    wanted = options.get("attributes", {})
    if not isinstance(wanted, Mapping):
        raise ConfigError("options.attributes must be a mapping")
    match kind:
        case "static":
            return wanted
        case "environment_variables":
            return {name: os.environ.get(str(variable)) for name, variable in wanted.items()}
        case "host":
            return {name: _one_of(_OF_HOST, what) for name, what in wanted.items()}
        case "process":
            return {name: _one_of(_OF_PROCESS, what) for name, what in wanted.items()}
        case "thread":
            return {}  # what a mount counts is of no one thread
        case "msc_config":
            described = describe()
            return {name: _search(what, described) for name, what in wanted.items()}
    raise ConfigError(f"no type '{kind}' is known")


def _one_of(known: Mapping[str, Callable[[], Value]], what: object) -> Value:
    if what not in known:
        raise ConfigError(f"must be one of {', '.join(known)}")
    return known[str(what)]()


def _search(what: object, described: Mapping[str, Any]) -> Any:
    """The value of a JMESPath `expression`, which may also use `hash(algorithm, text)`."""
    import jmespath  # noqa: PLC0415 - for those who use it
    from jmespath import functions  # noqa: PLC0415

    class Functions(functions.Functions):  # type: ignore[misc]
        @functions.signature({"types": ["string"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_hash(self, algorithm: str, text: str) -> str:
            return hashlib.new(algorithm, text.encode()).hexdigest()

    if not isinstance(what, Mapping) or not isinstance(what.get("expression"), str):
        raise ConfigError("an attribute of msc_config needs an expression")
    return jmespath.search(what["expression"], described, jmespath.Options(custom_functions=Functions()))


def _plain(value: Any) -> Value:
    return value if isinstance(value, str | bool | int | float) else str(value)
