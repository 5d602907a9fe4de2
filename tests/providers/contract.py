"""What every storage provider promises, wrappers included.

A test class of a provider derives from `ProviderContract` and supplies the fixture `provider` (an empty store for
each test). What a store cannot promise is told by its capabilities, or by the attributes of the class.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import threading
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

from mscfs.errors import (
    AlreadyExistsError,
    DirectoryNotEmptyError,
    IntegrityError,
    InvalidKeyError,
    NoSpaceError,
    NotFoundError,
    StorageError,
    StoreUnavailableError,
    UnsupportedError,
    VersionMismatchError,
)
from mscfs.providers.base import StorageProvider
from mscfs.providers.page import MAYBE_LINK, entries_of
from mscfs.types import ByteRange, ObjectMetadata, Version
from tests.providers.sources import PiecesReader, failing_reader

T = TypeVar("T")

MOST_IN_AN_XATTR = 65536
"""Bytes. Linux takes no more, whatever the file system."""
MIB = 1 << 20
BODY = bytes(range(256)) * 40
NEVER = Version(3, "0123456789abcdef0123456789abcdef")

ODD_KEYS = (
    "o/a b",
    "o/a+b",
    "o/a%b",
    "o/a%20b",
    "o/a%2Fb",
    "o/a&b=c?d#e",
    "o/é",
    "o/e\u0301",
    "o/日本語.txt",
    "o/😀",
    "o/q'\"<>`",
    "o/back\\slash",
    "o/a~b^c|d{e}[f]",
    "o/*",
    "o/:@$,;!()",
    "o/tab\tx",
    "o/new\nline",
    "o/ lead and trail ",
    "o/...",
    "o/.hidden",
    "o d/é %/x",
)
"""Contract N3: names that work byte for byte."""

UNREPRESENTABLE_KEYS = ("p//q", "/lead", "d/../e", "d/./e", ".", "..", "tr//", "x/" + "y" * 256)
"""Contract N2: keys that are no paths. A store may hold them; listings give them as they are or leave them out."""


def keys(entries: Iterable[ObjectMetadata]) -> list[str]:
    return [entry.key for entry in entries]


def body(provider: StorageProvider, key: str, byte_range: ByteRange | None = None) -> bytes:
    with provider.get(key, byte_range) as answer:
        return answer.read_all()


def exists(provider: StorageProvider, key: str) -> bool:
    try:
        provider.head(key)
    except NotFoundError:
        return False
    return True


def in_forked_child(work: Callable[[], None], *, seconds: float = 60) -> None:
    """Run `work` in a forked child; fail when it raises, dies or hangs."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            work()
            os.write(writing, b"ok")
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as report:
        ready, _, _ = select.select([report], [], [], seconds)
        if not ready:
            os.kill(child, signal.SIGKILL)
        message = report.read().decode()
    os.waitpid(child, 0)
    assert ready, f"the forked child hung for {seconds} s"
    assert message == "ok", message


def race(*calls: Callable[[], T]) -> list[T | StorageError]:
    """Run the calls at once, one thread each; their results, or the errors of the store they raised."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | StorageError:
        barrier.wait(timeout=30)
        try:
            return call()
        except StorageError as error:
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


class ReadContract:
    replaced_midway: tuple[type[StorageError], ...] = ()
    """What a read may be told whose version is replaced while it goes on from one source to the next."""

    def test_get_gives_the_whole_object_and_its_metadata(self, provider: StorageProvider) -> None:
        provider.put("a/b", BODY)
        with provider.get("a/b") as answer:
            assert answer.metadata.key == "a/b"
            assert answer.metadata.content_length == len(BODY)
            assert answer.metadata.type == "file"
            assert answer.metadata.last_modified.tzinfo is not None
            assert answer.byte_range == ByteRange(0, len(BODY))
            assert answer.source == provider.profile
            assert answer.read_all() == BODY

    @pytest.mark.parametrize(
        ("offset", "size"), [(0, 1), (10, 10), (0, len(BODY)), (len(BODY) - 5, 5), (len(BODY) - 5, 100), (1, 1 << 40)]
    )
    def test_R7_range_is_clipped_to_the_object(self, provider: StorageProvider, offset: int, size: int) -> None:
        provider.put("k", BODY)
        with provider.get("k", ByteRange(offset, size)) as answer:
            assert answer.metadata.content_length == len(BODY)
            assert answer.byte_range == ByteRange(offset, size).clip(len(BODY))
            assert answer.read_all() == BODY[offset : offset + size]

    @pytest.mark.parametrize(("offset", "size"), [(0, 0), (7, 0), (len(BODY), 10), (len(BODY) + 1, 10), (1 << 40, 1)])
    def test_range_of_nothing_or_past_the_end_is_empty(self, provider: StorageProvider, offset: int, size: int) -> None:
        put = provider.put("k", BODY)
        with provider.get("k", ByteRange(offset, size), expected=put.version) as answer:
            assert answer.metadata.version == put.version
            assert answer.byte_range.size == 0
            assert answer.read_all() == b""

    @pytest.mark.parametrize("byte_range", [None, ByteRange(0, 0), ByteRange(0, 10), ByteRange(10, 10)])
    def test_empty_object_reads_empty(self, provider: StorageProvider, byte_range: ByteRange | None) -> None:
        put = provider.put("empty", b"")
        with provider.get("empty", byte_range, expected=put.version) as answer:
            assert answer.metadata.version == put.version
            assert answer.read_all() == b""

    def test_large_object_arrives_in_bounded_pieces(self, provider: StorageProvider) -> None:
        content = os.urandom(9 * MIB + 1)
        provider.put("large", content)
        with provider.get("large") as answer:
            pieces = [bytes(piece) for piece in answer]
        assert b"".join(pieces) == content
        assert max(map(len, pieces)) <= 8 * MIB

    def test_answer_may_be_abandoned(self, provider: StorageProvider) -> None:
        provider.put("large", bytes(9 * MIB))
        for _ in range(3):
            answer = provider.get("large")
            next(iter(answer))
            answer.close()
        assert body(provider, "large", ByteRange(0, 1)) == b"\0"

    def test_missing_key_is_not_found(self, provider: StorageProvider) -> None:
        with pytest.raises(NotFoundError) as caught:
            provider.get("no/such").read_all()
        assert caught.value.key == "no/such"
        assert caught.value.store == provider.profile
        with pytest.raises(NotFoundError):
            provider.get("no/such", ByteRange(5, 5)).read_all()
        with pytest.raises(NotFoundError):
            provider.get("no/such", ByteRange(5, 0)).read_all()
        with pytest.raises(NotFoundError):
            provider.head("no/such")

    def test_R1_pinned_read_gives_the_expected_version_or_fails(self, provider: StorageProvider) -> None:
        old = provider.put("k", b"old content").version
        with provider.get("k", ByteRange(4, 7), expected=old) as answer:
            assert answer.read_all() == b"content"
        new = provider.put("k", b"new content").version
        assert new != old
        for byte_range in (None, ByteRange(4, 7), ByteRange(4, 0), ByteRange(400, 7)):
            with pytest.raises(VersionMismatchError):
                provider.get("k", byte_range, expected=old).read_all()
        with provider.get("k", expected=new) as answer:
            assert answer.read_all() == b"new content"

    def test_R1_pinned_read_of_a_deleted_key_is_not_found(self, provider: StorageProvider) -> None:
        old = provider.put("k", b"old").version
        provider.delete("k")
        with pytest.raises((NotFoundError, VersionMismatchError)):
            provider.get("k", expected=old).read_all()

    def test_R1_a_reader_never_mixes_versions(self, provider: StorageProvider) -> None:
        contents = (b"a" * 300_000, b"b" * 300_000)
        provider.put("k", contents[0])
        done = threading.Event()

        def write() -> None:
            try:
                for turn in range(12):
                    provider.put("k", contents[turn % 2])
            finally:
                done.set()

        with ThreadPoolExecutor(1) as pool:
            writer = pool.submit(write)
            while not done.is_set():
                with suppress(*self.replaced_midway):
                    assert body(provider, "k") in contents
            writer.result()
        assert body(provider, "k") == contents[1]

    def test_head_has_no_directories(self, provider: StorageProvider) -> None:
        provider.put("d/x", b"1")
        provider.make_directory("m/")
        for key in ("d", "d/", "m", "m/"):
            with pytest.raises(NotFoundError):
                provider.head(key)

    def test_every_answer_tells_the_same_version(self, provider: StorageProvider) -> None:
        put = provider.put("d/k", BODY, metadata={"colour": "blue"})
        (listed,) = provider.list("d/k")
        (entry,) = provider.list_directory("d/")
        with provider.get("d/k") as answer:
            got = answer.metadata
        for one in (provider.head("d/k"), listed, entry, got):
            assert one.version == put.version
            assert one.version.token == put.version.token
            assert one.key == "d/k"
        assert put.tag
        assert got.metadata == {"colour": "blue"}

    def test_same_length_overwrite_is_another_version(self, provider: StorageProvider) -> None:
        versions = {provider.put("k", content).version.token for content in (b"1", b"2", b"3")}
        assert len(versions) == 3

    def test_metadata_is_picklable(self, provider: StorageProvider) -> None:
        provider.put("d/k", b"1", metadata={"a": "b"})
        for one in (provider.head("d/k"), *provider.list(), *provider.list_directory("")):
            assert pickle.loads(pickle.dumps(one)) == one


class WriteContract:
    part_size: ClassVar[int] = 5 * MIB

    def test_put_takes_every_kind_of_source(self, provider: StorageProvider, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.write_bytes(BODY)
        provider.put("bytes", BODY)
        provider.put("view", memoryview(bytearray(b"x" + BODY))[1:])
        provider.put("path", local)
        provider.put("reader", PiecesReader(BODY[:100], BODY[100:]))
        provider.put("empty-reader", PiecesReader())
        with provider.get("bytes") as answer:
            provider.put("own-answer", answer)
        with provider.get("bytes", ByteRange(10, 20)) as answer:
            provider.put("part", answer)
        for key in ("bytes", "view", "path", "reader", "own-answer"):
            assert body(provider, key) == BODY
            assert provider.head(key).content_length == len(BODY)
        assert body(provider, "empty-reader") == b""
        assert body(provider, "part") == BODY[10:30]

    def test_large_sources(self, provider: StorageProvider, tmp_path: Path) -> None:
        content = os.urandom(11 * MIB + 3)
        local = tmp_path / "local"
        local.write_bytes(content)
        for key, source in (
            ("path", local),
            ("bytes", content),
            ("reader", PiecesReader(*(content[at : at + MIB] for at in range(0, len(content), MIB)))),
        ):
            put = provider.put(key, source, metadata={"m": key})
            assert body(provider, key) == content
            assert provider.head(key).version == put.version
            assert provider.head(key).metadata == {"m": key}

    def test_put_returns_what_head_says(self, provider: StorageProvider) -> None:
        put = provider.put("k", BODY, metadata={"m": "1"})
        assert put.key == "k"
        assert put.content_length == len(BODY)
        assert put.type == "file"

    def test_user_metadata_is_kept_and_replaced_with_the_object(self, provider: StorageProvider) -> None:
        metadata = {"mscfsversion": "1 12 1700000000000000000 a-b/c", "colour": "blue and 'green'"}
        provider.put("k", b"1", metadata=metadata)
        assert provider.head("k").metadata == metadata
        with provider.get("k") as answer:
            assert answer.metadata.metadata == metadata
        with provider.get("k", ByteRange(0, 0)) as answer:
            assert answer.metadata.metadata == metadata
        provider.put("k", b"2")
        assert provider.head("k").metadata == {}

    def test_content_type_is_kept(self, provider: StorageProvider) -> None:
        if provider.capabilities.real_directories:
            pytest.skip("a directory keeps no content types")
        provider.put("k", b"1", content_type="text/x-test")
        assert provider.head("k").content_type == "text/x-test"

    def test_W5_if_absent_creates_only_a_new_key(self, provider: StorageProvider) -> None:
        provider.put("k", b"first", if_absent=True)
        for source in (b"second", PiecesReader(b"second"), bytes(9 * MIB)):
            with pytest.raises(AlreadyExistsError):
                provider.put("k", source, if_absent=True)
        assert body(provider, "k") == b"first"

    def test_W5_expected_replaces_only_that_version(self, provider: StorageProvider) -> None:
        first = provider.put("k", b"first").version
        second = provider.put("k", b"second", expected=first).version
        assert body(provider, "k") == b"second"
        for source in (b"third", PiecesReader(b"third"), bytes(9 * MIB)):
            with pytest.raises(VersionMismatchError):
                provider.put("k", source, expected=first)
        assert body(provider, "k") == b"second"
        assert provider.head("k").version == second

    def test_W5_expected_of_a_deleted_key_is_a_mismatch(self, provider: StorageProvider) -> None:
        first = provider.put("k", b"first").version
        provider.delete("k")
        with pytest.raises(VersionMismatchError):
            provider.put("k", b"second", expected=first)
        with pytest.raises(VersionMismatchError):
            provider.put("never", b"second", expected=NEVER)
        assert not exists(provider, "k")
        assert not exists(provider, "never")

    def test_W5_one_of_two_creators_wins(self, provider: StorageProvider) -> None:
        if not provider.capabilities.exclusive_create:
            pytest.skip("the store has no atomic creation")
        for turn in range(10):
            key = f"race/{turn}"
            results = race(
                lambda key=key: provider.put(key, b"0", if_absent=True),
                lambda key=key: provider.put(key, b"1", if_absent=True),
            )
            lost = [result for result in results if isinstance(result, StorageError)]
            assert len(lost) == 1
            assert isinstance(lost[0], AlreadyExistsError)
            assert body(provider, key) == str(int(isinstance(results[0], StorageError))).encode()

    def test_W5_one_of_two_replacers_wins(self, provider: StorageProvider) -> None:
        if not provider.capabilities.conditional_put:
            pytest.skip("the store has no conditional put")
        for turn in range(10):
            key = f"race/{turn}"
            base = provider.put(key, b"base").version
            results = race(
                lambda key=key, base=base: provider.put(key, b"0", expected=base),
                lambda key=key, base=base: provider.put(key, b"1", expected=base),
            )
            lost = [result for result in results if isinstance(result, StorageError)]
            assert len(lost) == 1
            assert isinstance(lost[0], VersionMismatchError)
            assert body(provider, key) == str(int(isinstance(results[0], StorageError))).encode()

    @pytest.mark.parametrize("size", [1000, 9 * MIB])
    def test_W3_a_failing_source_leaves_the_old_content(self, provider: StorageProvider, size: int) -> None:
        provider.put("old", b"old")
        for key in ("old", "new/key"):
            with pytest.raises(StoreUnavailableError):
                provider.put(key, failing_reader(bytes(size)))
            with pytest.raises(IntegrityError):
                provider.put(key, PiecesReader(bytes(size), size=size + 1))
        assert body(provider, "old") == b"old"
        assert keys(provider.list()) == ["old"]

    def test_a_key_that_ends_in_a_slash_is_no_object(self, provider: StorageProvider) -> None:
        with pytest.raises(InvalidKeyError):
            provider.put("d/", b"1")
        with pytest.raises(InvalidKeyError):
            provider.put("", b"1")
        assert keys(provider.list()) == []

    def test_missing_local_file_is_an_error_and_leaves_nothing(self, provider: StorageProvider, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="absent"):
            provider.put("k", tmp_path / "absent")
        assert not exists(provider, "k")


class MultipartContract:
    part_size: ClassVar[int]

    def test_W3_parts_in_any_order_appear_as_a_whole_on_complete(self, provider: StorageProvider) -> None:
        parts = [os.urandom(self.part_size), os.urandom(self.part_size), os.urandom(1234)]
        upload = provider.start_upload("d/k", metadata={"m": "1"})
        for number in (3, 1, 2):
            upload.put_part(number, memoryview(parts[number - 1]))
            assert not exists(provider, "d/k")
        assert keys(provider.list()) == []
        done = upload.complete()
        assert done.key == "d/k"
        assert done.content_length == sum(map(len, parts))
        assert provider.head("d/k").version == done.version
        assert provider.head("d/k").metadata == {"m": "1"}
        assert body(provider, "d/k") == b"".join(parts)
        upload.abort()
        assert exists(provider, "d/k")

    def test_parts_of_a_local_file(self, provider: StorageProvider, tmp_path: Path) -> None:
        local = tmp_path / "local"
        local.write_bytes(os.urandom(self.part_size + 1000))
        upload = provider.start_upload("k")
        upload.put_slice(2, local, ByteRange(self.part_size, 1000))
        upload.put_slice(1, local, ByteRange(0, self.part_size))
        upload.complete()
        assert body(provider, "k") == local.read_bytes()
        upload = provider.start_upload("k")
        with pytest.raises(StorageError):
            upload.put_slice(1, local, ByteRange(self.part_size, 1001))
        with pytest.raises(StorageError):
            upload.put_slice(1, tmp_path / "absent", ByteRange(0, 1))
        upload.abort()
        assert body(provider, "k") == local.read_bytes()

    def test_parts_of_an_upload_that_ended_are_aborted_without_harm(self, provider: StorageProvider) -> None:
        upload = provider.start_upload("k")
        upload.put_part(1, b"1")
        upload.complete()
        provider.abort_upload("k", upload.token)
        assert body(provider, "k") == b"1"

    def test_parts_from_several_threads(self, provider: StorageProvider) -> None:
        parts = [bytes([number]) * self.part_size for number in range(4)]
        upload = provider.start_upload("k")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(upload.put_part, range(1, 5), parts))
        upload.complete()
        assert body(provider, "k") == b"".join(parts)

    def test_a_part_sent_again_replaces_the_first(self, provider: StorageProvider) -> None:
        upload = provider.start_upload("k")
        upload.put_part(1, b"first")
        upload.put_part(1, b"second")
        upload.complete()
        assert body(provider, "k") == b"second"

    def test_abort_keeps_the_old_content(self, provider: StorageProvider) -> None:
        provider.put("k", b"old")
        upload = provider.start_upload("k")
        upload.put_part(1, b"new")
        upload.abort()
        upload.abort()
        assert body(provider, "k") == b"old"
        assert keys(provider.list()) == ["k"]

    def test_W5_complete_if_absent(self, provider: StorageProvider) -> None:
        upload = provider.start_upload("k")
        upload.put_part(1, b"mine")
        provider.put("k", b"theirs")
        with pytest.raises(AlreadyExistsError):
            upload.complete(if_absent=True)
        upload.abort()
        assert body(provider, "k") == b"theirs"
        upload = provider.start_upload("new")
        upload.put_part(1, b"mine")
        upload.complete(if_absent=True)
        assert body(provider, "new") == b"mine"

    def test_W5_complete_expected(self, provider: StorageProvider) -> None:
        base = provider.put("k", b"base").version
        upload = provider.start_upload("k")
        upload.put_part(1, b"mine")
        assert body(provider, "k") == b"base"
        upload.complete(expected=base)
        assert body(provider, "k") == b"mine"
        upload = provider.start_upload("k")
        upload.put_part(1, b"again")
        with pytest.raises(VersionMismatchError):
            upload.complete(expected=base)
        upload.abort()
        assert body(provider, "k") == b"mine"
        upload = provider.start_upload("gone")
        upload.put_part(1, b"again")
        with pytest.raises(VersionMismatchError):
            upload.complete(expected=base)
        upload.abort()
        assert not exists(provider, "gone")


class CopyAndDeleteContract:
    def test_copy_keeps_body_and_metadata(self, provider: StorageProvider) -> None:
        provider.put("a", BODY, metadata={"m": "1"})
        copied = provider.copy("a", "d/b")
        assert copied.key == "d/b"
        assert body(provider, "d/b") == BODY
        assert provider.head("d/b").version == copied.version
        assert provider.head("d/b").metadata == {"m": "1"}
        assert body(provider, "a") == BODY

    def test_copy_replaces_its_target(self, provider: StorageProvider) -> None:
        provider.put("a", b"new", metadata={"m": "new"})
        provider.put("b", b"old old", metadata={"old": "1"})
        provider.copy("a", "b")
        assert body(provider, "b") == b"new"
        assert provider.head("b").metadata == {"m": "new"}

    def test_copy_of_a_missing_key_is_not_found(self, provider: StorageProvider) -> None:
        with pytest.raises(NotFoundError):
            provider.copy("no/such", "b")
        assert not exists(provider, "b")

    def test_copy_expected(self, provider: StorageProvider) -> None:
        old = provider.put("a", b"1").version
        provider.copy("a", "b", expected=old)
        provider.put("a", b"2")
        with pytest.raises(VersionMismatchError):
            provider.copy("a", "b", expected=old)
        with pytest.raises(VersionMismatchError):
            provider.copy("a", "c", expected=old, if_absent=True)
        assert body(provider, "b") == b"1"
        assert not exists(provider, "c")

    def test_copy_if_absent(self, provider: StorageProvider) -> None:
        provider.put("a", b"1")
        provider.put("b", b"2")
        with pytest.raises(AlreadyExistsError):
            provider.copy("a", "b", if_absent=True)
        assert body(provider, "b") == b"2"
        provider.copy("a", "c", if_absent=True)
        assert body(provider, "c") == b"1"

    def test_delete_is_idempotent(self, provider: StorageProvider) -> None:
        provider.put("d/k", b"1")
        provider.delete("d/k")
        assert not exists(provider, "d/k")
        provider.delete("d/k")
        provider.delete("never/was")
        assert keys(provider.list()) == []

    def test_delete_expected(self, provider: StorageProvider) -> None:
        old = provider.put("k", b"1").version
        new = provider.put("k", b"2").version
        with pytest.raises(VersionMismatchError):
            provider.delete("k", expected=old)
        assert body(provider, "k") == b"2"
        provider.delete("k", expected=new)
        assert not exists(provider, "k")
        provider.delete("k", expected=new)

    def test_set_metadata_replaces_it_and_keeps_the_bytes(self, provider: StorageProvider) -> None:
        provider.put("k", BODY, metadata={"a": "1", "b": "2"})
        changed = provider.set_metadata("k", {"c": "3"})
        assert provider.head("k").metadata == {"c": "3"}
        assert provider.head("k").version == changed.version
        assert body(provider, "k") == BODY
        provider.set_metadata("k", {})
        assert provider.head("k").metadata == {}

    def test_set_metadata_expected(self, provider: StorageProvider) -> None:
        old = provider.put("k", b"1", metadata={"a": "1"}).version
        provider.set_metadata("k", {"a": "2"}, expected=old)
        new = provider.put("k", b"2", metadata={"a": "3"}).version
        with pytest.raises(VersionMismatchError):
            provider.set_metadata("k", {"a": "4"}, expected=old)
        assert provider.head("k").metadata == {"a": "3"}
        assert provider.head("k").version == new

    def test_W9_attributes_in_metadata_follow_a_copy_and_may_be_replaced_by_it(self, provider: StorageProvider) -> None:
        kept = {"mode": "0100600", "mtime": "1500000000.123456789", "xattr": "%7B%22user.a%22%3A%22eA==%22%7D"}
        made = provider.put("k", BODY, metadata=kept, content_type="text/plain")
        provider.copy("k", "same")
        assert provider.head("same").metadata == kept
        copied = provider.copy("k", "other", metadata={"mode": "0100644"}, expected=made.version)
        assert provider.head("other").metadata == {"mode": "0100644"}
        assert provider.head("other").version == copied.version
        assert provider.head("other").content_type == provider.head("k").content_type
        assert body(provider, "other") == BODY
        provider.copy("k", "other", metadata={})
        assert provider.head("other").metadata == {}
        assert provider.head("k").metadata == kept
        with pytest.raises(VersionMismatchError):
            provider.copy("k", "other", metadata={"mode": "1"}, expected=NEVER)

    def test_W9_a_rename_may_replace_the_metadata(self, provider: StorageProvider) -> None:
        made = provider.put("k", BODY, metadata={"mode": "0100600", "a": "1"})
        renamed = provider.rename("k", "new", metadata={"mode": "0100644", "a": "1"}, expected=made.version)
        assert provider.head("new").metadata == {"mode": "0100644", "a": "1"}
        assert provider.head("new").version == renamed.version
        assert body(provider, "new") == BODY
        assert not exists(provider, "k")

    def test_W9_a_marker_may_have_metadata(self, provider: StorageProvider) -> None:
        if provider.capabilities.real_directories:
            pytest.skip("directories are no markers here")
        with pytest.raises(NotFoundError):
            provider.head_marker("d/")
        provider.make_directory("d/", metadata={"mode": "040700"})
        marker = provider.head_marker("d/")
        assert (marker.key, marker.type) == ("d/", "directory")
        assert (marker.metadata or {})["mode"] == "040700"
        provider.make_directory("d/", metadata={**(marker.metadata or {}), "mode": "040755"})
        assert (provider.head_marker("d/").metadata or {})["mode"] == "040755"
        provider.put("e/x", b"1")
        with pytest.raises(NotFoundError):
            provider.head_marker("e/")
        provider.remove_directory("d/")
        with pytest.raises(NotFoundError):
            provider.head_marker("d/")

    def test_set_metadata_of_a_missing_key_is_not_found(self, provider: StorageProvider) -> None:
        with pytest.raises(NotFoundError):
            provider.set_metadata("k", {"a": "1"})
        assert not exists(provider, "k")

    def test_W9_xattrs_are_kept_where_attributes_are(self, provider: StorageProvider) -> None:
        provider.put("d/k", BODY)
        if not provider.capabilities.posix_attributes:
            with pytest.raises(UnsupportedError):
                provider.xattrs("d/k")
            with pytest.raises(UnsupportedError):
                provider.set_xattrs("d/k", {})
            with pytest.raises(UnsupportedError):
                provider.check_xattrs("d/new", {})
            return
        for key in ("d/k", "d/", ""):
            assert provider.xattrs(key) == {}
            provider.set_xattrs(key, {"user.a": b"1", "user.b": b"\0\xff"})
            assert provider.xattrs(key) == {"user.a": b"1", "user.b": b"\0\xff"}
            provider.set_xattrs(key, {"user.b": b"2"})
            assert provider.xattrs(key) == {"user.b": b"2"}
        provider.set_metadata("d/k", {"m": "1"})
        provider.put("d/k", b"other", metadata={"m": "2"})
        assert provider.xattrs("d/k") == {"user.b": b"2"}
        provider.check_xattrs("d/new", {"user.a": b"1"})
        for change, key in ((provider.check_xattrs, "d/new"), (provider.set_xattrs, "d/k")):
            with pytest.raises(NoSpaceError):
                change(key, {"user.a": bytes(MOST_IN_AN_XATTR + 1)})
        with pytest.raises(NotFoundError):
            provider.check_xattrs("no/new", {"user.a": b"1"})
        assert keys(provider.list()) == ["d/k"]
        provider.set_xattrs("d/k", {})
        assert provider.head("d/k").metadata == {"m": "2"}
        with pytest.raises(NotFoundError):
            provider.xattrs("none")

    def test_symlink_is_an_object_of_its_own_type(self, provider: StorageProvider) -> None:
        provider.put("target", b"1")
        for key, target in (("link", "target"), ("d/odd", "../a b/%é\n;=,"), ("dangling", "/no/such")):
            try:
                made = provider.make_symlink(key, target)
            except UnsupportedError:
                pytest.skip("the store has no symbolic links")
            head = provider.head(key)
            assert (head.type, head.symlink_target) == ("symlink", target)
            assert made.version == head.version
        assert {"link", "d/odd", "dangling"} <= set(keys(provider.list()))
        provider.copy("link", "copied")
        assert provider.head("copied").symlink_target == "target"
        provider.put("link", b"now a file")
        assert provider.head("link").type == "file"
        assert body(provider, "target") == b"1"
        provider.delete("dangling")
        assert not exists(provider, "dangling")


class ListContract:
    many: ClassVar[int] = 1003
    """More keys than the store gives in one page."""

    def test_list_is_in_utf8_byte_order(self, provider: StorageProvider) -> None:
        given = ["z/a", "z/a-", "z/a.b", "z/a0", "z/a1/b", "z/B", "z/é", "z/\uffee", "z/😀", "z/q/x", "z/q-", "z/q0"]
        for key in given:
            provider.put(key, key.encode())
        expected = sorted(given, key=lambda key: key.encode())
        assert keys(provider.list()) == expected
        assert keys(provider.list("z/")) == expected
        assert [entry.content_length for entry in provider.list("z/")] == [len(key.encode()) for key in expected]

    def test_list_starts_after_a_key(self, provider: StorageProvider) -> None:
        given = ["a", "l/1", "l/2/x", "l/2/y", "l/2-", "l/3/z", "l/4", "m"]
        for key in given:
            provider.put(key, b"1")
        ordered = sorted(given)
        for start in ["", "0", "a", "b", "l", "l/", "l/1", "l/2", "l/2/", "l/2/x", "l/2/xx", "l/3/z", "l/4", "m", "n"]:
            assert keys(provider.list(start_after=start)) == [key for key in ordered if key > start]
            below = [key for key in ordered if key > start and key.startswith("l/")]
            assert keys(provider.list("l/", start_after=start)) == below

    def test_list_prefix_may_end_inside_a_name(self, provider: StorageProvider) -> None:
        given = ["a/a", "a/b", "a/b-", "a/b/c", "a/bc", "a/bc/d", "a/c", "ab", "b/a"]
        if provider.capabilities.real_directories:
            # A name is a file or a directory.
            given = [key for key in given if key not in {"a/b", "a/bc"}]
        for key in given:
            provider.put(key, b"1")
        for prefix in ["", "a", "a/", "a/b", "a/b/", "a/bc", "a/bc/d", "a/bcd", "b", "c", "ab/"]:
            assert keys(provider.list(prefix)) == [key for key in sorted(given) if key.startswith(prefix)]
        assert keys(provider.list("a/b", start_after="a/b-")) == [key for key in given if "a/b-" < key < "a/c"]

    def test_list_gives_markers_as_directories(self, provider: StorageProvider) -> None:
        if provider.capabilities.real_directories:
            pytest.skip("directories are no markers here")
        provider.make_directory("d/")
        provider.make_directory("d/e/")
        provider.make_directory("f/")
        provider.put("d/e-", b"")
        provider.put("d/e/x", b"")
        provider.put("f", b"")
        provider.put("g", b"")
        expected = [
            ("d/", "directory"),
            ("d/e-", "file"),
            ("d/e/", "directory"),
            ("d/e/x", "file"),
            ("f", "file"),
            ("f/", "directory"),
            ("g", "file"),
        ]
        assert [(entry.key, entry.type) for entry in provider.list()] == expected
        assert keys(provider.list("d/")) == [key for key, _ in expected[:4]]
        assert keys(provider.list(start_after="d/e-")) == [key for key, _ in expected[2:]]
        assert keys(provider.list("d/e")) == ["d/e-", "d/e/", "d/e/x"]

    def test_list_leaves_real_directories_out(self, provider: StorageProvider) -> None:
        if not provider.capabilities.real_directories:
            pytest.skip("directories are markers here")
        provider.make_directory("d/e/")
        provider.put("d/x", b"1")
        assert keys(provider.list()) == ["d/x"]

    def test_list_of_nothing(self, provider: StorageProvider) -> None:
        assert keys(provider.list()) == []
        assert keys(provider.list("no/such/")) == []
        assert keys(provider.list_directory("")) == []
        assert keys(provider.list_directory("no/such/")) == []
        assert not provider.has_directory("no/such/")

    def test_list_passes_the_page_boundary(self, provider: StorageProvider) -> None:
        given = [f"many/{number:05d}" for number in range(self.many)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda key: provider.put(key, key.encode()), given))
        assert keys(provider.list("many/")) == given
        assert keys(provider.list("many/", start_after=given[2])) == given[3:]
        assert sorted(keys(provider.list_directory("many/"))) == given

    def test_list_may_be_abandoned(self, provider: StorageProvider) -> None:
        for number in range(5):
            provider.put(f"k{number}", b"1")
        listing = provider.list()
        assert next(listing).key == "k0"
        del listing
        assert len(keys(provider.list())) == 5

    def test_N1_list_directory_gives_files_and_subdirectories(self, provider: StorageProvider) -> None:
        for key in ("top", "d/1", "d/2/x", "d/2/y", "d/3/z/deep", "d/4", "dd/1"):
            provider.put(key, b"12")
        provider.make_directory("d/marked/")
        provider.make_directory("d/")
        assert sorted((entry.key, entry.type) for entry in provider.list_directory("")) == [
            ("d/", "directory"),
            ("dd/", "directory"),
            ("top", "file"),
        ]
        entries = {entry.key: entry for entry in provider.list_directory("d/")}
        assert sorted(entries) == ["d/1", "d/2/", "d/3/", "d/4", "d/marked/"]
        assert {entry.type for key, entry in entries.items() if key.endswith("/")} == {"directory"}
        assert entries["d/1"].content_length == 2
        assert entries["d/1"].version == provider.head("d/1").version
        assert len(list(provider.list_directory("d/"))) == 5

    def test_pages_tell_what_list_directory_tells(self, provider: StorageProvider) -> None:
        for key in ("d/plain", "d/a b+c%20d&e#f", "d/日本語", "d/sub/x", "d/empty", "dd/1"):
            provider.put(key, b"" if key.endswith("empty") else key.encode())
        provider.make_directory("d/")
        entries = {entry.key: entry for entry in provider.list_directory("d/")}
        paged = {
            entry.metadata("d/").key: entry for page in provider.list_pages("d/") for entry in entries_of(page)
        }  # fmt: skip
        assert sorted(paged) == sorted(entries)
        for key, entry in paged.items():
            told, expected = entry.metadata("d/"), entries[key]
            assert (told.type, told.version, told.metadata) == (expected.type, expected.version, expected.metadata)
            assert (told.version.content_hash, told.mode) == (expected.version.content_hash, expected.mode)
            if not told.is_directory:
                assert told.version.modified_ns == expected.version.modified_ns
        may_be_link = paged["d/empty"].kind == MAYBE_LINK
        assert may_be_link == (not provider.capabilities.real_directories and entries["d/empty"].metadata is None)
        assert [page.names for page in provider.list_pages("no/such/") if page.names] == []

    def test_N2_a_and_a_slash_b_are_both_listed(self, provider: StorageProvider) -> None:
        if provider.capabilities.real_directories:
            pytest.skip("a name is a file or a directory here")
        provider.put("a", b"1")
        provider.put("a/b", b"2")
        provider.put("d/a", b"")
        provider.put("d/a/b", b"")
        assert sorted(keys(provider.list_directory(""))) == ["a", "a/", "d/"]
        assert sorted(keys(provider.list_directory("d/"))) == ["d/a", "d/a/"]
        assert body(provider, "a") == b"1"
        assert body(provider, "a/b") == b"2"
        assert provider.has_directory("a/")

    def test_N1_has_directory(self, provider: StorageProvider) -> None:
        provider.put("d/e/x", b"1")
        provider.put("file", b"1")
        provider.make_directory("m/")
        for directory in ("d/", "d/e/", "m/"):
            assert provider.has_directory(directory)
        for directory in ("d/e/x/", "file/", "d/e/f/", "fil/", "n/", "M/"):
            assert not provider.has_directory(directory)

    def test_make_directory_twice_and_remove_it(self, provider: StorageProvider) -> None:
        provider.make_directory("m/n/")
        provider.make_directory("m/n/")
        assert provider.has_directory("m/n/")
        assert keys(provider.list_directory("m/")) == ["m/n/"]
        assert keys(provider.list_directory("m/n/")) == []
        provider.remove_directory("m/n/")
        assert not provider.has_directory("m/n/")

    def test_remove_directory_refuses_when_something_is_below(self, provider: StorageProvider) -> None:
        provider.make_directory("m/")
        provider.put("m/x", b"1")
        provider.make_directory("o/")
        provider.make_directory("o/p/")
        for directory in ("m/", "o/"):
            with pytest.raises(DirectoryNotEmptyError):
                provider.remove_directory(directory)
        assert body(provider, "m/x") == b"1"
        provider.delete("m/x")
        provider.remove_directory("m/")
        provider.remove_directory("o/p/")
        provider.remove_directory("o/")
        assert keys(provider.list_directory("")) == []


class KeysContract:
    refused_keys: ClassVar[frozenset[str]] = frozenset()
    """Odd keys the store itself cannot hold; `put` answers InvalidKeyError."""

    @pytest.mark.parametrize("key", ODD_KEYS)
    def test_N3_odd_key_works_byte_for_byte(self, provider: StorageProvider, key: str) -> None:
        if key in self.refused_keys:
            with pytest.raises(InvalidKeyError):
                provider.put(key, b"1")
            assert keys(provider.list()) == []
            return
        content = key.encode()
        directory = key[: key.rindex("/") + 1]
        put = provider.put(key, content, metadata={"m": "1"})
        assert body(provider, key) == content
        assert provider.head(key).key == key
        assert keys(provider.list()) == [key]
        assert keys(provider.list(key)) == [key]
        assert keys(provider.list(directory)) == [key]
        assert keys(provider.list_directory(directory)) == [key]
        assert provider.has_directory(directory)
        with provider.get(key, ByteRange(1, 3), expected=put.version) as answer:
            assert answer.read_all() == content[1:4]
        assert provider.copy(key, key + ".copy").key == key + ".copy"
        provider.copy(key + ".copy", "plain")
        assert body(provider, "plain") == content
        provider.set_metadata(key, {"n": "2"})
        assert provider.head(key).metadata == {"n": "2"}
        upload = provider.start_upload(key)
        upload.put_part(1, b"parts")
        upload.complete()
        assert body(provider, key) == b"parts"
        provider.delete(key)
        assert not exists(provider, key)
        assert keys(provider.list(directory)) == [key + ".copy"]

    def test_N3_odd_keys_are_listed_together(self, provider: StorageProvider) -> None:
        given = sorted((key for key in ODD_KEYS if key not in self.refused_keys), key=lambda key: key.encode())
        for key in given:
            provider.put(key, b"")
        assert keys(provider.list()) == given
        for position, key in enumerate(given):
            assert keys(provider.list(start_after=key)) == given[position + 1 :]
        assert sorted(keys(provider.list_directory("o/"))) == sorted(key for key in given if key.startswith("o/"))

    def test_N3_odd_directories(self, provider: StorageProvider) -> None:
        for key in ODD_KEYS:
            if key in self.refused_keys:
                continue
            directory = key + "/"
            provider.make_directory(directory)
            assert provider.has_directory(directory)
            provider.put(directory + "x", b"1")
            assert keys(provider.list_directory(directory)) == [directory + "x"]
            provider.delete(directory + "x")
            provider.remove_directory(directory)
            assert not provider.has_directory(directory)

    def test_N2_keys_that_are_no_paths_break_nothing(self, provider: StorageProvider) -> None:
        plain = ["d/x", "p/x", "plain"]
        for key in plain:
            provider.put(key, b"1")
        held = list(plain)
        for key in UNREPRESENTABLE_KEYS:
            try:
                provider.put(key, key.encode())
            except InvalidKeyError:
                continue
            held.append(key)
            assert body(provider, key) == key.encode()
        listed = keys(provider.list())
        assert set(plain) <= set(listed) <= set(held)
        assert listed == sorted(listed, key=lambda key: key.encode())
        assert {"plain", "d/", "p/"} <= set(keys(provider.list_directory("")))
        assert set(keys(provider.list_directory("p/"))) in ({"p/x"}, {"p/x", "p//"})
        assert {"d/x"} <= set(keys(provider.list_directory("d/"))) <= {"d/x", "d/./", "d/../"}
        assert set(keys(provider.list("p/"))) <= {"p/x", "p//q"}
        assert keys(provider.list(start_after="p/x"))[0] == "plain"
        assert provider.has_directory("p/")
        for key in held:
            provider.delete(key)
        assert keys(provider.list()) == []

    def test_L5_no_key_leaves_the_store(self, provider: StorageProvider) -> None:
        """Every key is refused or is its own object: no two spellings of one place."""
        provider.put("e", b"mine")
        for key in ("../e", "d/../e", "./e", "/e", "e/.", "d//../e", "d/../../e"):
            try:
                provider.put(key, b"other")
            except InvalidKeyError:
                continue
        assert body(provider, "e") == b"mine"
        with pytest.raises(InvalidKeyError):
            provider.put("nul\0key", b"1")


class LifeContract:
    def test_probe(self, provider: StorageProvider) -> None:
        provider.probe()

    def test_identity_and_profile_are_told(self, provider: StorageProvider) -> None:
        assert provider.profile
        assert provider.identity

    def test_space_is_none_or_large(self, provider: StorageProvider) -> None:
        space = provider.space()
        assert space is None or 0 <= space.available_bytes <= space.free_bytes <= space.total_bytes

    def test_a_forked_child_works_with_a_provider_used_in_the_parent(self, provider: StorageProvider) -> None:
        provider.put("d/k", BODY, metadata={"m": "1"})
        assert body(provider, "d/k") == BODY
        assert keys(provider.list()) == ["d/k"]

        def work() -> None:
            assert body(provider, "d/k") == BODY
            assert body(provider, "d/k", ByteRange(3, 5)) == BODY[3:8]
            assert provider.head("d/k").metadata == {"m": "1"}
            assert keys(provider.list()) == ["d/k"]
            assert keys(provider.list_directory("d/")) == ["d/k"]
            provider.put("d/child", b"child")
            provider.copy("d/child", "d/copy")
            assert body(provider, "d/copy") == b"child"
            provider.delete("d/child")
            assert not exists(provider, "d/child")

        in_forked_child(work)
        assert body(provider, "d/k") == BODY

    def test_many_threads_share_a_provider(self, provider: StorageProvider) -> None:
        def work(number: int) -> bytes:
            key = f"d{number % 3}/{number}"
            provider.put(key, key.encode() * 1000, metadata={"n": str(number)})
            assert provider.head(key).metadata == {"n": str(number)}
            return body(provider, key)

        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(work, range(40)))
        assert results == [f"d{number % 3}/{number}".encode() * 1000 for number in range(40)]
        assert len(keys(provider.list())) == 40


class ProviderContract(
    ReadContract, WriteContract, MultipartContract, CopyAndDeleteContract, ListContract, KeysContract, LifeContract
):
    """The whole contract; derive from it and supply the fixture `provider`."""
