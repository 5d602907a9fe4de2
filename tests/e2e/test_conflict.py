"""Two hosts that write one bucket, each with a mount of its own: W5, and what becomes of the content that lost (W4)."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mscfs.cli.app import make_app
from mscfs.config.load import load_config
from mscfs.providers.base import StorageProvider
from mscfs.providers.registry import open_provider
from tests.emulators.fault_proxy import FaultProxy, through
from tests.emulators.faults import deaf_to
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, wait_until, write_config

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

NAMES = [f"name-{number}" for number in range(12)]
OLD = {
    "both": b"the version that both opened",
    "synced": b"old",
    "target": b"to be replaced",
    "from": b"as one host knows it",
    "whole": b"",
}
"""What is there before anybody mounts."""


@dataclass
class Hosts:
    """Two mounts of one store that know nothing of each other; `store` is the store, past both."""

    one: Mounted
    other: Mounted
    store: StorageProvider
    is_deaf: bool

    def content(self, key: str) -> bytes:
        return self.store.get(key).read_all()


@pytest.fixture(params=["file", "s3", "gcs", "azure", "deaf s3"])
def hosts(request: pytest.FixtureRequest, tmp_path: Path, fault_proxy: Callable[[str], FaultProxy]) -> Iterator[Hosts]:
    """`deaf s3` stores whatever comes, as servers do that do not know conditional writes."""
    kind = request.param.removeprefix("deaf ")
    if kind == "file":
        profile = file_store(tmp_path / "store")
    else:
        server = request.getfixturevalue(f"{kind}_server")
        profile = server.new_bucket()
    is_deaf = kind != request.param
    if is_deaf:
        proxy = fault_proxy(server.url)
        proxy.on(deaf_to("if-match", "if-none-match"), "P*")
        profile = through(profile, proxy)
    made = [_host(tmp_path / name, profile) for name in ("one", "other")]
    store = open_provider(load_config(made[0].config), "data")
    for key, content in OLD.items():
        store.put(key, content)
    for host in made:
        host.mount()
    yield Hosts(*made, store, is_deaf)
    for host in made:
        unmount_whatever_is_left(host)


def _host(root: Path, profile: dict[str, Any]) -> Mounted:
    root.mkdir()
    write_config(root, {"data": profile})
    places = {f"XDG_{name}": str(root / name) for name in ("STATE_HOME", "CACHE_HOME", "RUNTIME_DIR")}
    return Mounted(root, environment={**os.environ, **places})


def test_W5_two_hosts(hosts: Hosts) -> None:
    only_one_makes_a_name(hosts)
    the_second_close_is_estale_and_loses_nothing(hosts)
    an_fsync_tells_it_too(hosts)
    a_rename_replaces_what_was_changed_elsewhere(hosts)
    a_rename_of_what_was_changed_elsewhere_is_estale(hosts)
    what_is_replaced_as_a_whole_is_the_last_writers(hosts)
    told = command(hosts.one, "status", str(hosts.one.path))["primary"]["conditional_writes"]
    assert told == ("compared" if hosts.is_deaf else "decided")


def only_one_makes_a_name(hosts: Hosts) -> None:
    """Whichever comes first; of those that come within the same moment, too, where the store decides."""
    assert set(os.listdir(hosts.one.path)) == set(os.listdir(hosts.other.path)) == set(OLD)  # and no other names
    os.close(exclusive(hosts.one, "mine"))
    assert refused(hosts.other, "mine")
    os.close(exclusive(hosts.other, "yours"))
    assert refused(hosts.one, "yours")
    if hosts.is_deaf:
        return
    both = threading.Barrier(2)
    won: dict[str, list[str]] = {name: [] for name in NAMES}

    def make(host: Mounted) -> None:
        for name in NAMES:
            both.wait(30)
            try:
                descriptor = exclusive(host, name)
            except FileExistsError:
                continue
            os.write(descriptor, os.fsencode(host.root.name))
            os.close(descriptor)
            won[name].append(host.root.name)

    threads = [threading.Thread(target=make, args=(host,)) for host in (hosts.one, hosts.other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [len(winners) for winners in won.values()] == [1] * len(NAMES), won
    assert {name: [hosts.content(name).decode()] for name in NAMES} == won


def the_second_close_is_estale_and_loses_nothing(hosts: Hosts) -> None:
    first, second = (os.open(host.path / "both", os.O_RDWR) for host in (hosts.one, hosts.other))
    os.pwrite(first, b"FIRST", 0)
    os.pwrite(second, b"SECOND", 0)
    os.close(first)
    with pytest.raises(OSError) as error:
        os.close(second)
    assert error.value.errno == errno.ESTALE
    assert hosts.content("both") == b"FIRSTersion that both opened"
    # On the host that lost, which may go on, be unmounted or crash: the content is in somebody's hands.
    wait_until(lambda: len(recover(hosts.other, "list")) == 1)  # the kernel tells of the last close() afterwards
    (entry,) = recover(hosts.other, "list")
    assert (entry["key"], Path(entry["file"]).read_bytes()) == ("both", b"SECONDrsion that both opened")
    (refusal,) = recover(hosts.other, "upload", entry["id"])
    assert "changed elsewhere" in refusal["error"]
    recover(hosts.other, "upload", entry["id"], "--key", "rescued")
    assert hosts.content("rescued") == b"SECONDrsion that both opened"
    assert hosts.content("both") == b"FIRSTersion that both opened"


def an_fsync_tells_it_too(hosts: Hosts) -> None:
    first, second = (os.open(host.path / "synced", os.O_RDWR) for host in (hosts.one, hosts.other))
    os.write(first, b"one")
    os.write(second, b"two")
    os.fsync(second)
    with pytest.raises(OSError) as error:
        os.fsync(first)
    assert error.value.errno == errno.ESTALE
    os.pwrite(second, b"2", 0)
    os.close(second)
    with pytest.raises(OSError):
        os.close(first)
    assert hosts.content("synced") == b"2wo"
    saved = hosts.one.root / "saved"
    wait_until(lambda: any(entry["key"] == "synced" for entry in recover(hosts.one, "list")))  # as above
    recover(hosts.one, "save", str(saved))
    assert (saved / "synced").read_bytes() == b"one"


def a_rename_replaces_what_was_changed_elsewhere(hosts: Hosts) -> None:
    """As write-and-rename does: the target is whatever it is by then, and goes as a whole."""
    assert (hosts.one.path / "target").read_bytes() == b"to be replaced"
    (hosts.one.path / "new").write_bytes(b"renamed over it")
    (hosts.other.path / "target").write_bytes(b"changed elsewhere")
    (hosts.one.path / "new").rename(hosts.one.path / "target")
    assert hosts.content("target") == b"renamed over it"
    assert (hosts.one.path / "target").read_bytes() == b"renamed over it"


def a_rename_of_what_was_changed_elsewhere_is_estale(hosts: Hosts) -> None:
    assert (hosts.one.path / "from").read_bytes() == b"as one host knows it"
    (hosts.other.path / "from").write_bytes(b"newer")
    with pytest.raises(OSError) as error:
        (hosts.one.path / "from").rename(hosts.one.path / "to")
    assert error.value.errno == errno.ESTALE
    assert hosts.content("from") == b"newer"
    assert "to" not in [entry.key for entry in hosts.store.list()]


def what_is_replaced_as_a_whole_is_the_last_writers(hosts: Hosts) -> None:
    for host in (hosts.one, hosts.other, hosts.one):
        (host.path / "whole").write_bytes(host.root.name.encode())
        assert hosts.content("whole") == host.root.name.encode()


def exclusive(host: Mounted, name: str) -> int:
    return os.open(host.path / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)


def refused(host: Mounted, name: str) -> bool:
    try:
        os.close(exclusive(host, name))
    except FileExistsError:
        return True
    return False


def recover(host: Mounted, verb: str, *arguments: str) -> list[dict[str, Any]]:
    return command(host, "recover", verb, "data", *arguments, "--config", str(host.config))


def command(host: Mounted, *arguments: str) -> Any:
    """The JSON that a command of the host answers; in this process, for one of its own costs a second."""
    done = CliRunner().invoke(make_app(arguments), [*arguments, "--json"], env=host.environment)
    return json.loads(done.stdout)
