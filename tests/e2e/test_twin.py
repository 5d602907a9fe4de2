"""A mount and a local directory are twins: hypothesis makes the same calls on both, as two users.

`TWIN_EXAMPLES=1000 pytest tests/e2e/test_twin.py` looks for more; without it the same examples are tried each
time, and one that fails is not made shorter.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.e2e.twin.calls import CALLS
from tests.e2e.twin.differences import DIFFERENCES
from tests.e2e.twin.users import two_users
from tests.fuse.mounting import Mounted, file_store, unmount_whatever_is_left, write_config

EXAMPLES = int(os.environ.get("TWIN_EXAMPLES", "0"))
SETTINGS = settings(
    max_examples=EXAMPLES or 25,
    derandomize=not EXAMPLES,
    database=None,
    phases=[Phase.generate, Phase.shrink] if EXAMPLES else [Phase.generate],
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

paths = st.one_of(
    st.sampled_from(["a", "a", "b", "d", "d", "l"]),
    st.sampled_from(["d/a", "d/a", "d/b", "d/d", "d/d/a", "l/a", "a/x"]),
    st.sampled_from(["a", "d", "n" * 255, "n" * 256, "ü\n %", "."]),
)
files = st.integers(0, 1)
data = st.tuples(st.sampled_from("xyz"), st.sampled_from([0, 1, 9, 5000, 140_000]))
offsets = st.sampled_from([0, 1, 7, 4096, 70_000])
sizes = st.sampled_from([0, 3, 5000, 200_000])
modes = st.sampled_from([0o644, 0o600, 0o755, 0o700, 0o000, 0o777, 0o1777, 0o4755, 0o2755, 0o444])
times = st.sampled_from([0, 1_500_000_000, 500_000_000_123_456_789])
owners = st.sampled_from([-1, 61000, 61001, 61002])
xattrs = st.sampled_from(["user.twin", "user.twin", "user.other", "user.ü x"])
xattr_flags = st.sampled_from([0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
flags = st.builds(
    lambda access, extra: access | extra,
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR]),
    st.sampled_from([0, 0, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_APPEND,
                     os.O_TRUNC, os.O_DIRECTORY, os.O_NOFOLLOW, os.O_CREAT | os.O_APPEND]),
)  # fmt: skip

ARGUMENTS: dict[str, tuple[st.SearchStrategy[Any], ...]] = {
    "open": (files, paths, flags, modes),
    "close": (files,),
    "duplicate": (files,),
    "read": (files, sizes),
    "pread": (files, sizes, offsets),
    "write": (files, data),
    "pwrite": (files, data, offsets),
    "lseek": (files, offsets, st.sampled_from([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])),
    "ftruncate": (files, sizes),
    "fsync": (files,),
    "fdatasync": (files,),
    "fstat": (files,),
    "fchmod": (files, modes),
    "futimens": (files, times),
    "fallocate": (files, offsets, st.sampled_from([1, 5000])),
    "flock": (files, st.sampled_from([1, 2, 8])),
    "lockf": (files, st.sampled_from([1, 2, 8]), st.sampled_from([0, 10]), st.sampled_from([0, 10])),
    "mmap": (files, offsets, st.binary(min_size=1, max_size=9)),
    "copy_file_range": (files, files, sizes),
    "write_file": (paths, data, st.sampled_from([0, os.O_TRUNC, os.O_APPEND, os.O_EXCL])),
    "read_file": (paths,),
    "truncate": (paths, sizes),
    "stat": (paths,),
    "lstat": (paths,),
    "access": (paths, st.integers(0, 7)),
    "chmod": (paths, modes),
    "chown": (paths, owners, owners),
    "lchown": (paths, owners, owners),
    "utimens": (paths, times),
    "mkdir": (paths, modes),
    "rmdir": (paths,),
    "unlink": (paths,),
    "rename": (paths, paths),
    "noreplace": (paths, paths),
    "exchange": (paths, paths),
    "symlink": (st.sampled_from(["a", "d", "d/a", "../a", "missing", "l", "/", "t" * 300]), paths),
    "readlink": (paths,),
    "link": (paths, paths),
    "mknod": (paths,),
    "mkfifo": (paths,),
    "tmpfile": (paths,),
    "listdir": (paths,),
    "rewinddir": (paths,),
    "statvfs": (paths,),
    "setxattr": (paths, xattrs, st.binary(max_size=5), xattr_flags),
    "getxattr": (paths, xattrs),
    "removexattr": (paths, xattrs),
    "listxattr": (paths,),
    "fsetxattr": (files, xattrs, st.binary(max_size=5), xattr_flags),
    "fgetxattr": (files, xattrs),
    "flistxattr": (files,),
}
# What makes things comes more often than what looks at them, or most calls would find nothing.
OFTEN = [
    "open",
    "write",
    "write_file",
    "write_file",
    "mkdir",
    "mkdir",
    "rename",
    "rename",
    "symlink",
    "pwrite",
    "unlink",
]
calls = st.sampled_from(sorted(ARGUMENTS) + OFTEN * 2).flatmap(
    lambda name: st.tuples(st.just(name), st.integers(0, 1), st.tuples(*ARGUMENTS[name]))
)


FURNITURE: list[tuple[str, int, tuple[Any, ...]]] = [
    ("mkdir", 0, ("d", 0o755)),
    ("chmod", 0, ("d", 0o777)),
    ("write_file", 0, ("a", ("x", 5000), 0)),
    ("write_file", 1, ("d/a", ("y", 9), 0)),
    ("open", 1, (0, "d/a", os.O_RDWR, 0)),
]
"""So that most calls find something."""


SERVERS = {"s3": "s3_server", "gcs": "gcs_server", "azure": "azure_server"}
PLACES = {
    "file": 1.0,
    "s3": 1.0,
    "s3, preserve_attributes": 1.0,
    "gcs, preserve_attributes": 0.4,
    "azure, preserve_attributes": 0.4,
}
"""Where the twins are, and how many of the examples are tried there."""


@pytest.fixture(params=PLACES)
def mounted(request: pytest.FixtureRequest) -> Iterator[Mounted]:
    # Not below pytest's directory, which only root may enter.
    root = Path(tempfile.mkdtemp(prefix="mscfs-twin-"))
    root.chmod(0o755)
    store, _, option = request.param.partition(", ")
    server = request.getfixturevalue(SERVERS[store]) if store in SERVERS else None
    profile = server.new_bucket() if server is not None else file_store(root / "primary")
    write_config(root, {"data": profile | {"mscfs": {option: True} if option else {}}})
    mounted = Mounted(root)
    mounted.mount("-o", "allow_other")
    yield mounted
    unmount_whatever_is_left(mounted)
    shutil.rmtree(root)


def test_a_mount_behaves_as_a_local_directory(mounted: Mounted, request: pytest.FixtureRequest) -> None:
    takes_line_breaks = not request.node.callspec.params["mounted"].startswith(("gcs", "azure"))  # N3
    share = PLACES[request.node.callspec.params["mounted"]]
    local, numbers = mounted.root / "local", itertools.count()
    local.mkdir()
    with two_users() as users:

        @settings(SETTINGS, max_examples=int(share * (EXAMPLES or 25)))
        @given(st.lists(calls, min_size=5, max_size=40))
        def same(script: list[tuple[str, int, tuple[Any, ...]]]) -> None:
            twins = [directory / str(next(numbers)) for directory in (local, mounted.path)]
            twins[1] = mounted.path / twins[0].name
            for twin in twins:
                twin.mkdir()
                twin.chmod(0o1777)
            for user in users:
                user.begin(*twins)
            made: list[str] = []
            script = [*FURNITURE, *script]
            for name, who, given_arguments in script:
                arguments = given_arguments if takes_line_breaks else without_line_breaks(given_arguments)
                made.append(f"user {who}: {name}{arguments}")
                here, there = users[who].call(name, *arguments)
                assert there == here, "\n".join([*made, f"local: {here}"[:500], f"mount: {there}"[:500]])
            assert contents(twins[1]) == contents(twins[0]), "\n".join(made)

        same()


def without_line_breaks(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(one.replace("\n", "") if isinstance(one, str) else one for one in arguments)


def contents(root: Path) -> dict[str, object]:
    """What is in a directory, as root sees it."""
    found: dict[str, object] = {}
    for directory, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = Path(directory, name)
            if path.is_symlink():
                found[str(path.relative_to(root))] = path.readlink()
            else:
                found[str(path.relative_to(root))] = path.read_bytes() if path.is_file() else None
    return found


def test_every_call_is_driven() -> None:
    assert ARGUMENTS.keys() == CALLS.keys()
    assert len(CALLS) >= 35


def test_the_documentation_shows_the_differences() -> None:
    page = (Path(__file__).parents[2] / "docs/semantics.md").read_text()
    section = page.partition("## Differences from a local directory")[2].partition("\n## ")[0]
    shown = [" ".join(item.split()) for item in section.split("\n- ")[1:]]
    assert shown == [difference.text for difference in DIFFERENCES]
