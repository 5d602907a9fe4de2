"""Objects of many GiB: the sizes, counts and order of what is asked for, with doubles that move no bytes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mscfs.config.values import GIB, MIB
from mscfs.providers import azure as azure_module
from mscfs.providers.azure_upload import LARGEST_BLOCK, MAX_BLOCKS, BlockUpload, block_size_for
from mscfs.providers.base import LARGEST_PART_IN_MEMORY, StorageProvider
from mscfs.providers.gcs_upload import ComposedUpload
from mscfs.providers.s3_copy import copy_object
from mscfs.providers.s3_upload import LARGEST_PART, MAX_PARTS, S3Upload, part_size_for
from mscfs.types import ByteRange, from_ns
from mscfs.vfs.streams import part_size
from tests.providers import test_azure, test_gcs
from tests.providers.contract import body

TIB = 1 << 40
HUGE = (5 * GIB, 5 * GIB + 1, 6 * GIB, 100 * GIB + 12345, 5 * TIB)


class RecordingS3:
    """boto3's client and mscfs's connection in one."""

    def __init__(self) -> None:
        self.copies: list[tuple[int, int, int]] = []
        """Part number, first and last byte."""
        self.sent: dict[int, int] = {}
        """Bytes of each part."""
        self.completed: list[int] = []
        self.conditions: set[str] = set()
        self.whole: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self.client = self
        self.meta = SimpleNamespace(service_model=SimpleNamespace(operation_model=self._operation))
        self.bucket, self.profile = "b", "lake"

    @contextmanager
    def errors(self, key: str = "", **_: Any) -> Iterator[None]:
        yield

    def create_multipart_upload(self, **_: Any) -> dict[str, Any]:
        return {"UploadId": "u"}

    def upload_part_copy(self, **request: Any) -> dict[str, Any]:
        first, _, last = request["CopySourceRange"].removeprefix("bytes=").partition("-")
        with self._lock:
            self.copies.append((request["PartNumber"], int(first), int(last)))
            self.conditions.add(request["CopySourceIfMatch"])
        return {"CopyPartResult": {"ETag": f'"{request["PartNumber"]}"'}}

    def upload_part(self, **request: Any) -> dict[str, Any]:
        with self._lock:
            self.sent[request["PartNumber"]] = request["Body"].seek(0, os.SEEK_END)
        return {"ETag": f'"{request["PartNumber"]}"'}

    def copy_object(self, **request: Any) -> dict[str, Any]:
        self.whole.append(request)
        return {"CopyObjectResult": {"ETag": '"whole"', "LastModified": from_ns(0)}}

    def complete_multipart_upload(self, **request: Any) -> dict[str, Any]:
        self.completed = [part["PartNumber"] for part in request["MultipartUpload"]["Parts"]]
        return {"ETag": '"done-2"', "ResponseMetadata": {"HTTPHeaders": {}}}

    @staticmethod
    def _operation(_: str) -> Any:
        return SimpleNamespace(input_shape=SimpleNamespace(members={}))

    @property
    def sdk(self) -> Any:
        return SimpleNamespace(
            connection=self,
            named=lambda key: {"Bucket": "b", "Key": key},
            verify=lambda *_, **__: None,
            condition=lambda *_, **__: {},
            confirm=lambda key, size, *_: SimpleNamespace(key=key, content_length=size),
        )


def found(size: int) -> dict[str, Any]:
    return {"ContentLength": size, "ETag": '"source"', "LastModified": from_ns(0), "Metadata": {"m": "1"}}


@pytest.mark.parametrize("size", HUGE)
def test_W7_s3_copies_what_one_request_does_not_take_in_ranges_of_one_version(size: int) -> None:
    """A rename of 6 GiB, or of the largest object there is, moves no byte through this machine."""
    s3 = RecordingS3()
    copied = copy_object(s3.sdk, "a", found(size), "b")
    assert copied.content_length == size
    parts = sorted(s3.copies)
    assert [number for number, _, _ in parts] == s3.completed == list(range(1, len(parts) + 1))
    assert len(parts) <= MAX_PARTS
    position = 0
    for _, first, last in parts:
        assert first == position
        position = last + 1
        assert last - first < LARGEST_PART
        assert last - first + 1 >= 5 * MIB or position == size
    assert position == size
    assert s3.conditions == {'"source"'}
    assert (s3.whole, s3.sent) == ([], {})


def test_W7_s3_copies_a_gib_in_one_request() -> None:
    s3 = RecordingS3()
    copy_object(s3.sdk, "a", found(GIB), "b")
    assert ([request["CopySourceIfMatch"] for request in s3.whole], s3.copies) == (['"source"'], [])


@pytest.mark.parametrize("size", HUGE)
def test_W6_s3_is_sent_a_sparse_file_of_any_size_in_parts_that_it_takes(size: int, tmp_path: Path) -> None:
    local = tmp_path / "sparse"
    with local.open("wb") as file:
        file.truncate(size)
    s3 = RecordingS3()
    S3Upload(s3.sdk, "k", {}).put_source(local, part_size_for(size, 8 * MIB), 8)
    sizes = [s3.sent[number] for number in sorted(s3.sent)]
    assert sum(sizes) == size
    assert len(sizes) <= MAX_PARTS
    assert min(sizes[:-1]) >= 5 * MIB
    assert max(sizes) <= LARGEST_PART


@pytest.mark.parametrize("wanted", [1, 8 * MIB, 6 * GIB])
@pytest.mark.parametrize("size", [1, *HUGE, 48 * TIB])
def test_W6_parts_of_s3_are_within_its_limits_whatever_is_configured(size: int, wanted: int) -> None:
    part = part_size_for(size, wanted)
    assert 5 * MIB <= part <= 5 * GIB
    assert -(-size // part) <= MAX_PARTS


@pytest.mark.parametrize("wanted", [1, 32 * MIB, 6 * GIB])
@pytest.mark.parametrize("size", [1, *HUGE, 190 * TIB])
def test_W6_blocks_of_azure_are_within_its_limits_whatever_is_configured(size: int, wanted: int) -> None:
    block = block_size_for(size, wanted)
    assert block <= LARGEST_BLOCK
    assert -(-size // block) <= MAX_BLOCKS


def test_W6_the_parts_of_a_stream_hold_the_largest_object_and_are_within_all_limits() -> None:
    sizes = [part_size(number) for number in range(1, MAX_PARTS + 1)]
    assert sum(sizes) > 5 * TIB
    assert min(sizes) >= 5 * MIB
    assert max(sizes) <= min(LARGEST_PART, LARGEST_BLOCK)
    assert sizes == sorted(sizes)


def test_W6_azure_cuts_a_large_file_into_blocks_that_it_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local = tmp_path / "sparse"
    with local.open("wb") as file:
        file.truncate(5 * TIB)
    asked: list[int] = []

    def cut(source: Any, size: int, **_: Any) -> Iterator[bytes]:
        asked.append(size)
        return iter(())

    monkeypatch.setattr(azure_module, "read_parts", cut)
    monkeypatch.setattr(BlockUpload, "put_blocks", lambda *_, **__: None)
    profile = {
        "storage_provider": {"type": "azure", "options": {"base_path": "c/p", "endpoint_url": "http://127.0.0.1:1/a"}},
    }
    test_azure.opened(profile).put("k", local)
    assert asked == [block_size_for(5 * TIB, 32 * MIB)]


class RecordingGcs:
    """A bucket in which an object is the list of the parts that it was composed of."""

    def __init__(self) -> None:
        self.objects: dict[str, list[int]] = {}
        self.largest = 0
        self.timeout, self.profile, self.bucket = 1, "lake", self

    @contextmanager
    def errors(self, key: str = "", **_: Any) -> Iterator[None]:
        yield

    def condition(self, key: str, **_: Any) -> None:
        return None

    def blob(self, name: str, **_: Any) -> Any:
        def upload(body: Any, *, size: int, **_: Any) -> None:
            self.objects[name] = [int(body.read())]

        def compose(sources: list[Any], **_: Any) -> None:
            self.largest = max(self.largest, len(sources))
            self.objects[name] = [part for source in sources for part in self.objects[source.name]]

        return SimpleNamespace(
            name=name, upload_from_file=upload, compose=compose, delete=lambda **_: self.objects.pop(name)
        )


def test_W6_gcs_composes_ten_thousand_parts_in_order_and_at_most_32_at_once() -> None:
    gcs = RecordingGcs()
    upload = ComposedUpload(gcs, "k", lambda: gcs.blob("k"), prefix="", describe=lambda blob: blob)  # type: ignore[arg-type]
    for number in range(MAX_PARTS, 0, -1):
        upload.put_part(number, str(number).encode())
    upload.complete()
    assert gcs.objects == {"k": list(range(1, MAX_PARTS + 1))}
    assert gcs.largest == 32


def of_gcs(request: pytest.FixtureRequest) -> StorageProvider:
    return test_gcs.opened(request.getfixturevalue("gcs_server").new_bucket())


def of_azure(request: pytest.FixtureRequest) -> StorageProvider:
    return test_azure.opened(request.getfixturevalue("azure_server").new_bucket())


@pytest.mark.emulator
@pytest.mark.parametrize("opener", [of_gcs, of_azure])
def test_R6_a_large_part_of_a_file_is_read_while_it_is_sent(
    opener: Callable[[pytest.FixtureRequest], StorageProvider],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = opener(request)
    content = os.urandom(2 * LARGEST_PART_IN_MEMORY + MIB)
    (tmp_path / "local").write_bytes(content)
    pread, read = os.pread, []

    def recording(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", recording)
    upload = provider.start_upload("k")
    upload.put_slice(2, tmp_path / "local", ByteRange(2 * LARGEST_PART_IN_MEMORY, MIB))
    upload.put_slice(1, tmp_path / "local", ByteRange(0, 2 * LARGEST_PART_IN_MEMORY))
    upload.complete()
    assert max(read) <= LARGEST_PART_IN_MEMORY
    assert body(provider, "k") == content
