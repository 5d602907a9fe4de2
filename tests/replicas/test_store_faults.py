"""Fail-over inside a read, against servers that speak the stores' protocols (R1, R5).

The primary and two replicas are of one kind, each behind a fault proxy, and all three hold the object. Whatever goes
wrong at whatever byte, at the first source, the first two or all three: the reader gets the object's bytes or an error.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mscfs.config.load import parse_config
from mscfs.errors import StorageError
from mscfs.journal import Journal
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source
from mscfs.replicas.step import bring_up_to_date
from mscfs.types import ByteRange
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import Fault, corrupt, in_object, reset, stall, status, truncate, wrong_length

pytestmark = pytest.mark.emulator

BODY = random.Random(5).randbytes(700_000)
"""More than two pieces of the native client."""
ORDER = ("one", "two", "primary")
STORE_TIMEOUT = 0.5

AT_A_BYTE: list[Callable[[int], Fault]] = [reset, reset, truncate, truncate, stall]
ALWAYS = {
    "404": status(404),
    "403": status(403, b"<Error><Code>AccessDenied</Code></Error>"),
    "429": status(429),
    "500": status(500, b"<Error><Code>InternalError</Code></Error>"),
    "503": status(503, b"<Error><Code>SlowDown</Code></Error>"),
    "reset": reset(),
    "stall": stall(),
    "too long": wrong_length(7),
    "too short": wrong_length(-7),
    "no number": wrong_length("many"),
}


@dataclass
class World:
    """The three stores, opened once; every read has a manager of its own, which knows of no earlier trouble."""

    directory: Path
    proxies: dict[str, FaultProxy]
    providers: dict[str, StorageProvider]
    behind: dict[str, StorageProvider]
    """The same without proxies and short time-outs."""
    journal: Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = Journal(self.directory / "journal.db")
        self.version = self.behind["primary"].put("k", BODY).version
        for name in ("one", "two"):
            bring_up_to_date(self.manager(self.behind), name, "k")

    def manager(self, providers: dict[str, StorageProvider]) -> ReplicaManager:
        replicas = [Replica(name, providers[name], index=index) for index, name in enumerate(ORDER[:2])]
        return ReplicaManager(Source("primary", providers["primary"]), replicas, self.journal)

    def read(self, byte_range: ByteRange | None = None) -> bytes:
        with self.manager(self.providers).get("k", byte_range, expected=self.version) as reader:
            return reader.read_all()


@pytest.fixture(scope="module", params=["s3", "gcs", "azure"])
def server(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue({"s3": "ministack", "gcs": "gcs_server", "azure": "azure_server"}[request.param])


@pytest.fixture(scope="module", params=[True, False], ids=["native", "sdk"])
def world(server: Any, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    buckets, profiles, proxies = {}, {}, {}
    for name in ORDER:
        buckets[name] = server.new_bucket()
        buckets[name]["storage_provider"]["options"]["rust_client"] = request.param
        proxies[name] = FaultProxy(server.url)
        profiles[name] = {**through(buckets[name], proxies[name]), "mscfs": {"store_timeout": STORE_TIMEOUT}}
    made = World(tmp_path_factory.mktemp("journal"), proxies, _opened(profiles), _opened(buckets))
    try:
        yield made
    finally:
        made.manager(made.providers).close()
        for proxy in proxies.values():
            proxy.close()


def _opened(profiles: dict[str, Any]) -> dict[str, StorageProvider]:
    config = parse_config({"profiles": profiles})
    return {name: open_provider(config, name, retry_reads=False) for name in ORDER}


def fails_over(world: World, fault: Fault, victims: int, byte_range: ByteRange | None) -> None:
    """Read with a fault at the first so many sources."""
    expected = BODY if byte_range is None else BODY[byte_range.offset : byte_range.end]
    with ExitStack() as stack:
        for name in ORDER[:victims]:
            stack.enter_context(world.proxies[name].failing(fault, "GET", "k"))
        begun = time.monotonic()
        if victims < len(ORDER):
            assert world.read(byte_range) == expected
        else:
            with pytest.raises(StorageError):
                world.read(byte_range)
        # As many time-outs as a read may meet, and the patience of a busy machine.
        assert time.monotonic() - begun < 10


@pytest.mark.parametrize("fault", ALWAYS.values(), ids=ALWAYS)
def test_R5_a_source_that_serves_nothing_right_is_passed_over(world: World, fault: Fault) -> None:
    for victims, byte_range in ((1, None), (2, ByteRange(100_000, 400_000)), (3, None)):
        fails_over(world, fault, victims, byte_range)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fault=st.sampled_from(AT_A_BYTE),
    at=st.one_of(st.integers(0, len(BODY) - 1), st.sampled_from([0, 1, 262_143, 262_144, len(BODY) - 1])),
    victims=st.sampled_from([1, 1, 2, 2, 3]),
    ranged=st.booleans(),
)
def test_R5_a_source_that_fails_at_a_byte_is_replaced_there(
    world: World, *, fault: Callable[[int], Fault], at: int, victims: int, ranged: bool
) -> None:
    begin = at // 2
    byte_range = ByteRange(begin, min(len(BODY), at + 100_000) - begin) if ranged else None
    for proxy in world.proxies.values():
        proxy.forget()
    fails_over(world, in_object(fault(at)), victims, byte_range)
    # What was delivered is not asked for again, of any source.
    for name in ORDER[:victims]:
        requests = world.proxies[name].asked("GET", "k")
        asked = [request.offset for request in requests if request.headers.keys() & {"range", "x-ms-range"}]
        assert asked == sorted(asked)


@pytest.mark.parametrize("native", [True, False], ids=["native", "sdk"])
def test_R4_a_copy_whose_bytes_were_changed_on_the_way_is_made_again(
    gcs_server: Any, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path, native: bool
) -> None:
    """Where both stores tell an MD5."""
    proxy = fault_proxy(gcs_server.url)
    buckets = {name: gcs_server.new_bucket() for name in ORDER}
    for bucket in buckets.values():
        bucket["storage_provider"]["options"]["rust_client"] = native
    behind = _opened(buckets)
    providers = _opened({**buckets, "primary": through(buckets["primary"], proxy)})
    manager = ReplicaManager(
        Source("primary", providers["primary"]), [Replica("one", providers["one"])], Journal(tmp_path / "journal.db")
    )
    behind["primary"].put("k", BODY)
    data = lambda request: native or request.query.get("alt") == "media"  # noqa: E731 - and not the metadata
    with proxy.failing(corrupt(at=5), "GET", "k", times=1, where=data):
        bring_up_to_date(manager, "one", "k")
    assert behind["one"].get("k").read_all() == BODY
    manager.close()
