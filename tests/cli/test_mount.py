import errno
import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
from contextlib import suppress

import pytest

from mscfs.cli import serving, umount
from mscfs.cli.mount_table import probe
from mscfs.errors import MountError
from mscfs.fuse.mounts import mounted_at
from tests.fuse.mounting import is_running, wait_until

pytestmark = pytest.mark.mount


def one_line(done):
    """The one line of a failed command."""
    assert done.returncode != 0
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("mscfs: ")
    return lines[0]


def wait_gone(pid):
    """Return when a process that is no child of ours has ended."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([process], [], [], 30)[0]
    finally:
        os.close(process)


def test_L1_mount_returns_when_the_mount_answers(machine):
    (machine.store("primary") / "a").write_text("content")
    machine.mount()
    assert (machine.mountpoint / "a").read_text() == "content"
    entry = mounted_at(machine.mountpoint)
    assert (entry.type, entry.source) == ("fuse.mscfs", "data")
    done = machine.run("umount", machine.mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    assert not machine.is_mounted()
    assert machine.daemons() == []


def test_L5_a_mount_is_nosuid_and_nodev(machine):
    machine.mount()
    flags = os.statvfs(machine.mountpoint).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    assert not flags & os.ST_NOEXEC


def test_L5_a_mount_with_noexec_runs_no_program(machine):
    program = machine.store("primary") / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    machine.mount("-o", "noexec")
    with pytest.raises(PermissionError):
        subprocess.run([machine.mountpoint / "program"], check=False)


def test_L5_the_name_of_a_profile_sets_no_mount_option(machine):
    name = "a,suid,dev,allow_other\\"
    profiles = json.loads((machine.root / "config.json").read_text())["profiles"]
    (machine.root / "config.json").write_text(json.dumps({"profiles": {**profiles, name: profiles["near"]}}))
    done = machine.run("mount", name, machine.mountpoint)
    assert (done.returncode, done.stderr) == (0, "")
    flags = os.statvfs(machine.mountpoint).f_flag
    assert flags & os.ST_NOSUID
    assert flags & os.ST_NODEV
    assert mounted_at(machine.mountpoint).source == name


def test_L1_a_runtime_directory_that_is_full_is_said():
    said = pytest.raises(MountError, match=r"^/run/x: No space left on device; .* with XDG_RUNTIME_DIR$")
    with said, serving._in_runtime_directory():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run/x")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["dta", "mnt"], 78, "no profile is named 'dta'"),
        (["data", "none"], 1, "none does not exist: make it with `mkdir -p "),
        (["data", "config.json"], 1, "config.json is not a directory"),
        (["data", "mnt", "-o", "metadatattl=1"], 64, "did you mean 'metadata_ttl'?"),
        (["data", "mnt", "--config", "nowhere.yaml"], 78, "nowhere.yaml"),
        (["data", "stores"], 1, "would hide the files of profile 'data'"),
        (["data", "."], 1, "would hide"),
    ],
)
def test_L1_a_mistake_is_one_line_and_nothing_stays(machine, arguments, code, said):
    done = machine.run("mount", *arguments)
    assert said in one_line(done)
    assert done.returncode == code
    assert not machine.is_mounted()
    assert machine.daemons() == []


def test_L1_what_only_the_daemon_finds_out_is_one_line_too(machine):
    machine.store("primary").rmdir()
    done = machine.run("mount", "data", machine.mountpoint)
    assert "data: " in one_line(done)
    assert done.returncode == 69
    assert not machine.is_mounted()


def test_L1_the_code_of_the_daemon_is_the_code_of_the_command(machine):
    done = machine.run("mount", "data", machine.mountpoint, MSC_REPLICA_UPLOAD_THREADS="many")
    assert "MSC_REPLICA_UPLOAD_THREADS" in one_line(done)
    assert done.returncode == 78


def test_L1_a_daemon_that_dies_before_it_is_ready(machine):
    # The limit lets the command run, and kills its daemon when it imports what a mount needs.
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (1, 1)); import time\nwhile True: pass"
    (machine.root / "broken").mkdir()
    (machine.root / "broken" / "pyfuse3.py").write_text(code)
    done = machine.run("mount", "data", machine.mountpoint, PYTHONPATH=str(machine.root / "broken"))
    assert "the daemon was killed by signal" in one_line(done)
    assert not machine.is_mounted()


def test_L1_a_bug_at_the_start_is_one_line_and_its_traceback_is_in_the_log(machine):
    (machine.root / "broken").mkdir()
    (machine.root / "broken" / "pyfuse3.py").write_text("raise ZeroDivisionError('boom')")
    done = machine.run("mount", "data", machine.mountpoint, PYTHONPATH=str(machine.root / "broken"))
    assert "internal error: ZeroDivisionError: boom" in one_line(done)
    assert done.returncode == 70
    [log] = (machine.root / "state" / "mscfs" / "log").iterdir()
    assert "Traceback" in log.read_text()


def test_L1_a_mount_without_standard_streams(machine):
    command = f"exec {sys.executable} -m mscfs.cli.main mount data {machine.mountpoint} <&- >&- 2>&-"
    assert subprocess.run(command, shell=True, env=machine.environment, cwd=machine.root, check=False).returncode == 0
    assert machine.status()["state"] == "healthy"
    [log] = (machine.root / "state" / "mscfs" / "log").iterdir()
    assert "mounted data at" in log.read_text()


def test_a_mount_that_is_there_already(machine):
    machine.mount()
    line = one_line(machine.run("mount", "data", machine.mountpoint))
    assert "is already mounted (profile 'data', pid " in line
    assert (machine.mountpoint / ".").exists()


def test_L1_a_dead_mount_is_detached_before_the_next(machine):
    machine.mount()
    [record] = machine.daemons()
    os.kill(record["pid"], signal.SIGKILL)
    wait_gone(record["pid"])
    assert probe(machine.mountpoint, timeout=5) == "dead"
    machine.mount()
    (machine.mountpoint / "new").write_text("x")
    assert machine.run("umount", machine.mountpoint).returncode == 0
    assert mounted_at(machine.mountpoint) is None


def test_umount_detaches_a_dead_mount(machine):
    machine.mount()
    [record] = machine.daemons()
    os.kill(record["pid"], signal.SIGKILL)
    wait_gone(record["pid"])
    assert machine.run("umount", machine.mountpoint).returncode == 0
    assert mounted_at(machine.mountpoint) is None


def test_umount_names_who_is_in_the_way(machine):
    (machine.store("primary") / "a").write_text("content")
    machine.mount()
    with (machine.mountpoint / "a").open() as file:
        line = one_line(machine.run("umount", machine.mountpoint))
        assert re.search(rf"is in use by .*\({os.getpid()}\): end it, or detach with --lazy", line)
        assert machine.is_mounted()
        [record] = machine.daemons()
        assert machine.run("umount", "--lazy", machine.mountpoint).returncode == 0
        assert not machine.is_mounted()
        assert file.read() == "content"
    wait_gone(record["pid"])


def test_L2_the_end_of_a_detached_mount_leaves_the_one_that_was_made_in_its_place(machine):
    (machine.store("primary") / "a").write_text("content")
    machine.mount()
    [old] = machine.daemons()
    # Closing it fails when the old mount has ended.
    with suppress(OSError), (machine.mountpoint / "a").open():
        assert machine.run("umount", "--lazy", machine.mountpoint).returncode == 0
        machine.mount()
        os.kill(old["pid"], signal.SIGTERM)
        wait_gone(old["pid"])
        assert machine.is_mounted()
    assert (machine.mountpoint / "a").read_text() == "content"


def test_umount_leaves_a_mount_that_was_made_while_it_waited(machine, monkeypatch):
    machine.mount()
    for name, value in machine.environment.items():
        monkeypatch.setenv(name, value)
    wait = umount.wait_for_end

    def and_mount(*arguments):
        wait(*arguments)
        machine.mount()

    monkeypatch.setattr(umount, "wait_for_end", and_mount)
    umount.umount(str(machine.mountpoint), lazy=False)
    assert machine.is_mounted()


@pytest.mark.parametrize(
    ("place", "said"), [("mnt", "is not mounted; `mscfs status` lists"), ("/proc", "is a mount of type proc, not")]
)
def test_umount_of_something_else(machine, place, said):
    assert said in one_line(machine.run("umount", place))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_L2_a_signal_ends_a_mount_in_order(machine, number):
    # What nohup(1) starts is born with SIGHUP ignored, and so is all that it starts.
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        machine.mount()
    finally:
        signal.signal(signal.SIGHUP, inherited)
    (machine.mountpoint / "a").write_text("content")
    [record] = machine.daemons()
    os.kill(record["pid"], number)
    wait_gone(record["pid"])
    assert mounted_at(machine.mountpoint) is None
    assert (machine.store("primary") / "a").read_text() == "content"
    assert machine.daemons() == []


def test_options_reach_the_mount(machine):
    machine.mount("-o", "uid=4711,umask=027,metadata_ttl=0", "--read-only")
    status = machine.status()
    assert status["read_only"] is True
    with pytest.raises(OSError, match="Read-only"):
        (machine.mountpoint / "a").touch()


def test_the_status_document_has_every_field(machine):
    (machine.store("primary") / "a").write_text("content")
    machine.mount()
    (machine.mountpoint / "a").read_text()
    status = machine.status()
    assert {"profile", "mountpoint", "pid", "state", "primary", "replicas", "cache", "staging", "journal"} < set(status)
    assert {"version", "started", "read_only", "uptime", "skipped_keys", "conflicts"} < set(status)
    assert (status["profile"], status["mountpoint"], status["state"]) == ("data", str(machine.mountpoint), "healthy")
    assert {"profile": "data", "state": "healthy"}.items() <= status["primary"].items()
    assert [(replica["profile"], replica["read_priority"]) for replica in status["replicas"]] == [
        ("near", 1),
        ("far", 2),
    ]
    wanted = {"state", "hits", "bytes_read", "errors", "pending", "oldest_pending_seconds"}
    assert all(wanted < set(replica) for replica in status["replicas"])
    assert set(status["cache"]) == {"bytes", "limit", "hits", "misses", "evictions"}
    assert set(status["staging"]) == {"files", "bytes"}
    assert "pending" in status["journal"]
    listed = json.loads(machine.run("status", "--json").stdout)
    assert machine.status()["pid"] in {mount["pid"] for mount in listed}
    assert str(machine.mountpoint) in machine.run("status", machine.mountpoint).stdout


def test_a_mount_that_does_not_answer_is_reported_not_waited_for(machine):
    machine.mount()
    [record] = machine.daemons()
    os.kill(record["pid"], signal.SIGSTOP)
    try:
        assert machine.status()["state"] == "unresponsive"
        assert "unresponsive" in machine.run("status", machine.mountpoint).stdout
    finally:
        os.kill(record["pid"], signal.SIGCONT)


def test_a_mount_that_was_killed_is_told_until_its_mountpoint_is_gone(machine):
    machine.mount()
    [record] = machine.daemons()
    os.kill(record["pid"], signal.SIGKILL)
    wait_until(lambda: not is_running(record["pid"]))
    told = machine.status()
    assert (told["state"], told["profile"], told["pid"]) == ("dead", "data", record["pid"])
    assert machine.states() == ["dead"]
    shown = machine.run("status").stdout
    assert "dead" in shown
    assert "`mscfs mount` mounts it anew" in shown
    metrics = machine.run("metrics").stdout
    assert f'mscfs_mount_state{{mountpoint="{machine.mountpoint}",profile="data",state="dead"}} 1.0' in metrics
    machine.mount()
    assert machine.states() == ["healthy"]
    machine.run("umount", machine.mountpoint)
    assert machine.states() == []


def test_W4_umount_says_what_is_not_on_the_primary(machine):
    machine.mount()
    file = (machine.mountpoint / "a").open("wb", buffering=0)
    file.write(b"1")
    machine.store("primary").rename(machine.root / "elsewhere")
    with pytest.raises(OSError, match="Input/output error"):
        file.close()
    done = machine.run("umount", machine.mountpoint)
    assert (done.returncode, "1 contents are not on the primary: `mscfs recover list data`" in done.stderr) == (0, True)


def test_L5_log_and_directories_are_private(machine):
    machine.mount()
    [log] = (machine.root / "state" / "mscfs" / "log").iterdir()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    for directory in ("state", "cache", "run"):
        assert stat.S_IMODE((machine.root / directory / "mscfs").stat().st_mode) == 0o700


def test_the_foreground_tells_systemd(machine):
    path = machine.root / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(path))
        notified.settimeout(30)
        with subprocess.Popen(
            [sys.executable, "-m", "mscfs.cli.main", "mount", "--foreground", "data", str(machine.mountpoint)],
            env={**machine.environment, "NOTIFY_SOCKET": str(path)},
            stderr=subprocess.PIPE,
        ) as process:
            try:
                assert b"READY=1" in notified.recv(4096)
                assert machine.is_mounted()
                process.send_signal(signal.SIGTERM)
                assert b"STOPPING=1" in notified.recv(4096)
                process.communicate(timeout=30)
            finally:
                process.kill()
    assert process.returncode == 0
    assert mounted_at(machine.mountpoint) is None


def test_the_mount_helper_mounts(machine):
    helper = "mscfs.cli.mount_helper"
    arguments = ["msc://data/", machine.mountpoint, "-f", "-v", "-o", "rw,nofail,_netdev"]
    pretended = machine.run(*arguments, module=helper)
    assert (pretended.returncode, machine.is_mounted()) == (0, False)
    done = machine.run("data", machine.mountpoint, "-o", "ro,nofail,_netdev", module=helper)
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.status()["read_only"] is True


def test_mount_of_type_fuse_mscfs(machine):
    done = machine.run("data", machine.mountpoint, "-o", "rw,dev,suid")
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.is_mounted()


def test_the_log_of_a_mount_that_runs_on_is_put_aside_when_it_is_large_also_by_its_workers(machine):
    (machine.store("primary") / "a").write_text("content")
    machine.mount("--verbose")
    (log,) = (machine.root / "state" / "mscfs" / "log").iterdir()
    os.truncate(log, 17 << 20)
    assert (machine.mountpoint / "a").read_text() == "content"
    wait_until(lambda: log.stat().st_size < 1 << 20 and " DEBUG mscfs-" in log.read_text())
    assert machine.run("umount", machine.mountpoint).returncode == 0
    assert sorted(path.name for path in log.parent.iterdir()) == [log.name, f"{log.name}.1"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in log.parent.iterdir()} == {0o600}
    assert log.stat().st_size < 1 << 20
    assert log.with_name(f"{log.name}.1").stat().st_size < 18 << 20
