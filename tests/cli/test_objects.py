from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from mscfs.cli import copying
from mscfs.cli.names import Clients, RemoteName, parse, parse_remote
from mscfs.errors import AccessDeniedError, NotFoundError, StoreMissingError, StoreUnavailableError, UsageError
from mscfs.types import ObjectMetadata, from_ns

BINARY = bytes(range(256)) * 8


@pytest.fixture
def stores(machine):
    """Some objects on the primary."""
    for key, content in {"a": b"A", "d/1": BINARY, "d/2": b"22", "d/e/3": b"333", "d2": b""}.items():
        path = machine.store("primary") / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return machine


def out(machine, *arguments, code=0):
    done = machine.run(*arguments)
    assert (done.returncode, done.stderr) == (code, ""), done.stderr
    return done.stdout


def error(machine, *arguments, code=1):
    done = machine.run(*arguments)
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert lines, "no reason was given"
    return done.stderr


def raw(machine, *arguments, stdin=subprocess.DEVNULL):
    return subprocess.run(
        [sys.executable, "-m", "mscfs.cli.main", *map(str, arguments)],
        env=machine.environment,
        capture_output=True,
        stdin=stdin,
        timeout=60,
        check=False,
    )


def drained(machine):
    assert machine.run("drain", "data", "--timeout", "30").returncode == 0


def test_an_error_of_an_object_store_says_what_to_do(tmp_path):
    file = tmp_path / "config.json"
    lake = {"type": "azure", "options": {"base_path": "c", "endpoint_url": "http://127.0.0.1:9/a"}}
    disk = {"type": "file", "options": {"base_path": str(tmp_path)}}
    file.write_text(json.dumps({"profiles": {"lake": {"storage_provider": lake}, "disk": {"storage_provider": disk}}}))
    for kind, store, told in [
        (StoreUnavailableError, "lake", "lake:k: it failed: check endpoint_url and the network"),
        (StoreMissingError, "lake", "lake:k: it failed: create it, or correct base_path"),
        (AccessDeniedError, "lake", "lake:k: it failed: check the credentials and what they allow"),
        (NotFoundError, "lake", "lake:k: it failed"),
        (AccessDeniedError, "disk", "disk:k: it failed"),
    ]:
        clients = Clients(file)
        clients.of("lake")
        with pytest.raises(kind) as caught, clients:
            raise kind("it failed", store=store, key="k")
        assert str(caught.value) == told


# -- names ----------------------------------------------------------------------------------------------------------


def test_names():
    assert parse("data:a/b") == parse("data:/a/b") == parse("msc://data/a/b") == RemoteName("data", "a/b")
    assert str(parse("./data:a")) == "data:a"
    assert str(parse("/x/y:z")) == "/x/y:z"
    assert str(parse("file")) == "file"
    assert parse_remote("data") == parse_remote("data:") == RemoteName("data", "")
    assert RemoteName("p", "d/").below("x") == RemoteName("p", "d").below("x") == RemoteName("p", "d/x")
    assert RemoteName("p", "").below("x") == RemoteName("p", "x")
    with pytest.raises(UsageError, match="no profile"):
        parse(":key")
    with pytest.raises(UsageError, match="names no object"):
        parse_remote("/local/path")


# -- ls and info ----------------------------------------------------------------------------------------------------


def test_ls_shows_one_level(stores):
    lines = out(stores, "ls", "data").splitlines()
    assert [line.split()[-1] for line in lines] == ["a", "d/", "d2"]
    assert lines[0].split()[:2] == ["1", "B"]
    assert [line.split()[-1] for line in out(stores, "ls", "data:d").splitlines()] == ["d/1", "d/2", "d/e/"]


def test_ls_recursive_and_of_one_object(stores):
    lines = out(stores, "ls", "-r", "msc://data/d").splitlines()
    assert [line.split()[-1] for line in lines] == ["d/1", "d/2", "d/e/3"]
    assert out(stores, "ls", "data:a").split()[-1] == "a"


def test_ls_in_json_is_one_object_a_line(stores):
    entries = [json.loads(line) for line in out(stores, "ls", "-r", "--json", "data:").splitlines()]
    assert [(entry["key"], entry["size"]) for entry in entries] == [
        ("a", 1),
        ("d/1", 2048),
        ("d/2", 2),
        ("d/e/3", 3),
        ("d2", 0),
    ]


def test_ls_shows_names_that_would_disturb_a_terminal_on_one_line(stores):
    (stores.store("primary") / "new\nline\x1b[31m[bold]").write_bytes(b"")
    (stores.store("primary") / ("x" * 200)).write_bytes(b"")
    text = out(stores, "ls", "data")
    assert "new\\nline\\x1b[31m[bold]" in text
    assert "\x1b" not in text
    assert "x" * 200 in text


def test_ls_of_nothing_is_an_error(stores):
    assert error(stores, "ls", "data:nothing").lower().startswith("mscfs: data:nothing: no such ")
    assert "did you mean 'data'" in error(stores, "ls", "dato:", code=78)


def test_ls_stops_quietly_when_nobody_reads_on(stores):
    for number in range(3000):
        (stores.store("primary") / f"{number:05}{'x' * 100}").write_bytes(b"")
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m mscfs.cli.main ls data | head -1"],
        env=stores.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == ""
    assert done.stdout.count("\n") == 1


def test_info(stores):
    text = out(stores, "info", "data:d/1")
    assert "2.0 KiB (2,048 bytes)" in text
    found = json.loads(out(stores, "info", "--json", "data:d/1"))
    assert (found["key"], found["size"], found["type"]) == ("d/1", 2048, "file")
    assert json.loads(out(stores, "info", "--json", "data:d"))["type"] == "directory"
    assert "no such" in error(stores, "info", "data:nothing").lower()


# -- cat ------------------------------------------------------------------------------------------------------------


def test_cat_is_binary_safe(stores):
    assert raw(stores, "cat", "data:d/1", "data:a").stdout == BINARY + b"A"
    assert raw(stores, "cat", "--range", "10:5", "data:d/1").stdout == BINARY[10:15]
    assert raw(stores, "cat", "--range", "2040:500", "data:d/1").stdout == BINARY[2040:]


def test_cat_says_what_is_wrong(stores):
    assert "OFFSET:SIZE" in error(stores, "cat", "--range", "10-20", "data:a", code=64)
    assert "data:nothing: " in error(stores, "cat", "data:nothing")


# -- cp -------------------------------------------------------------------------------------------------------------


def test_cp_uploads_downloads_and_copies(stores, tmp_path):
    (tmp_path / "local").write_bytes(BINARY)
    out(stores, "cp", tmp_path / "local", "data:up/loaded")
    out(stores, "cp", "data:up/loaded", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == BINARY
    out(stores, "cp", "data:up/loaded", "data:copied")
    out(stores, "cp", "data:a", "near:")
    assert (stores.store("primary") / "copied").read_bytes() == BINARY
    assert (stores.store("near") / "a").read_bytes() == b"A"


def test_cp_replicates_what_it_writes(stores, tmp_path):
    (tmp_path / "local").write_bytes(b"content")
    out(stores, "cp", tmp_path / "local", "data:k")
    drained(stores)
    assert (stores.store("near") / "k").read_bytes() == (stores.store("far") / "k").read_bytes() == b"content"


def test_cp_into_a_directory(stores, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    out(stores, "cp", "data:a", "data:d/2", target)
    assert sorted(path.name for path in target.iterdir()) == ["2", "a"]
    out(stores, "cp", target / "a", "data:d")
    out(stores, "cp", target / "a", "data:new/")
    assert (stores.store("primary") / "d" / "a").read_bytes() == b"A"
    assert (stores.store("primary") / "new" / "a").read_bytes() == b"A"


def test_cp_of_trees_in_every_direction(stores, tmp_path):
    expected = {"1": BINARY, "2": b"22", "e/3": b"333"}
    out(stores, "cp", "-r", "data:d", tmp_path / "tree")
    assert contents(tmp_path / "tree") == expected
    out(stores, "cp", "-r", tmp_path / "tree", "near:up")
    assert contents(stores.store("near") / "up") == expected
    out(stores, "cp", "-r", "data:d/", "data:again/")
    assert contents(stores.store("primary") / "again") == expected
    out(stores, "cp", "-r", "-j", "1", "data:d", "far:")
    assert expected.items() <= contents(stores.store("far")).items()


def contents(directory):
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_cp_goes_on_after_a_failure_and_tells(stores, tmp_path):
    (tmp_path / "tree" / "2").mkdir(parents=True)
    text = error(stores, "cp", "-r", "data:d", tmp_path / "tree")
    assert "data:d/2: " in text
    assert "1 of 3 could not be copied" in text
    assert (tmp_path / "tree" / "e" / "3").read_bytes() == b"333"


def test_cp_says_what_is_wrong(stores, tmp_path):
    assert "give -r" in error(stores, "cp", "data:d", tmp_path, code=64)
    assert "give -r" in error(stores, "cp", tmp_path, "data:d", code=64)
    assert "at least one source" in error(stores, "cp", "data:d", code=64)
    assert "both local" in error(stores, "cp", tmp_path / "config.json", tmp_path / "x")
    assert "nothing" in error(stores, "cp", "data:nothing", tmp_path / "x")
    assert "No such file" in error(stores, "cp", tmp_path / "nothing", "data:x")


class OddlyNamed:
    """Clients of a store whose keys are no paths."""

    names = ("../x", "a/../../x", "/x", "a//b", "a/.", "x" * 256, "good/..x", "é", "a\0b")

    def of(self, _profile):
        return self

    def info(self, _key):
        return ObjectMetadata("d/", 0, from_ns(0), type="directory")

    def list(self, _key):
        return (ObjectMetadata(f"d/{name}", 0, from_ns(0)) for name in self.names)


def test_L5_N2_nothing_in_a_store_makes_cp_write_elsewhere(tmp_path, capsys):
    jobs = list(copying._tree(OddlyNamed(), RemoteName("data", "d"), tmp_path))
    assert [job.target for job in jobs] == [tmp_path / "good" / "..x", tmp_path / "é"]
    assert capsys.readouterr().err.count("left out") == 7


def test_cp_leaves_out_what_is_no_file(stores, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"x")
    (tree / "link").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    done = stores.run("cp", "-r", tree, "data:tree")
    assert done.returncode == 0
    assert "pipe is left out" in done.stderr
    assert contents(stores.store("primary") / "tree") == {"file": b"x"}


def test_cp_from_a_pipe(stores, tmp_path):
    done = subprocess.run(
        ["sh", "-c", f"printf content | {sys.executable} -m mscfs.cli.main cp /dev/stdin data:piped"],
        env=stores.environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert (stores.store("primary") / "piped").read_bytes() == b"content"


def test_cp_and_sync_show_how_far_they_are_at_a_terminal(stores, tmp_path):
    for arguments in (["cp", "-r", "data:d", tmp_path / "tree"], ["sync-replicas", "data"]):
        ours, theirs = pty.openpty()
        done = subprocess.run(
            [sys.executable, "-m", "mscfs.cli.main", *map(str, arguments)],
            env={**stores.environment, "TERM": "xterm"},
            stdout=subprocess.PIPE,
            stderr=theirs,
            timeout=60,
            check=False,
        )
        os.close(theirs)
        shown = os.read(ours, 1 << 16)
        os.close(ours)
        assert done.returncode == 0, shown
        assert b"copying" in shown or b"copied" in shown


# -- rm -------------------------------------------------------------------------------------------------------------


def test_rm_removes_from_the_primary_only(stores):
    out(stores, "sync-replicas", "data")
    out(stores, "rm", "data:a", "data:d/1")
    assert not (stores.store("primary") / "a").exists()
    assert (stores.store("near") / "a").exists()
    assert "no such" in error(stores, "rm", "data:a").lower()
    out(stores, "rm", "-f", "data:a")


def test_rm_of_directories_asks_or_wants_to_be_told(stores):
    assert "give -r" in error(stores, "rm", "data:d", code=64)
    assert "--yes" in error(stores, "rm", "-r", "data:d", code=64)
    assert (stores.store("primary") / "d" / "1").exists()
    out(stores, "rm", "-r", "--yes", "data:d/e")
    assert not (stores.store("primary") / "d" / "e").exists()
    out(stores, "rm", "-rf", "data:")
    assert list(stores.store("primary").iterdir()) == []


@pytest.mark.parametrize(("answer", "gone"), [(b"n\n", False), (b"y\n", True)])
def test_rm_of_directories_at_a_terminal_asks(stores, answer, gone):
    ours, theirs = pty.openpty()
    os.write(ours, answer)
    done = raw(stores, "rm", "-r", "data:d", stdin=theirs)
    os.close(theirs)
    os.close(ours)
    assert b"Remove data:d and everything below it?" in done.stderr
    assert (stores.store("primary") / "d").exists() is not gone


@pytest.mark.parametrize("interrupts", [1, 2])
def test_an_interrupted_cp_begins_nothing_more_and_a_second_time_ends_at_once(stores, interrupts):
    slow = stores.root / "slow"
    os.mkfifo(slow)
    (stores.root / "later").write_bytes(b"later")
    # What a shell starts in the background is born with SIGINT ignored, and so is all that it starts.
    born = ["env", "--default-signal=INT", sys.executable, "-m", "mscfs.cli.main"]
    command = [*born, "cp", "-j", "1", slow, stores.root / "later", "data:new/"]
    with subprocess.Popen(command, env=stores.environment, stderr=subprocess.PIPE, text=True) as process:
        try:
            writer = slow.open("wb", buffering=0)  # when it is read
            writer.write(b"begun")
            process.send_signal(signal.SIGINT)
            assert "interrupt again to end at once" in process.stderr.readline()
            if interrupts == 2:
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 130
            writer.close()
            assert process.wait(20) == 130
        finally:
            process.kill()
    new = stores.store("primary") / "new"
    assert [path.read_bytes() for path in new.glob("*")] == ([b"begun"] if interrupts == 1 else [])


# -- where ----------------------------------------------------------------------------------------------------------


def test_where_tells_fresh_stale_and_missing_and_who_serves(stores):
    out(stores, "sync-replicas", "data", "a")
    (stores.store("far") / "a").unlink()
    (stores.store("primary") / "a").write_bytes(b"B")
    out(stores, "sync-replicas", "data", "d/2", "--replica-indices", "0")
    found = {entry["profile"]: entry for entry in json.loads(out(stores, "where", "--json", "data:a"))}
    assert {name: (entry["state"], entry["serves"]) for name, entry in found.items()} == {
        "near": ("stale", False),
        "far": ("missing", False),
        "data": ("primary", True),
    }
    text = out(stores, "where", "data:d/2")
    assert [line.split()[:5] for line in text.splitlines()[1:]] == [
        ["near", "replica", "1", "fresh", "yes"],
        ["far", "replica", "2", "missing"],
        ["data", "primary", "present", "2", "B"],
    ]
    assert "no such object" in error(stores, "where", "data:nothing")
    assert "no mount" in error(stores, "where", stores.root / "x")


@pytest.mark.mount
def test_where_of_a_path_asks_the_mount(stores):
    out(stores, "sync-replicas", "data", "d/2")
    stores.mount()
    found = json.loads(out(stores, "where", "--json", stores.mountpoint / "d" / "2"))
    assert [(entry["profile"], entry["state"]) for entry in found] == [
        ("near", "fresh"),
        ("far", "fresh"),
        ("data", "primary"),
    ]
    assert stores.run("umount", stores.mountpoint).returncode == 0


# -- sync-replicas --------------------------------------------------------------------------------------------------


def test_sync_replicas_copies_and_tells(stores):
    text = out(stores, "sync-replicas", "data", "--num-workers", "2")
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["near", "5", "2.0", "KiB", "0", "0", "0"],
        ["far", "5", "2.0", "KiB", "0", "0", "0"],
    ]
    assert contents(stores.store("near")) == contents(stores.store("far")) == contents(stores.store("primary"))


def test_sync_replicas_dry_run_in_json(stores):
    (stores.store("near") / "surplus").write_bytes(b"")
    document = json.loads(out(stores, "sync-replicas", "data", "--dry-run", "--delete-unmatched-files", "--json"))
    assert document["dry_run"]
    assert [(entry["profile"], entry["copied"], entry["deleted"]) for entry in document["replicas"]] == [
        ("near", 5, 1),
        ("far", 5, 0),
    ]
    assert contents(stores.store("near")) == {"surplus": b""}


def test_sync_replicas_of_a_prefix_and_chosen_replicas(stores):
    out(stores, "sync-replicas", "data", "d", "--replica-indices", "1")
    assert contents(stores.store("near")) == {}
    assert sorted(contents(stores.store("far"))) == ["d/1", "d/2", "d/e/3"]


def test_sync_replicas_that_fails_tells_what_and_does_the_rest(stores):
    stores.store("near").rmdir()
    done = stores.run("sync-replicas", "data", "--json")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["replicas"][1]["copied"] == 5
    assert document["failures"][0]["profile"] == "near"
    assert done.stderr.startswith("mscfs: ")
    assert not stores.store("near").exists()


def test_sync_replicas_says_what_is_wrong(stores):
    assert "must be numbers" in error(stores, "sync-replicas", "data", "--replica-indices", "one", code=64)
    assert "replica 7 does not exist" in error(stores, "sync-replicas", "data", "--replica-indices", "7", code=64)
    assert "no replicas" in error(stores, "sync-replicas", "near", code=64)


@pytest.mark.parametrize("command", ["ls", "info", "cat", "cp", "rm", "where", "sync-replicas"])
def test_help_has_examples(machine, command):
    text = out(machine, command, "--help")
    assert f"mscfs {command}" in text.partition("Examples:")[2]
    assert "--config" in text
