"""Google Cloud Storage: the contract, with and without the native client, and what is this store's own."""

from __future__ import annotations

import gzip
import json
import os
import time
import traceback
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest

from mscfs.config.values import ProviderConfig
from mscfs.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    ConfigError,
    InvalidKeyError,
    StorageError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    VersionMismatchError,
)
from mscfs.providers.base import StorageProvider
from mscfs.providers.gcs import GcsProvider
from mscfs.providers.gcs_connection import GcsConnection, from_status
from mscfs.providers.native import NativeClient
from mscfs.types import ByteRange, ObjectMetadata
from tests.emulators.fault_proxy import FaultProxy
from tests.emulators.faults import Fault, in_object, reset, stall, truncate
from tests.emulators.gcs import GcsServer, private_key
from tests.providers.contract import MIB, ProviderContract, body, keys
from tests.providers.object_stores import CALLS, LongReader, frees_what_it_closes, read_into

pytestmark = pytest.mark.emulator


def opened(profile: dict[str, Any], **options: Any) -> GcsProvider:
    credentials = profile.get("credentials_provider")
    return GcsProvider(
        profile="lake",
        options=profile["storage_provider"]["options"] | options,
        credentials=ProviderConfig(**credentials) if credentials else None,
    )


class Bucket:
    """A bucket seen from behind the provider's back."""

    def __init__(self, server: GcsServer, profile: dict[str, Any]) -> None:
        self.server = server
        self.profile = profile
        self.name, _, self.prefix = profile["storage_provider"]["options"]["base_path"].partition("/")

    def names(self) -> list[str]:
        listing = self.server.call("GET", f"/storage/v1/b/{self.name}/o")
        return [item["name"] for item in listing.get("items", [])]

    def resource(self, key: str) -> dict[str, Any]:
        return self.server.call("GET", self._path(key))

    def patch(self, key: str, change: dict[str, Any]) -> None:
        self.server.call("PATCH", self._path(key), change)

    def _path(self, key: str) -> str:
        return f"/storage/v1/b/{self.name}/o/{quote(f'{self.prefix}/{key}', safe='')}"


@pytest.fixture
def bucket(gcs_server: GcsServer) -> Bucket:
    return Bucket(gcs_server, gcs_server.new_bucket())


class TestGcsProvider(ProviderContract):
    refused_keys: ClassVar[frozenset[str]] = frozenset({"o/new\nline"})

    @pytest.fixture
    def provider(self, bucket: Bucket) -> StorageProvider:
        return opened(bucket.profile)


class TestGcsProviderWithoutNativeClient(ProviderContract):
    refused_keys: ClassVar[frozenset[str]] = frozenset({"o/new\nline"})

    @pytest.fixture
    def provider(self, bucket: Bucket) -> StorageProvider:
        return opened(bucket.profile, rust_client=False)


@pytest.fixture(params=[True, False], ids=["native", "sdk"])
def native(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def provider(bucket: Bucket, native: bool) -> GcsProvider:
    return opened(bucket.profile, rust_client=native)


# --- identity ----------------------------------------------------------------------------------------------------


def composed(provider: StorageProvider, key: str, parts: int = 2) -> ObjectMetadata:
    upload = provider.start_upload(key)
    for number in range(1, parts + 1):
        upload.put_part(number, f"part {number};".encode())
    return upload.complete()


WRITERS: dict[str, Callable[[StorageProvider], ObjectMetadata]] = {
    "plain": lambda store: store.put("d/k", b"plain"),
    "resumable": lambda store: store.put("d/k", os.urandom(9 * MIB)),
    "composed": lambda store: composed(store, "d/k"),
    "copied": lambda store: (composed(store, "d/from"), store.copy("d/from", "d/k"))[1],
    "described": lambda store: (store.put("d/k", b"1"), store.set_metadata("d/k", {"a": "b"}))[1],
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_one_version_whichever_client_answers(bucket: Bucket, native: bool, write: Any) -> None:
    """The identity of an object is the same in every answer, of whatever kind the object is."""
    version = write(opened(bucket.profile, rust_client=native)).version
    for reader in (opened(bucket.profile), opened(bucket.profile, rust_client=False)):
        with reader.get("d/k", ByteRange(0, 3), expected=version) as answer:
            told = [answer.metadata, reader.head("d/k"), *reader.list("d/k"), *reader.list_directory("d/")]
        found = [one for one in told if one.key == "d/k"]
        assert len(found) == 4
        assert {one.version.token for one in found} == {version.token}
        assert len({one.modified_ns for one in found}) == 1
        assert len({one.last_modified for one in found}) == 1
    assert version.tag == bucket.resource("d/k")["generation"]


def test_single_objects_go_through_the_native_client(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = opened(bucket.profile)
    monkeypatch.setattr(GcsConnection, "client", property(lambda _: pytest.fail("the SDK was asked")))
    put = provider.put("k", b"12345", metadata={"m": "1"}, content_type="text/x-test")
    assert provider.head("k").version == put.version
    assert body(provider, "k", ByteRange(1, 2)) == b"23"
    with pytest.raises(VersionMismatchError):
        provider.get("k", expected=replace(put.version, tag="1"))


def test_L5_anonymous_writes_look_for_no_credentials(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore signs every write, and would ask the metadata service of the cloud for a token."""
    monkeypatch.setattr(NativeClient, "put", lambda *_, **__: pytest.fail("the native client was asked"))
    provider = opened(bucket.profile | {"credentials_provider": None}, skip_signature=True)
    provider.put("k", b"1")
    assert body(provider, "k") == b"1"


def test_content_hash_is_the_md5_where_the_store_knows_it(bucket: Bucket, native: bool) -> None:
    provider = opened(bucket.profile, rust_client=native)
    expected = "md5:900150983cd24fb0d6963f7d28e17f72"
    assert provider.put("k", b"abc").content_hash == expected
    composed(provider, "c")
    for found in (provider.head("k"), provider.get("k").metadata, next(provider.list("k"))):
        assert found.content_hash == expected
    for found in (provider.head("c"), provider.get("c").metadata, next(provider.list("c"))):
        assert found.content_hash == ""


def test_metadata_keys_have_no_case_and_listings_carry_them(bucket: Bucket, provider: GcsProvider) -> None:
    provider.put("k", b"1")
    bucket.patch("k", {"metadata": {"Colour": "Blue"}})
    for found in (provider.head("k"), provider.get("k").metadata, *provider.list(), *provider.list_directory("")):
        assert found.metadata == {"colour": "Blue"}


def test_R1_a_replaced_object_is_never_continued(provider: GcsProvider) -> None:
    provider.put("k", b"a" * (9 * MIB))
    with provider.get("k") as answer:
        pieces = iter(answer)
        got = bytes(next(pieces))
        provider.put("k", b"b" * (9 * MIB))
        try:
            got += b"".join(pieces)
        except VersionMismatchError:
            pass
        else:
            assert len(got) == 9 * MIB
    assert set(got) == {ord("a")}


def test_gzip_encoded_object_is_read_as_it_is_stored(bucket: Bucket, provider: GcsProvider) -> None:
    packed = gzip.compress(b"unpacked " * 1000)
    provider.put("k", packed)
    bucket.patch("k", {"contentEncoding": "gzip"})
    assert provider.head("k").content_length == len(packed)
    assert body(provider, "k") == packed
    assert body(provider, "k", ByteRange(5, 10)) == packed[5:15]


# --- uploads and copies ------------------------------------------------------------------------------------------


def test_parts_are_composed_in_a_tree_and_cleaned_up(bucket: Bucket, provider: GcsProvider) -> None:
    parts = [f"{number};".encode() for number in range(1, 71)]
    upload = provider.start_upload("d/k", metadata={"m": "1"})
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(upload.put_part, range(1, 71), parts))
    done = upload.complete()
    assert body(provider, "d/k") == b"".join(parts)
    assert done.metadata == {"m": "1"}
    assert bucket.names() == [f"{bucket.prefix}/d/k"]


def test_parts_of_an_upload_under_way_are_in_no_listing(bucket: Bucket, provider: GcsProvider) -> None:
    upload = provider.start_upload("k")
    upload.put_part(1, b"1")
    assert bucket.names()
    assert keys(provider.list()) == []
    assert keys(provider.list(".")) == []
    assert keys(provider.list_directory("")) == []
    assert not provider.has_directory("d/")
    upload.abort()
    assert bucket.names() == []


def test_parts_whose_process_is_gone_are_thrown_away_by_another(bucket: Bucket, provider: GcsProvider) -> None:
    provider.put("k", b"old")
    upload = provider.start_upload("k")
    for number in range(1, 4):
        upload.put_part(number, b"new")
    provider.abort_upload("k", "some/where/else/")  # no directory of parts: nothing is deleted
    assert len(bucket.names()) == 4
    provider.abort_upload("k", upload.token)
    provider.abort_upload("k", upload.token)
    assert bucket.names() == [f"{bucket.prefix}/k"]


def test_a_refused_upload_leaves_no_parts_once_aborted(bucket: Bucket, provider: GcsProvider) -> None:
    provider.put("k", b"old")
    upload = provider.start_upload("k")
    for number in range(1, 41):
        upload.put_part(number, b"new")
    with pytest.raises(AlreadyExistsError):
        upload.complete(if_absent=True)
    upload.abort()
    assert bucket.names() == [f"{bucket.prefix}/k"]


def test_W3_an_upload_that_fails_leaves_nothing_in_the_bucket(bucket: Bucket, provider: GcsProvider) -> None:
    with pytest.raises(StorageError):
        provider.put("k", LongReader(9 * MIB, fails_after=5 * MIB))
    assert bucket.names() == []


def test_copy_goes_on_until_the_store_is_done(provider: GcsProvider) -> None:
    content = os.urandom(20 * MIB)  # the fake moves 8 MiB in one call
    provider.put("a", content, metadata={"m": "1"})
    copied = provider.copy("a", "b")
    assert body(provider, "b") == content
    assert provider.head("b").version == copied.version
    assert provider.head("b").metadata == {"m": "1"}


def test_R6_a_streamed_upload_needs_little_memory(provider: GcsProvider, bucket: Bucket, native: bool) -> None:
    provider = opened(bucket.profile, rust_client=native, multipart_chunksize=1 * MIB)
    tracemalloc.start()
    try:
        provider.put("k", LongReader(48 * MIB))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert provider.head("k").content_length == 48 * MIB
    assert peak < 16 * MIB


# --- listings ----------------------------------------------------------------------------------------------------


def test_list_directory_passes_page_boundaries(provider: GcsProvider) -> None:
    names = [f"{number:04}" for number in range(700)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda name: provider.put(f"d/{name}", b""), names))
        list(pool.map(lambda name: provider.put(f"d/{name}s/x", b""), names))
    expected = sorted([f"d/{name}" for name in names] + [f"d/{name}s/" for name in names])
    assert sorted(keys(provider.list_directory("d/"))) == expected


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_missing_bucket_is_told(bucket: Bucket, native: bool, call: Any) -> None:
    provider = opened(bucket.profile, base_path="no-such-bucket/prefix", rust_client=native)
    with pytest.raises(StoreMissingError):
        call(provider)


@pytest.mark.parametrize("name", ["Not A Bucket!", "-b", "b."])
def test_a_bucket_that_cannot_be_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"profiles\.lake\.storage_provider\.options\.base_path"):
        GcsConnection(profile="lake", bucket=name, options={}, credentials=None)
    GcsConnection(profile="lake", bucket="b_1.example-2", options={}, credentials=None)
    assert from_status(400, f"Invalid bucket name: '{name}'")[0] is StoreMissingError


def test_the_permission_that_is_lacking_is_named() -> None:
    text = "a@b.iam.gserviceaccount.com does not have storage.objects.list access to the Google Cloud Storage bucket."
    kind, message = from_status(403, text)
    assert kind is AccessDeniedError
    assert message == "the store denied access, which takes the permission storage.objects.list"
    assert from_status(403, f"rateLimitExceeded {text}")[0] is StoreUnavailableError


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_L5_wrong_key_is_access_denied_and_tells_no_secret(bucket: Bucket, native: bool, call: Any) -> None:
    wrong = bucket.server.service_account(private_key())
    credentials = {"type": "GoogleServiceAccountCredentialsProvider", "options": {"info": wrong}}
    provider = opened(bucket.profile | {"credentials_provider": credentials}, rust_client=native)
    with pytest.raises(AccessDeniedError) as caught:
        call(provider)
    secret = wrong["private_key"].splitlines()[1]
    for shown in (str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))):
        assert secret not in shown
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_store_that_is_down_is_unavailable(bucket: Bucket, native: bool, closed_url: str, call: Any) -> None:
    profile = {"storage_provider": {"options": {"base_path": "b/p", "skip_signature": True}}}
    provider = opened(profile, endpoint_url=closed_url, rust_client=native, connect_timeout=2, read_timeout=2)
    with pytest.raises(StoreUnavailableError) as caught:
        call(provider)
    assert caught.value.store == "lake"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_R9_a_silent_store_times_out(native: bool, silent_url: str, call: Any) -> None:
    profile = {"storage_provider": {"options": {"base_path": "b/p", "skip_signature": True}}}
    provider = opened(profile, endpoint_url=silent_url, rust_client=native, connect_timeout=0.2, read_timeout=0.2)
    started = time.monotonic()
    with pytest.raises(StoreTimeoutError):
        call(provider)
    assert time.monotonic() - started < 5


def test_L5_a_token_service_that_is_down_is_unavailable(bucket: Bucket, native: bool, closed_url: str) -> None:
    account = bucket.server.service_account() | {"token_uri": f"{closed_url}/token"}
    credentials = {"type": "GoogleServiceAccountCredentialsProvider", "options": {"info": account}}
    provider = opened(bucket.profile | {"credentials_provider": credentials}, rust_client=native)
    with pytest.raises(StoreUnavailableError):
        provider.head("k")


@pytest.mark.parametrize("how", [reset, truncate, stall])
def test_R5_an_answer_that_breaks_off_is_an_error_and_never_short(
    bucket: Bucket, native: bool, fault_proxy: Callable[[str], FaultProxy], how: Callable[[int], Fault]
) -> None:
    content = os.urandom(9 * MIB)
    opened(bucket.profile).put("k", content)
    proxy = fault_proxy(bucket.server.url)
    provider = opened(bucket.profile, endpoint_url=proxy.url, rust_client=native, connect_timeout=0.5, read_timeout=0.5)
    assert body(provider, "k", ByteRange(0, 10)) == content[:10]
    rule = proxy.on(in_object(how(5 * MIB)), "GET", "k")
    got = bytearray()
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        read_into(got, provider, "k")
    assert caught.value.transient
    assert time.monotonic() - started < 10
    rule.assert_fired()
    if how is stall:
        assert isinstance(caught.value, StoreTimeoutError)
    assert len(got) < len(content)
    assert content.startswith(got)


# --- credentials -------------------------------------------------------------------------------------------------


def test_service_account_file(bucket: Bucket, native: bool, tmp_path: Path) -> None:
    file = tmp_path / "account.json"
    credentials = {"type": "GoogleServiceAccountCredentialsProvider", "options": {"file": str(file)}}
    provider = opened(bucket.profile | {"credentials_provider": credentials}, rust_client=native)
    with pytest.raises(AccessDeniedError, match=r"file .*account\.json cannot be read: No such file"):
        provider.head("k")
    file.write_text("{'private_key': 'SECRET")
    with pytest.raises(AccessDeniedError, match="malformed") as caught:
        provider.head("k")
    assert "SECRET" not in "".join(traceback.format_exception(caught.value))
    file.write_text(json.dumps(bucket.server.service_account()))
    provider.put("k", b"1")
    assert body(provider, "k") == b"1"


@pytest.mark.parametrize(("variable", "told"), [("/nowhere.json", "/nowhere.json, which GOOGLE_APP"), ("", "skip_sig")])
def test_credentials_that_nobody_gave_are_told_with_what_to_do(
    bucket: Bucket, native: bool, monkeypatch: pytest.MonkeyPatch, variable: str, told: str
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", variable)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    provider = opened(bucket.profile | {"credentials_provider": None}, rust_client=native)
    for call in (provider.probe, lambda: provider.head("k")):
        with pytest.raises(AccessDeniedError, match=told):
            call()


def test_application_default_credentials(
    bucket: Bucket, native: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "account.json"
    file.write_text(json.dumps(bucket.server.service_account()))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    provider = opened(bucket.profile | {"credentials_provider": None}, rust_client=native)
    provider.put("k", b"1")
    assert body(provider, "k") == b"1"


def test_emulator_of_the_environment_needs_no_credentials(
    bucket: Bucket, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.server.url.removeprefix("http://"))
    profile = {"storage_provider": {"options": {"base_path": f"{bucket.name}/p"}}}
    provider = opened(profile, rust_client=native)
    provider.put("k", b"1")
    assert body(provider, "k") == b"1"
    assert bucket.names() == ["p/k"]


@pytest.mark.parametrize("key", ["a\nb", "a\rb", "é" * 513, ".mscfs-parts/x"])
def test_N2_a_name_the_service_does_not_take_is_refused(provider: GcsProvider, key: str) -> None:
    provider.put("e", b"mine")
    for call in (
        lambda: provider.put(key, b"1"),
        lambda: provider.start_upload(key),
        lambda: provider.copy("e", key),
        lambda: provider.make_directory(key + "/"),
    ):
        with pytest.raises(InvalidKeyError):
            call()
    with pytest.raises(StorageError):
        provider.head(key)
    assert keys(provider.list()) == ["e"]


def test_skip_signature_reads_and_writes_a_public_bucket(bucket: Bucket, native: bool) -> None:
    provider = opened(bucket.profile | {"credentials_provider": None}, rust_client=native, skip_signature=True)
    provider.put("k", b"1")
    assert body(provider, "k") == b"1"


def test_identity_pool_exchanges_the_given_token() -> None:
    config = ProviderConfig(
        "GoogleIdentityPoolCredentialsProvider", {"audience": "//iam/pool", "token_supplier": "given token"}
    )
    connection = GcsConnection(profile="lake", bucket="b", options={}, credentials=config)
    credentials = connection.credentials()
    assert credentials.retrieve_subject_token(None) == "given token"
    assert "devstorage" in credentials.scopes[0]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GoogleServiceAccountCredentialsProvider", {}),
        ("GoogleServiceAccountCredentialsProvider", {"file": "/f", "info": {}}),
        ("S3Credentials", {}),
    ],
)
def test_credentials_that_make_no_sense_are_a_config_error(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        GcsProvider(options={"base_path": "b"}, credentials=ProviderConfig(kind, options))


def test_L5_identity_tells_the_place_and_no_secret() -> None:
    public = GcsProvider(options={"base_path": "bucket/some/prefix/"})
    assert public.identity == "gs://bucket/some/prefix"
    assert GcsProvider(options={"base_path": "/bucket"}).identity == "gs://bucket"
    private = GcsProvider(options={"base_path": "bucket", "endpoint_url": "https://gcs.example/"})
    assert private.identity == "gs://gcs.example/bucket"


def test_what_is_closed_is_freed(bucket: Bucket) -> None:
    assert frees_what_it_closes(lambda: opened(bucket.profile))
