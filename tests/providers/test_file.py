from __future__ import annotations

import contextlib
import errno
import logging
import multiprocessing
import os
import random
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path

import pytest

from mscfs.errors import (
    AlreadyExistsError,
    ConfigError,
    DirectoryNotEmptyError,
    InvalidKeyError,
    IsADirectoryKeyError,
    NotADirectoryKeyError,
    NotFoundError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers import beneath
from mscfs.providers.base import StorageProvider
from mscfs.providers.file import FileProvider
from mscfs.providers.file_draft import draft_name
from mscfs.types import STAMP_KEY, Version
from tests.providers.contract import ProviderContract, body, exists, keys
from tests.providers.sources import PiecesReader, failing_reader

OLD = 1_600_000_000_123_456_789


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(b"secret")
    return path


@pytest.fixture
def provider(base: Path) -> StorageProvider:
    return FileProvider(profile="disk", options={"base_path": str(base)})


@pytest.fixture
def without_unnamed_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system on which every draft has a hidden name."""
    real = os.open

    def limited(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.ENOTSUP, "no unnamed files")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", limited)


@pytest.fixture
def without_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without extended attributes."""

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOTSUP, "no attributes")

    for name in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.setattr(os, name, refuse)


def descriptors(below: Path) -> int:
    """How many are open of files below a directory: other tests' clients close theirs when they like."""
    places = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            places.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(place.startswith(str(below)) for place in places)


def stamp(modified_ns: int = OLD) -> dict[str, str]:
    return {STAMP_KEY: Version(1, "tag", modified_ns).stamp()}


class TestFileProvider(ProviderContract):
    pass


@pytest.mark.usefixtures("without_unnamed_files")
class TestFileProviderWithoutUnnamedFiles(ProviderContract):
    pass


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on another device than `tmp_path`, which `tmp_path / "base"` leads to as if it were mounted there."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        assert Path(place).stat().st_dev != tmp_path.stat().st_dev
        (tmp_path / "mountpoint").mkdir()
        (tmp_path / "base").symlink_to(place)
        yield Path(place)


class TestEmptiedMountpoint:
    """The disk is not mounted any more: its mountpoint is there, and empty."""

    def provider(self, tmp_path: Path) -> FileProvider:
        return FileProvider(profile="disk", options={"base_path": str(tmp_path / "base")})

    def lead_to(self, tmp_path: Path, place: Path) -> None:
        (tmp_path / "base").unlink()
        (tmp_path / "base").symlink_to(place)

    def test_L6_it_is_no_store_whose_objects_were_deleted(self, tmp_path: Path, disk: Path) -> None:
        provider = self.provider(tmp_path)
        provider.put("k", b"1")
        assert keys(provider.list()) == ["k"]
        self.lead_to(tmp_path, tmp_path / "mountpoint")
        for store in (provider, self.provider(tmp_path)):  # this process, and a later one
            calls: list[Callable[[], object]] = [
                store.probe,
                lambda store=store: store.head("k"),
                lambda store=store: list(store.list()),
                lambda store=store: store.put("new", b"1"),
                lambda store=store: store.delete("k"),
            ]
            for call in calls:
                with pytest.raises(StoreMissingError, match="is the disk mounted"):
                    call()
        assert not any((tmp_path / "mountpoint").iterdir())
        self.lead_to(tmp_path, disk)
        assert body(provider, "k") == b"1"

    def test_L6_one_that_was_emptied_on_purpose_is_empty(self, tmp_path: Path, disk: Path) -> None:
        provider = self.provider(tmp_path)
        provider.put("k", b"1")
        provider.delete("k")
        assert keys(self.provider(tmp_path).list()) == []
        disk.rmdir()
        disk.mkdir()  # made anew, on the same device
        assert keys(provider.list()) == []

    def test_L6_a_new_disk_counts_once_something_is_on_it(self, tmp_path: Path, disk: Path) -> None:
        self.provider(tmp_path).put("k", b"1")
        new = tmp_path / "mountpoint"
        self.lead_to(tmp_path, new)
        (new / ".keep").touch()
        provider = self.provider(tmp_path)
        provider.put("l", b"1")
        (new / ".keep").unlink()
        assert keys(provider.list()) == ["l"]
        provider.delete("l")
        assert keys(self.provider(tmp_path).list()) == []

    def test_L6_an_empty_disk_where_none_was_before_is_a_store(self, tmp_path: Path, disk: Path) -> None:
        self.lead_to(tmp_path, tmp_path / "mountpoint")
        assert keys(self.provider(tmp_path).list()) == []
        self.lead_to(tmp_path, disk)
        provider = self.provider(tmp_path)
        provider.put("k", b"1")
        assert keys(provider.list()) == ["k"]

    def test_L6_without_a_state_directory_the_process_remembers(
        self, tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")
        provider = self.provider(tmp_path)
        provider.put("k", b"1")
        assert keys(provider.list()) == ["k"]
        self.lead_to(tmp_path, tmp_path / "mountpoint")
        with pytest.raises(StoreMissingError):
            provider.probe()


class TestBase:
    def test_L6_an_absent_base_is_down_and_never_made(self, tmp_path: Path) -> None:
        absent = tmp_path / "absent"
        provider = FileProvider(profile="disk", options={"base_path": str(absent)})
        calls: list[Callable[[], object]] = [
            provider.probe,
            provider.space,
            lambda: provider.get("k"),
            lambda: provider.head("k"),
            lambda: provider.put("k", b"1"),
            lambda: provider.put("d/k", b"1", if_absent=True),
            lambda: provider.put("d/k", b"1", expected=Version(1, "x")),
            lambda: provider.start_upload("k"),
            lambda: provider.copy("k", "l"),
            lambda: provider.rename("k", "l"),
            lambda: provider.delete("k"),
            lambda: list(provider.list()),
            lambda: list(provider.list_directory("")),
            lambda: provider.has_directory("d/"),
            lambda: provider.make_directory("d/"),
            lambda: provider.remove_directory("d/"),
            lambda: provider.set_metadata("k", {}),
            lambda: provider.make_symlink("k", "l"),
            lambda: provider.set_posix_attributes("k", mode=0o600),
        ]
        for call in calls:
            with pytest.raises(StoreMissingError):
                call()
            assert not absent.exists()

    def test_L6_a_base_that_vanishes_and_returns(self, provider: StorageProvider, base: Path) -> None:
        provider.put("k", b"1")
        away = base.with_name("away")
        base.rename(away)
        with pytest.raises(StoreMissingError):
            provider.put("k", b"2")
        away.rename(base)
        assert body(provider, "k") == b"1"

    def test_L6_a_stale_handle_of_a_network_file_system_is_no_changed_object(
        self, provider: StorageProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def stale(*_: object, **__: object) -> int:
            raise OSError(errno.ESTALE, "stale")

        provider.put("k", b"1")
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", stale)
            with pytest.raises(StoreUnavailableError):
                provider.head("k")

    def test_base_may_be_reached_through_a_link(self, base: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(base)
        provider = FileProvider(profile="disk", options={"base_path": str(tmp_path / "link")})
        provider.put("d/k", b"1")
        assert body(provider, "d/k") == b"1"
        assert keys(provider.list()) == ["d/k"]

    def test_the_root_can_be_the_base(self, base: Path) -> None:
        provider = FileProvider(profile="__filesystem__", options={"base_path": "/"})
        key = str(base / "d/k").removeprefix("/")
        provider.put(key, b"1")
        assert body(provider, key) == b"1"
        assert keys(provider.list(str(base).removeprefix("/"))) == [key]

    def test_a_relative_base_is_a_configuration_error(self) -> None:
        with pytest.raises(ConfigError, match=r"disk.*absolute"):
            FileProvider(profile="disk", options={"base_path": "data"})


class TestConfinement:
    @pytest.mark.parametrize(
        "key",
        [
            *("../x", "/x", "a//b", "a/./b", "a/../b", "a/..", ".", "..", "nul\0"),
            pytest.param(draft_name(), id="draft"),
            pytest.param(f"{draft_name()}/x", id="below a draft"),
        ],
    )
    def test_L5_keys_that_are_no_paths_below_are_refused(self, provider: StorageProvider, key: str) -> None:
        calls: list[Callable[[], object]] = [
            lambda: provider.get(key),
            lambda: provider.head(key),
            lambda: provider.put(key, b"1"),
            lambda: provider.start_upload(key),
            lambda: provider.delete(key),
            lambda: provider.copy(key, "k"),
            lambda: provider.copy("k", key),
            lambda: provider.rename(key, "k"),
            lambda: provider.rename("k", key),
            lambda: provider.make_directory(key + "/"),
            lambda: provider.remove_directory(key + "/"),
            lambda: provider.has_directory(key + "/"),
            lambda: list(provider.list_directory(key + "/")),
            lambda: provider.set_metadata(key, {}),
            lambda: provider.make_symlink(key, "k"),
            lambda: provider.set_posix_attributes(key, mode=0o600),
        ]
        provider.put("k", b"1")
        for call in calls:
            with pytest.raises(InvalidKeyError):
                call()
        assert keys(provider.list(key)) == []
        assert keys(provider.list()) == ["k"]

    def test_L5_links_that_lead_outside_are_never_followed(
        self, provider: StorageProvider, base: Path, outside: Path
    ) -> None:
        (base / "to-file").symlink_to(outside / "secret")
        (base / "to-directory").symlink_to("../outside")
        (base / "d").mkdir()
        (base / "d/up").symlink_to("../..")
        (base / "proc").symlink_to("/proc/self/root")
        for key in ("to-file", "to-directory/secret", "d/up/outside/secret", f"proc{outside}/secret"):
            with pytest.raises(NotFoundError):
                provider.get(key)
        for key in ("to-directory/secret", "d/up/outside/secret"):
            with pytest.raises(NotFoundError):
                provider.head(key)
            with pytest.raises((NotFoundError, NotADirectoryKeyError)):
                provider.put(key, b"overwritten")
            with pytest.raises((NotFoundError, NotADirectoryKeyError)):
                provider.make_symlink(key, "x")
            with pytest.raises((NotFoundError, NotADirectoryKeyError)):
                provider.make_directory(key + "-directory/")
            with pytest.raises(NotFoundError):
                provider.copy(key, "stolen")
            with pytest.raises(NotFoundError):
                provider.set_metadata(key, {"a": "b"})
            with pytest.raises(NotFoundError):
                provider.set_posix_attributes(key, mode=0o777)
            provider.delete(key)
        with pytest.raises(NotADirectoryKeyError):
            provider.remove_directory("to-directory/")
        assert not provider.has_directory("to-directory/")
        assert keys(provider.list_directory("to-directory/")) == []
        assert keys(provider.list()) == ["d/up", "proc", "to-directory", "to-file"]
        assert keys(provider.list("to-directory/")) == []
        assert {entry.type for entry in provider.list()} == {"symlink"}
        assert [path.name for path in outside.iterdir()] == ["secret"]
        assert (outside / "secret").read_bytes() == b"secret"

    def test_L5_a_link_that_leads_outside_is_replaced_not_written_through(
        self, provider: StorageProvider, base: Path, outside: Path
    ) -> None:
        (base / "k").symlink_to(outside / "secret")
        provider.put("k", b"mine")
        assert not (base / "k").is_symlink()
        assert (outside / "secret").read_bytes() == b"secret"

    @pytest.mark.parametrize("seconds", [-(10**9), 10**10, 10**12, -(2**40)])
    def test_L5_a_time_that_no_clock_tells_breaks_nothing(
        self, provider: StorageProvider, base: Path, seconds: int
    ) -> None:
        provider.put("d/other", b"1")
        provider.put("d/k", b"1")
        # Some file systems keep any time, others the nearest that they can.
        os.utime(base / "d/k", ns=(seconds * 10**9, seconds * 10**9))
        os.utime(base / "d", ns=(seconds * 10**9, seconds * 10**9))
        assert keys(provider.list()) == keys(provider.list_directory("d/")) == ["d/k", "d/other"]
        (page,) = provider.list_pages("d/")
        assert sorted(page.names) == [b"k", b"other"]
        assert provider.head("d/k").version == provider.get("d/k").metadata.version
        assert provider.head_directory("d/").is_directory
        assert Version.from_stamp(provider.head("d/k").version.stamp()) == provider.head("d/k").version
        provider.put("d/k", b"2", expected=provider.head("d/k").version)

    def test_L5_a_sibling_with_the_same_beginning_is_outside(self, provider: StorageProvider, base: Path) -> None:
        sibling = base.with_name("base-2")
        sibling.mkdir()
        (sibling / "secret").write_bytes(b"secret")
        (base / "k").symlink_to(sibling / "secret")
        with pytest.raises(NotFoundError):
            provider.get("k")

    def test_get_follows_links_that_stay_inside(self, provider: StorageProvider, base: Path) -> None:
        provider.put("d/real", b"1")
        (base / "relative").symlink_to("d/real")
        (base / "absolute").symlink_to(base / "d/real")
        (base / "chain").symlink_to("relative")
        (base / "directory").symlink_to("d")
        for key in ("relative", "absolute", "chain", "directory/real"):
            assert body(provider, key) == b"1"
        assert provider.head("relative").type == "symlink"

    def test_dangling_and_circular_links_are_not_found(self, provider: StorageProvider, base: Path) -> None:
        (base / "dangling").symlink_to("nowhere")
        (base / "circle").symlink_to("circle")
        for key in ("dangling", "circle", "circle/x"):
            with pytest.raises(NotFoundError):
                provider.get(key)
        assert keys(provider.list()) == ["circle", "dangling"]

    def test_special_files_are_left_out_and_never_opened(self, provider: StorageProvider, base: Path) -> None:
        os.mkfifo(base / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            directory = os.open(base, os.O_PATH)
            listener.bind(f"/proc/self/fd/{directory}/socket")
            os.close(directory)
            provider.put("k", b"1")
            assert keys(provider.list()) == ["k"]
            assert keys(provider.list_directory("")) == ["k"]
            for key in ("fifo", "socket"):
                for call in (provider.get, provider.head, lambda key: provider.copy(key, "x")):
                    with pytest.raises(NotFoundError):
                        call(key)

    def test_names_in_the_way(self, provider: StorageProvider) -> None:
        provider.put("file", b"1")
        provider.put("d/x", b"1")
        with pytest.raises(NotADirectoryKeyError):
            provider.put("file/x", b"1")
        with pytest.raises(NotADirectoryKeyError):
            provider.make_directory("file/x/")
        for call in (provider.put, provider.make_symlink):
            with pytest.raises(IsADirectoryKeyError):
                call("d", b"1" if call == provider.put else "x")
        with pytest.raises(IsADirectoryKeyError):
            provider.copy("file", "d")
        with pytest.raises(IsADirectoryKeyError):
            provider.put("d", b"1", if_absent=True)
        with pytest.raises(NotFoundError):
            provider.get("file/x")
        provider.delete("d")
        provider.delete("file/x")
        assert keys(provider.list()) == ["d/x", "file"]

    def test_N3_names_that_are_not_utf8_round_trip(self, provider: StorageProvider, base: Path) -> None:
        raw = b"d\xff/\xfe \x80"
        key = os.fsdecode(raw)
        provider.put(key, b"1", metadata={"a": "b"})
        assert os.listdir(os.path.join(os.fsencode(base), b"d\xff")) == [b"\xfe \x80"]
        assert body(provider, key) == b"1"
        assert keys(provider.list()) == [key]
        assert keys(provider.list_directory(os.fsdecode(b"d\xff/"))) == [key]
        provider.copy(key, os.fsdecode(b"\xe9"))
        assert body(provider, os.fsdecode(b"\xe9")) == b"1"


class TestDrafts:
    @pytest.fixture(params=["unnamed", "named"], autouse=True)
    def _kind(self, request: pytest.FixtureRequest) -> None:
        if request.param == "named":
            request.getfixturevalue("without_unnamed_files")

    def test_W3_a_killed_writer_leaves_no_object(self, provider: StorageProvider, base: Path) -> None:
        provider.put("d/k", b"old")

        class Killing(PiecesReader):
            def _pieces(self) -> Iterator[bytes]:
                yield bytes(1000)
                os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            try:
                provider.put("d/k", Killing(size=2000))
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert body(provider, "d/k") == b"old"
        assert keys(provider.list()) == ["d/k"]
        assert keys(provider.list_directory("d/")) == ["d/k"]
        provider.delete("d/k")
        provider.remove_directory("d/")
        assert os.listdir(base) == []

    def test_drafts_are_never_listed(self, provider: StorageProvider, base: Path) -> None:
        upload = provider.start_upload("d/k")
        upload.put_part(1, b"1")
        assert keys(provider.list()) == []
        assert keys(provider.list_directory("d/")) == []
        upload.abort()
        assert os.listdir(base / "d") == []

    def test_a_failure_leaves_no_draft(self, provider: StorageProvider, base: Path) -> None:
        provider.put("d/k", b"1")
        with pytest.raises(StoreUnavailableError):
            provider.put("d/k", failing_reader(b"2"))
        with pytest.raises(AlreadyExistsError):
            provider.put("d/k", b"2", if_absent=True)
        with pytest.raises(VersionMismatchError):
            provider.put("d/k", b"2", expected=Version(1, "x"))
        assert os.listdir(base / "d") == ["k"]

    def test_a_directory_with_a_draft_in_use_is_not_swept(self, provider: StorageProvider, base: Path) -> None:
        upload = provider.start_upload("d/k")
        upload.put_part(1, b"1")
        named = bool(os.listdir(base / "d"))
        if named:
            with pytest.raises(DirectoryNotEmptyError):
                provider.remove_directory("d/")
            upload.complete()
            assert body(provider, "d/k") == b"1"
        else:
            provider.remove_directory("d/")
            with pytest.raises(StoreUnavailableError, match="removed"):
                upload.complete()
            upload.abort()

    def test_expected_makes_no_directories(self, provider: StorageProvider, base: Path) -> None:
        with pytest.raises(VersionMismatchError):
            provider.put("a/b/c", b"1", expected=Version(1, "x"))
        assert os.listdir(base) == []

    def test_no_descriptor_is_left_open(self, provider: StorageProvider, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.write_bytes(b"local")
        before = descriptors(tmp_path)
        for _ in range(3):
            put = provider.put("d/k", local)
            provider.put("d/k", b"1", expected=put.version)
            for failing in (
                lambda: provider.put("d/k", failing_reader(b"2")),
                lambda: provider.put("d/k", b"1", if_absent=True),
                lambda: provider.put("d/k/x", b"1"),
                lambda: provider.put("d", b"1"),
                lambda: provider.get("d/k", expected=Version(1, "x")),
                lambda: provider.get("d"),
                lambda: provider.head("no/such"),
                lambda: provider.copy("no/such", "x"),
                lambda: provider.rename("no/such", "x"),
                lambda: provider.remove_directory("d/"),
                lambda: provider.delete("d/k", expected=Version(1, "x")),
                lambda: provider.set_metadata("d/k", {}, expected=Version(1, "x")),
            ):
                with pytest.raises(OSError, match=r"."):
                    failing()
            assert body(provider, "d/k") == b"1"
            provider.get("d/k")
            provider.copy("d/k", "e/k")
            provider.rename("e/k", "f/k")
            next(provider.list())
            next(provider.list_directory("d/"))
            assert len(keys(provider.list())) == 2
            for end in ("complete", "abort"):
                upload = provider.start_upload("u")
                for number in (2, 1):
                    upload.put_part(number, b"1")
                getattr(upload, end)()
            provider.delete("u")
            provider.make_directory("g/h/")
            provider.make_symlink("l", "x")
            provider.set_metadata("d/k", {"a": "b"})
            provider.set_posix_attributes("d/k", mode=0o600)
            provider.delete("l")
            provider.delete("f/k")
            assert provider.has_directory("g/h/")
            assert not provider.has_directory("g/i/")
        assert descriptors(tmp_path) == before

    def test_an_upload_takes_few_descriptors(self, provider: StorageProvider, tmp_path: Path) -> None:
        before = descriptors(tmp_path)
        upload = provider.start_upload("k")
        for number in range(200, 0, -1):
            upload.put_part(number, b"%03d" % number)
        assert descriptors(tmp_path) - before <= 2
        upload.complete()
        assert body(provider, "k") == b"".join(b"%03d" % number for number in range(1, 201))


class TestAttributes:
    def test_new_files_and_directories_follow_the_umask(self, provider: StorageProvider, base: Path) -> None:
        before = os.umask(0o027)
        try:
            provider.put("d/k", b"1")
            provider.make_directory("e/")
        finally:
            os.umask(before)
        assert stat.S_IMODE((base / "d/k").stat().st_mode) == 0o640
        assert stat.S_IMODE((base / "d").stat().st_mode) == 0o750
        assert stat.S_IMODE((base / "e").stat().st_mode) == 0o750

    def test_an_overwritten_file_keeps_mode_owner_and_xattrs_but_no_metadata(
        self, provider: StorageProvider, base: Path
    ) -> None:
        provider.put("k", b"1", metadata={"a": "b"})
        os.setxattr(base / "k", "user.other", b"x")
        (base / "k").chmod(0o4701)
        if os.geteuid() == 0:
            os.chown(base / "k", 1234, 4321)
        provider.put("k", b"2")
        status = (base / "k").stat()
        assert stat.S_IMODE(status.st_mode) == 0o701
        if os.geteuid() == 0:
            assert (status.st_uid, status.st_gid) == (1234, 4321)
        assert os.listxattr(base / "k") == ["user.other"]

    def test_a_secret_file_is_secret_while_it_is_replaced(self, provider: StorageProvider, base: Path) -> None:
        provider.put("k", b"1")
        (base / "k").chmod(0o600)
        modes = []

        class Watching(PiecesReader):
            def _pieces(self) -> Iterator[bytes]:
                yield b"2"
                for number in os.listdir("/proc/self/fd"):
                    try:
                        name, status = os.readlink(f"/proc/self/fd/{number}"), os.fstat(int(number))
                    except OSError:
                        continue
                    if name.startswith(str(base)) and stat.S_ISREG(status.st_mode):
                        modes.append(stat.S_IMODE(status.st_mode))

        provider.put("k", Watching(size=1))
        assert modes == [0o600]

    def test_N3_a_path_of_a_thousand_and_more_directories_is_made(self, provider: StorageProvider, base: Path) -> None:
        key = "a/" * 1200 + "k"
        try:
            provider.put(key, b"1")
            assert body(provider, key) == b"1"
        finally:
            subprocess.run(["rm", "-r", base / "a"], check=True)  # Python's own ways are recursive

    def test_R4_a_copy_has_the_time_of_its_primary(self, provider: StorageProvider, base: Path) -> None:
        put = provider.put("k", b"1", metadata=stamp())
        assert (base / "k").stat().st_mtime_ns == OLD
        assert put.modified_ns == OLD
        assert provider.head("k").stamped_version == Version(1, "tag", OLD)

    def test_R4_the_stamp_of_a_copy_that_was_changed_in_place_counts_no_more(
        self, provider: StorageProvider, base: Path
    ) -> None:
        provider.put("k", b"1", metadata={**stamp(), "a": "b"})
        (base / "k").write_bytes(b"2")
        assert provider.head("k").metadata == {STAMP_KEY: "", "a": "b"}
        with provider.get("k") as answer:
            assert answer.metadata.stamped_version is None

    @pytest.mark.usefixtures("without_attributes")
    def test_R4_without_attributes_only_the_time_is_kept_and_the_log_says_so_once(
        self, provider: StorageProvider, base: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.WARNING):
            for key in ("k", "l"):
                put = provider.put(key, b"1", metadata=stamp())
                assert put.metadata == {}
                assert provider.head(key).metadata == {}
                assert (base / key).stat().st_mtime_ns == OLD
        assert len([record for record in caplog.records if "extended attributes" in record.message]) == 1

    def test_R4_a_copy_on_a_file_system_with_coarse_times_is_not_older_than_its_primary(
        self, provider: StorageProvider, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.utime

        def coarse(path: int, *, ns: tuple[int, int]) -> None:
            real(path, ns=(ns[0], ns[1] // 2_000_000_000 * 2_000_000_000))

        monkeypatch.setattr(os, "utime", coarse)
        provider.put("k", b"1", metadata=stamp())
        assert 0 <= (base / "k").stat().st_mtime_ns - OLD < 2_000_000_000
        assert provider.head("k").stamped_version == Version(1, "tag", OLD)

    def test_L5_metadata_that_somebody_else_wrote_are_ignored(self, provider: StorageProvider, base: Path) -> None:
        provider.put("k", b"1")
        for wrong in (b"", b"[1]", b"{", b"\xff", b"null", b"[" * 3000, b'{"a": "\\ud800"}', b'{"\\udcff": "a"}'):
            os.setxattr(base / "k", "user.mscfs.metadata", wrong)
            assert provider.head("k").metadata == {}

    def test_listings_carry_posix_attributes(self, provider: StorageProvider, base: Path) -> None:
        provider.put("d/k", b"1")
        (base / "d/k").chmod(0o604)
        os.utime(base / "d/k", ns=(1, OLD))
        for found in (*provider.list(), *provider.list_directory("d/"), provider.head("d/k")):
            assert (found.mode, found.uid, found.gid) == (0o604, os.geteuid(), os.getegid())
            assert found.modified_ns == OLD
        (directory,) = provider.list_directory("")
        assert directory.mode == stat.S_IMODE((base / "d").stat().st_mode)
        assert provider.head_directory("d/").mode == directory.mode

    def test_W5_attributes_are_set_on_the_version_they_are_meant_for_or_on_none(
        self, provider: StorageProvider, base: Path
    ) -> None:
        before = provider.put("k", b"one").version
        now = provider.put("k", b"two").version
        mode = (base / "k").stat().st_mode
        with pytest.raises(VersionMismatchError):
            provider.set_posix_attributes("k", mode=0o611, modified_ns=OLD, expected=before)
        assert (provider.head("k").version, (base / "k").stat().st_mode) == (now, mode)
        assert provider.set_posix_attributes("k", mode=0o611, modified_ns=OLD, expected=now).mode == 0o611

    def test_W9_set_posix_attributes(self, provider: StorageProvider, base: Path) -> None:
        provider.put("k", b"1")
        changed = provider.set_posix_attributes("k", mode=0o600, modified_ns=OLD)
        assert (changed.mode, changed.modified_ns) == (0o600, OLD)
        assert provider.head("k").version == changed.version
        provider.make_directory("d/")
        assert provider.set_posix_attributes("d/", mode=0o711, modified_ns=OLD).modified_ns == OLD
        assert stat.S_IMODE((base / "d").stat().st_mode) == 0o711
        provider.make_symlink("l", "k")
        provider.set_posix_attributes("l", mode=0o777, modified_ns=OLD + 5)
        assert (base / "l").lstat().st_mtime_ns == OLD + 5
        assert (base / "k").stat().st_mtime_ns == OLD
        assert stat.S_IMODE((base / "k").stat().st_mode) == 0o600
        if os.geteuid() == 0:
            assert provider.set_posix_attributes("l", uid=77).uid == 77
            assert provider.set_posix_attributes("k", gid=78).gid == 78
            assert provider.head("k").uid == 0
        with pytest.raises(NotFoundError):
            provider.set_posix_attributes("no", mode=0o600)
        with pytest.raises(NotFoundError):
            provider.set_posix_attributes("k/", mode=0o600)

    def test_N4_space_is_the_disks(self, provider: StorageProvider, base: Path) -> None:
        found = os.statvfs(base)
        space = provider.space()
        assert space is not None
        assert space.total_bytes == found.f_blocks * found.f_frsize
        assert space.total_files == found.f_files


class TestChanges:
    def test_R1_a_file_changed_in_place_is_never_a_mixture(self, provider: StorageProvider, base: Path) -> None:
        provider.put("k", b"a" * (3 << 20))
        with provider.get("k") as answer:
            pieces = iter(answer)
            assert next(pieces) == b"a" * (1 << 20)
            with (base / "k").open("r+b") as file:
                file.write(b"b" * (3 << 20))
            with pytest.raises(VersionMismatchError):
                next(pieces)

    def test_R1_a_replaced_file_is_read_to_its_end(self, provider: StorageProvider) -> None:
        provider.put("k", b"a" * (3 << 20))
        with provider.get("k") as answer:
            pieces = iter(answer)
            first = next(pieces)
            provider.put("k", b"b")
            provider.delete("k")
            assert bytes(first) + b"".join(pieces) == b"a" * (3 << 20)

    def test_quick_overwrites_never_share_a_version(self, provider: StorageProvider) -> None:
        tokens = [provider.put("k", b"1").version.token for _ in range(200)]
        assert len(set(tokens)) == len(tokens)

    def test_overwrites_on_a_file_system_with_coarse_times_never_share_a_version(
        self, provider: StorageProvider, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = os.utime

        def coarse(path: int, *, ns: tuple[int, int]) -> None:
            real(path, ns=(ns[0], ns[1] // 1_000_000_000 * 1_000_000_000))

        monkeypatch.setattr(os, "utime", coarse)
        tokens = [provider.put("k", b"1").version.token for _ in range(20)]
        assert len(set(tokens)) == len(tokens)

    def test_a_time_far_in_the_future_is_not_carried_on(self, provider: StorageProvider, base: Path) -> None:
        provider.put("k", b"1")
        future = 4_000_000_000_000_000_000
        os.utime(base / "k", ns=(future, future))
        assert provider.put("k", b"2").modified_ns < future

    def test_a_copy_of_an_older_version_keeps_its_time(self, provider: StorageProvider) -> None:
        provider.put("k", b"1", metadata=stamp(OLD))
        assert provider.put("k", b"2", metadata=stamp(OLD - 5)).modified_ns == OLD - 5

    def test_W5_increments_by_threads_and_processes_are_never_lost(self, provider: StorageProvider, base: Path) -> None:
        provider.put("n", b"0")
        workers = [multiprocessing.get_context("fork").Process(target=_increment, args=(base, 15)) for _ in range(2)]
        for worker in workers:
            worker.start()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda _: _increment(base, 15), range(2)))
        for worker in workers:
            worker.join(60)
            assert worker.exitcode == 0
        assert body(provider, "n") == b"60"

    def test_a_lock_that_is_never_given_back_ends_in_a_timeout(
        self, provider: StorageProvider, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(beneath, "_LOCK_PATIENCE", 0.05)
        provider.put("k", b"1")
        descriptor = os.open(base, os.O_RDONLY)
        with beneath.locked(descriptor, store="other"), pytest.raises(StoreTimeoutError):
            provider.put("k", b"2")
        os.close(descriptor)
        provider.put("k", b"3")
        assert body(provider, "k") == b"3"

    def test_copy_works_where_the_kernel_cannot(
        self, provider: StorageProvider, base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*arguments: object, **more: object) -> int:
            raise OSError(errno.EXDEV, "other file system")

        monkeypatch.setattr(os, "copy_file_range", refuse)
        content = random.Random(1).randbytes(3 << 20)
        provider.put("k", content)
        provider.copy("k", "l")
        assert body(provider, "l") == content

    def test_copy_keeps_the_mode_of_a_program(self, provider: StorageProvider, base: Path) -> None:
        provider.put("k", b"1")
        (base / "k").chmod(0o755)
        assert provider.copy("k", "new").mode == 0o755
        provider.put("old", b"1")
        (base / "old").chmod(0o600)
        assert provider.copy("k", "old").mode == 0o600

    def test_W7_rename_keeps_the_version_and_replaces(self, provider: StorageProvider) -> None:
        put = provider.put("a", b"1", metadata={"m": "1"})
        provider.put("d/b", b"old")
        renamed = provider.rename("a", "d/b", expected=put.version)
        assert renamed.key == "d/b"
        assert renamed.version == put.version
        assert renamed.metadata == {"m": "1"}
        assert keys(provider.list()) == ["d/b"]
        provider.rename("d/b", "d/c")
        provider.rename("d/c", "d/c")
        assert keys(provider.list()) == ["d/c"]

    def test_W7_rename_conditions(self, provider: StorageProvider) -> None:
        provider.put("a", b"1")
        provider.put("b", b"2")
        provider.put("d/x", b"3")
        with pytest.raises(AlreadyExistsError):
            provider.rename("a", "b", if_absent=True)
        with pytest.raises(VersionMismatchError):
            provider.rename("a", "c", expected=Version(1, "x"))
        with pytest.raises(NotFoundError):
            provider.rename("no", "c")
        with pytest.raises(NotFoundError):
            provider.rename("no/such", "c")
        for target in ("d", "c"):
            with pytest.raises((IsADirectoryKeyError, NotFoundError)):
                provider.rename("d" if target == "c" else "a", target)
        assert keys(provider.list()) == ["a", "b", "d/x"]

    def test_W7_renames_in_opposite_directions_never_wait_for_each_other(self, provider: StorageProvider) -> None:
        provider.put("a/k", b"1")
        provider.put("b/l", b"2")

        def swing(source: str, target: str) -> None:
            for _ in range(50):
                provider.rename(source, target)
                provider.rename(target, source)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(swing, ["a/k", "b/l"], ["b/k", "a/l"]))
        assert keys(provider.list()) == ["a/k", "b/l"]

    def test_delete_keeps_directories(self, provider: StorageProvider) -> None:
        provider.put("d/e/k", b"1")
        provider.delete("d/e/k")
        assert provider.has_directory("d/e/")

    def test_a_file_that_vanishes_during_a_listing_is_left_out(self, provider: StorageProvider, base: Path) -> None:
        for key in ("a", "b", "c/x", "d"):
            provider.put(key, b"1")
        listing = provider.list()
        assert next(listing).key == "a"
        provider.delete("b")
        provider.delete("c/x")
        provider.remove_directory("c/")
        assert keys(listing) == ["d"]

    def test_list_of_random_trees_is_sorted_like_an_object_store(self, provider: StorageProvider) -> None:
        chooser = random.Random(42)
        names = ["a", "b", "a-", "a.b", "a0", "B", "é", "\uffee", "😀", "a b", os.fsdecode(b"\xff"), "~"]
        given: set[str] = set()
        for _ in range(150):
            key = "/".join(chooser.choice(names) for _ in range(chooser.randint(1, 4)))
            parents = set(accumulate(key.split("/")[:-1], "{}/{}".format))
            if parents & given or any(other.startswith(key + "/") for other in given):
                continue
            provider.put(key, b"")
            given.add(key)
        ordered = sorted(given, key=os.fsencode)
        assert keys(provider.list()) == ordered
        starts = [*ordered, *(key + "/" for key in ordered), "a", "a/", "a-/", "", "z"]
        for _ in range(200):
            start, prefix = chooser.choice(starts), chooser.choice(ordered)[: chooser.randint(0, 5)]
            expected = [key for key in ordered if key.startswith(prefix) and os.fsencode(key) > os.fsencode(start)]
            assert keys(provider.list(prefix, start_after=start)) == expected

    def test_list_survives_a_deep_tree(self, provider: StorageProvider) -> None:
        key = "/".join(["d"] * 600) + "/k"
        provider.put(key, b"1")
        assert keys(provider.list()) == [key]
        assert exists(provider, key)


def _increment(base: Path, times: int) -> None:
    provider = FileProvider(profile="disk", options={"base_path": str(base)})
    done = 0
    while done < times:
        with provider.get("n") as answer:
            version, value = answer.metadata.version, int(answer.read_all())
        try:
            provider.put("n", str(value + 1).encode(), expected=version)
        except VersionMismatchError:
            continue
        done += 1


def test_a_directory_is_renamed_in_one_step(provider: StorageProvider, base: Path) -> None:
    provider.put("old/deep/a", b"a")
    version = provider.head("old/deep/a").version
    provider.make_directory("new/")
    (base / "new" / draft_name()).write_bytes(b"x")
    provider.rename_directory("old/", "new/")
    assert provider.head("new/deep/a").version == version
    assert not provider.has_directory("old/")


def test_a_directory_replaces_only_an_empty_one(provider: StorageProvider) -> None:
    provider.put("old/a", b"a")
    provider.put("new/b", b"b")
    with pytest.raises(DirectoryNotEmptyError):
        provider.rename_directory("old/", "new/")
    with pytest.raises(NotFoundError):
        provider.rename_directory("gone/", "other/")
    with pytest.raises(InvalidKeyError):
        provider.rename_directory("old/", "../outside/")
    assert provider.head("old/a").content_length == 1
