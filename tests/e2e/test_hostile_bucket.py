"""A bucket that means us harm: keys, links and metadata lead nowhere, on a mount and on the command line (L5, N2)."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from typer.testing import CliRunner

from mscfs.cli.app import make_app
from mscfs.config.load import load_config
from mscfs.errors import StorageError
from mscfs.providers.registry import open_provider
from mscfs.types import STAMP_KEY, SYMLINK_KEY
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, with_replicas, write_config
from tests.providers.contract import UNREPRESENTABLE_KEYS

pytestmark = [pytest.mark.mount, pytest.mark.emulator]

GOOD = {"plain": b"plain", "d/below": b"below", "d/sub/x": b"x"}
NO_PATHS = [*UNREPRESENTABLE_KEYS, "../escaped", "d/../../escaped", "/escaped", "d//escaped", f"d/{'n' * 256}", "./d/x"]
ORDERS = ["line\nfeed", "esc\x1b[2J", "d/\x9b31m", "back\\slash", ".mscfs-draft-x", ".mscfs-condition-0"]
LINKS = {
    "absolute": "/escaped",
    "outside": "../../../escaped",
    "away": "/escaped",
    "up": "../../../escaped",
    "itself": "itself",
    "directory": "..",
    "orders": "%1B%5B2J%0A",
    "nul": "a%00b",
    "nothing": "",
    "long": "x" * 1500,
    "no-utf8": "%FF%FE",
}
"""Names and percent-encoded targets."""
BELOW_LINKS = ["outside/file", "directory/file", "absolute/file"]
METADATA = [
    {STAMP_KEY: f"1 {'9' * 400} {'9' * 400} x"},
    {STAMP_KEY: "1 1 -1 x"},
    {"mode": "0777777777", "mtime": "NaN", "uid": "-1"},
]


@pytest.fixture(params=["s3", "gcs", "azure"])
def m(request, tmp_path):
    """A mount of such a bucket with a replica that is a directory; all of it lies in a directory of its own."""
    root = tmp_path / "a/b/c"
    root.mkdir(parents=True)
    bucket = request.getfixturevalue(f"{request.param}_server").new_bucket()
    write_config(root, {"data": with_replicas(bucket, "near"), "near": file_store(root / "near")})
    mounted = Mounted(root)
    store = open_provider(load_config(mounted.config), "data")
    for key, content in GOOD.items():
        store.put(key, content)
    for key in (*NO_PATHS, *ORDERS, *BELOW_LINKS):
        with suppress(StorageError):  # what this store does not take either
            store.put(key, b"hostile")
    for name, target in LINKS.items():
        store.put(name, b"", metadata={SYMLINK_KEY: target})
    for number, metadata in enumerate(METADATA):
        store.put(f"metadata-{number}", b"1", metadata=metadata)
    mounted.mount()
    yield mounted
    unmount_whatever_is_left(mounted)


def test_L5_N2_a_hostile_bucket(m):
    before = outside(m.root)
    seen = {str(Path(place, name).relative_to(m.path)) for place, _, names in os.walk(m.path) for name in names}
    assert GOOD.keys() | {f"metadata-{number}" for number in range(len(METADATA))} <= seen
    assert "escaped" not in {name.rpartition("/")[2] for name in seen}
    for name in seen - LINKS.keys():
        (m.path / name).read_bytes()
    for name in ("away", "up", "itself", "orders", "long", "no-utf8"):
        target = os.readlink(m.path / name)
        assert os.fsencode(target) == unquote_to_bytes(LINKS[name])
        assert len(os.fsencode(target)) == (m.path / name).lstat().st_size
    for name in ("nul", "nothing"):
        assert (m.path / name).read_bytes() == b""
    assert {name: (m.path / name).read_bytes() for name in GOOD} == GOOD
    assert json.loads(m.mscfs("status", m.path, "--json").stdout)["skipped_keys"] > 0

    # Everything copied: to a local directory, and to a replica that is one.
    copied = m.root / "copied"
    copied.mkdir()
    shown = run("cp", "-r", "data:", str(copied), "--config", str(m.config))
    shown += run("sync-replicas", "data", "--config", str(m.config))
    assert {letter for letter in shown if not letter.isprintable()} <= {"\n"}
    for place in (copied, m.store("near")):
        assert {name: (place / name).read_bytes() for name in GOOD} == GOOD
    assert outside(m.root) == before


def outside(root: Path) -> list[Path]:
    """What lies around the directories of the test; a link or a key that led out would be seen here."""
    top = root.parents[2]
    inside = [root / name for name in ("near", "copied", "mnt")]
    return [path for path in sorted(top.rglob("*")) if not any(path.is_relative_to(place) for place in inside)]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(make_app(arguments), list(arguments))
    return done.stdout + done.stderr
