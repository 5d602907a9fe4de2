"""Azure Blob Storage: the contract, with and without the native client, and what is this store's own."""

from __future__ import annotations

import hashlib
import os
import time
import traceback
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from azure.storage.blob import ContainerSasPermissions, generate_container_sas

from mscfs.config.values import ProviderConfig
from mscfs.errors import (
    AccessDeniedError,
    ConfigError,
    IntegrityError,
    InvalidKeyError,
    NotFoundError,
    StorageError,
    StoreMissingError,
    StoreTimeoutError,
    StoreUnavailableError,
    UnsupportedError,
    VersionMismatchError,
)
from mscfs.providers.azure import AzureProvider
from mscfs.providers.azure_connection import AzureConnection, from_status
from mscfs.providers.azure_copy import COPY_SECONDS, wait_for_copy
from mscfs.providers.azure_metadata import in_utf8_order
from mscfs.providers.base import StorageProvider
from mscfs.providers.native import NativeClient
from mscfs.types import ByteRange, ObjectMetadata, from_ns
from tests.emulators.azure import ACCOUNT, KEY, AzureServer
from tests.emulators.broken import Recorder
from tests.emulators.fault_proxy import FaultProxy
from tests.emulators.faults import Fault, in_object, reset, stall, truncate
from tests.providers.contract import MIB, ProviderContract, body, keys
from tests.providers.object_stores import CALLS, LongReader, frees_what_it_closes, read_into

pytestmark = pytest.mark.emulator


def opened(profile: dict[str, Any], **options: Any) -> AzureProvider:
    credentials = profile.get("credentials_provider")
    return AzureProvider(
        profile="lake",
        options=profile["storage_provider"]["options"] | options,
        credentials=ProviderConfig(**credentials) if credentials else None,
    )


class Container:
    """A container seen from behind the provider's back."""

    def __init__(self, server: AzureServer, profile: dict[str, Any]) -> None:
        self.server = server
        self.profile = profile
        self.name, _, self.prefix = profile["storage_provider"]["options"]["base_path"].partition("/")
        self.client = server.container(self.name)

    def through(self, url: str) -> dict[str, Any]:
        """The profile of the same container at another URL."""
        connection = self.server.connection().replace(self.server.url, url)
        return self.profile | {
            "credentials_provider": {"type": "AzureCredentials", "options": {"connection": connection}}
        }

    def names(self) -> list[str]:
        return list(self.client.list_blob_names())


@pytest.fixture
def container(azure_server: AzureServer) -> Container:
    return Container(azure_server, azure_server.new_bucket())


REFUSED = frozenset({"o/new\nline", "o/tab\tx", "o/back\\slash", "o/..."})


class TestAzureProvider(ProviderContract):
    refused_keys: ClassVar[frozenset[str]] = REFUSED
    many: ClassVar[int] = 100  # a page of the service has 5,000: see test_list_passes_the_services_pages

    @pytest.fixture
    def provider(self, container: Container) -> StorageProvider:
        return opened(container.profile)


class TestAzureProviderWithoutNativeClient(ProviderContract):
    refused_keys: ClassVar[frozenset[str]] = REFUSED
    many: ClassVar[int] = 100

    @pytest.fixture
    def provider(self, container: Container) -> StorageProvider:
        return opened(container.profile, rust_client=False)


@pytest.fixture(params=[True, False], ids=["native", "sdk"])
def native(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def provider(container: Container, native: bool) -> AzureProvider:
    return opened(container.profile, rust_client=native)


# --- identity ----------------------------------------------------------------------------------------------------


def in_blocks(provider: StorageProvider, key: str) -> ObjectMetadata:
    upload = provider.start_upload(key)
    upload.put_part(1, b"block 1;")
    upload.put_part(2, b"block 2;")
    return upload.complete()


WRITERS: dict[str, Callable[[StorageProvider], ObjectMetadata]] = {
    "plain": lambda store: store.put("d/k", b"plain"),
    "large": lambda store: store.put("d/k", os.urandom(9 * MIB)),
    "blocks": lambda store: in_blocks(store, "d/k"),
    "copied": lambda store: (in_blocks(store, "d/from"), store.copy("d/from", "d/k"))[1],
    "described": lambda store: (store.put("d/k", b"123"), store.set_metadata("d/k", {"a": "b"}))[1],
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_one_version_whichever_client_answers(container: Container, native: bool, write: Any) -> None:
    """The identity of an object is the same in every answer, of whatever kind the object is."""
    version = write(opened(container.profile, rust_client=native)).version
    for reader in (opened(container.profile), opened(container.profile, rust_client=False)):
        with reader.get("d/k", ByteRange(0, 3), expected=version) as answer:
            told = [answer.metadata, reader.head("d/k"), *reader.list("d/k"), *reader.list_directory("d/")]
        found = [one for one in told if one.key == "d/k"]
        assert len(found) == 4
        assert {one.version.token for one in found} == {version.token}
        assert len({one.last_modified for one in found}) == 1
    assert '"' not in version.tag


def test_listings_tell_the_md5_of_what_was_put(provider: AzureProvider) -> None:
    provider.put("a", b"abc")
    large = provider.put("b", bytes(9 * MIB))
    in_blocks(provider, "c")
    hashes = [one.content_hash for one in provider.list()]
    assert hashes == ["md5:900150983cd24fb0d6963f7d28e17f72", large.content_hash, ""]
    assert large.content_hash == f"md5:{hashlib.md5(bytes(9 * MIB)).hexdigest()}"


def test_single_objects_go_through_the_native_client(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    provider = opened(container.profile)
    monkeypatch.setattr(AzureConnection, "container", property(lambda _: pytest.fail("the SDK was asked")))
    put = provider.put("k", b"12345", metadata={"m": "1"}, content_type="text/x-test")
    assert provider.head("k").version == put.version
    assert body(provider, "k", ByteRange(1, 2)) == b"23"
    with pytest.raises(VersionMismatchError):
        provider.get("k", expected=replace(put.version, tag="0x0"))


def test_validated_content_is_moved_by_the_sdk(container: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NativeClient, "_opened", lambda _: pytest.fail("the native client was asked"))
    provider = opened(container.profile, validate_content=True, multipart_chunksize=5 * MIB)
    content = os.urandom(9 * MIB)
    provider.put("k", content)
    assert body(provider, "k") == content
    assert body(provider, "k", ByteRange(1, 5)) == content[1:6]
    in_blocks(provider, "l")
    assert body(provider, "l") == b"block 1;block 2;"


def test_metadata_names_have_no_case_and_listings_carry_them(container: Container, provider: AzureProvider) -> None:
    container.client.upload_blob(f"{container.prefix}/k", b"1", metadata={"Colour": "Blue"})
    for found in (provider.head("k"), provider.get("k").metadata, *provider.list(), *provider.list_directory("")):
        assert found.metadata == {"colour": "Blue"}


def test_R1_a_replaced_object_is_never_continued(provider: AzureProvider) -> None:
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


# --- names and metadata that Azure cannot hold -------------------------------------------------------------------


@pytest.mark.parametrize("key", ["a\\b", "a.", "a./b", "d/../e", ".", "a\x01b", "a\x7fb"])
def test_N2_a_name_azure_would_change_is_refused(provider: AzureProvider, key: str) -> None:
    provider.put("e", b"mine")
    for call in (
        lambda: provider.put(key, b"1"),
        lambda: provider.start_upload(key),
        lambda: provider.copy("e", key),
        lambda: provider.make_directory(key + "/"),
        lambda: provider.make_symlink(key, "e"),
    ):
        with pytest.raises(InvalidKeyError):
            call()
    for call in (lambda: provider.head(key), lambda: provider.get(key), lambda: provider.set_metadata(key, {})):
        with pytest.raises(NotFoundError):
            call()
    provider.delete(key)
    assert keys(provider.list()) == ["e"]


@pytest.mark.parametrize(
    "metadata",
    [{"with-dash": "1"}, {"1st": "1"}, {"": "1"}, {"a\n": "1"}, {"name": "é"}, {"name": "1\n"}, {"name": " 1"}],
)
def test_metadata_azure_cannot_hold_are_refused(provider: AzureProvider, metadata: dict[str, str]) -> None:
    provider.put("k", b"1")
    for call in (
        lambda: provider.put("l", b"1", metadata=metadata),
        lambda: provider.start_upload("l", metadata=metadata),
        lambda: provider.set_metadata("k", metadata),
    ):
        with pytest.raises(UnsupportedError):
            call()
    assert keys(provider.list()) == ["k"]


def test_N1_directories_of_other_tools_are_directories(container: Container, provider: AzureProvider) -> None:
    """Blobfuse and Hadoop mark a directory with an object of its name, without a slash."""
    for name in ("d", "d/empty", "full"):
        container.client.upload_blob(f"{container.prefix}/{name}", b"", metadata={"hdi_isfolder": "true"})
    provider.put("full/x", b"1")
    assert [(entry.key, entry.type) for entry in provider.list_directory("")] == [
        ("d/", "directory"),
        ("full/", "directory"),
    ]
    assert keys(provider.list_directory("d/")) == ["d/empty/"]
    assert keys(provider.list()) == ["full/x"]
    assert provider.has_directory("d/empty/")
    assert not provider.has_directory("d/none/")
    for call in (provider.head, provider.get):
        with pytest.raises(NotFoundError):
            call("d")
    provider.remove_directory("d/empty/")
    assert not provider.has_directory("d/empty/")
    assert f"{container.prefix}/d/empty" not in container.names()


def test_listing_order_is_that_of_utf8_whatever_the_service_sorts_by() -> None:
    names = ["a", "a\U0001f600", "a\U0001f600b", "a\uffee", "b", "\U0001f600", "\uffee", "\uffee\U0001f600", "\uffef"]
    by_utf16 = sorted(names, key=lambda name: name.encode("utf-16-be"))
    by_utf8 = sorted(names, key=lambda name: name.encode())
    assert by_utf16 != by_utf8
    for given in (by_utf16, by_utf8):
        assert keys(in_utf8_order(ObjectMetadata(name, 0, from_ns(0)) for name in given)) == by_utf8


# --- uploads and copies ------------------------------------------------------------------------------------------


def test_blocks_of_an_upload_under_way_are_no_object(container: Container, provider: AzureProvider) -> None:
    upload = provider.start_upload("k")
    upload.put_part(1, b"1")
    assert keys(provider.list()) == []
    assert not provider.has_directory("k/")
    upload.abort()
    assert container.names() == []


def test_W3_an_upload_overtaken_by_another_is_an_error_and_no_mixture(provider: AzureProvider) -> None:
    first, second = provider.start_upload("k"), provider.start_upload("k")
    first.put_part(1, b"first")
    second.put_part(1, b"second")
    second.complete()
    with pytest.raises(IntegrityError) as caught:
        first.complete()
    assert caught.value.transient
    assert body(provider, "k") == b"second"


def test_R6_a_streamed_upload_needs_little_memory(container: Container, native: bool) -> None:
    provider = opened(container.profile, rust_client=native, multipart_chunksize=1 * MIB)
    tracemalloc.start()
    try:
        provider.put("k", LongReader(48 * MIB))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert provider.head("k").content_length == 48 * MIB
    assert peak < 24 * MIB  # parts under way, more of them on a busy machine


class SlowCopy:
    """A blob whose copy is under way, and a clock that only its pauses move."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.now = 0.0
        self.aborted = False

    def get_blob_properties(self) -> Any:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return SimpleNamespace(copy=SimpleNamespace(status=state))

    def abort_copy(self, properties: Any) -> None:
        self.aborted = True

    def wait(self) -> Any:
        def sleep(seconds: float) -> None:
            self.now += seconds

        return wait_for_copy(self, store="lake", key="k", clock=lambda: self.now, sleep=sleep)  # type: ignore[arg-type]


def test_copy_is_waited_for() -> None:
    copy = SlowCopy("pending", "pending", "success")
    assert copy.wait().copy.status == "success"
    assert 0 < copy.now < 1


def test_copy_that_never_ends_is_aborted() -> None:
    copy = SlowCopy("pending")
    with pytest.raises(StoreTimeoutError):
        copy.wait()
    assert copy.aborted
    assert COPY_SECONDS <= copy.now < COPY_SECONDS + 10


def test_copy_that_fails_is_an_error() -> None:
    with pytest.raises(StoreUnavailableError, match="failed"):
        SlowCopy("pending", "failed").wait()


# --- listings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1, 3, 1000])
def test_list_passes_the_services_pages(provider: AzureProvider, page_size: int) -> None:
    given = ["d/1", "d/2", "d/3/x", "d/3/y", "d/3/z", "d/4/x", "d/5", "d/6/", "d/7"]
    for key in given:
        provider.make_directory(key) if key.endswith("/") else provider.put(key, b"")
    assert keys(provider._list("d/", page_size=page_size)) == given
    entries = set(keys(provider._list("d/", delimiter="/", page_size=page_size)))
    assert entries == {"d/1", "d/2", "d/3/", "d/4/", "d/5", "d/6/", "d/7"}


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_missing_container_is_told(container: Container, native: bool, call: Any) -> None:
    provider = opened(container.profile, base_path="no-such-container/prefix", rust_client=native)
    with pytest.raises(StoreMissingError):
        call(provider)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_L5_wrong_key_is_access_denied_and_tells_no_secret(container: Container, native: bool, call: Any) -> None:
    connection = container.server.wrong_key()
    credentials = {"type": "AzureCredentials", "options": {"connection": connection}}
    provider = opened(container.profile | {"credentials_provider": credentials}, rust_client=native)
    with pytest.raises(AccessDeniedError) as caught:
        call(provider)
    secret = connection.split("AccountKey=")[1].split(";")[0]
    for shown in (str(caught.value), repr(caught.value), "".join(traceback.format_exception(caught.value))):
        assert secret not in shown
        assert "sig=" not in shown


@pytest.mark.parametrize("connection", ["nonsense", "AccountName=a;AccountKey=not base64!"])
def test_L5_malformed_connection_is_access_denied(container: Container, native: bool, connection: str) -> None:
    if ";" in connection:
        connection += f";BlobEndpoint={container.server.url}"
    credentials = {"type": "AzureCredentials", "options": {"connection": connection}}
    provider = opened(container.profile | {"credentials_provider": credentials}, rust_client=native)
    for call in (lambda: provider.head("k"), lambda: provider.put("k", b"1"), provider.probe):
        with pytest.raises(AccessDeniedError, match=r"malformed|refused") as caught:
            call()
        assert "not base64" not in str(caught.value)
        assert "nonsense" not in str(caught.value)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_store_that_is_down_is_unavailable(native: bool, closed_url: str, call: Any) -> None:
    profile = {"storage_provider": {"options": {"base_path": "b/p"}}}
    provider = opened(profile, endpoint_url=closed_url, rust_client=native, connect_timeout=2, read_timeout=2)
    with pytest.raises(StoreUnavailableError) as caught:
        call(provider)
    assert caught.value.store == "lake"


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_R9_a_silent_store_times_out(native: bool, silent_url: str, call: Any) -> None:
    profile = {"storage_provider": {"options": {"base_path": "b/p"}}}
    provider = opened(profile, endpoint_url=silent_url, rust_client=native, connect_timeout=0.2, read_timeout=0.2)
    started = time.monotonic()
    with pytest.raises(StoreTimeoutError):
        call(provider)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "BlobNotFound", NotFoundError),
        (404, "", NotFoundError),
        (404, "ContainerNotFound", StoreMissingError),
        (409, "ContainerBeingDeleted", StoreMissingError),
        (412, "ConditionNotMet", VersionMismatchError),
        (412, "LeaseIdMissing", AccessDeniedError),
        (401, "", AccessDeniedError),
        (401, "NoAuthenticationInformation", AccessDeniedError),
        (409, "PublicAccessNotPermitted", AccessDeniedError),
        (403, "AuthorizationPermissionMismatch", AccessDeniedError),
        (429, "", StoreUnavailableError),
        (500, "OperationTimedOut", StoreUnavailableError),
        (503, "ServerBusy", StoreUnavailableError),
        (400, "SomethingElse", StorageError),
    ],
)
def test_errors_of_the_service_have_their_classes(status: int, code: str, kind: type[StorageError]) -> None:
    assert from_status(status, code)[0] is kind


def test_the_services_own_word_for_a_refusal_is_told() -> None:
    assert from_status(403, "AuthorizationPermissionMismatch")[1].endswith("(AuthorizationPermissionMismatch)")
    assert "(" not in from_status(403, "")[1]
    assert "credentials_provider" in from_status(409, "PublicAccessNotPermitted")[1]


@pytest.mark.parametrize("name", ["Not_A", "a--b", "-a", "a.b"])
def test_a_container_that_cannot_be_is_a_config_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"profiles\.lake\.storage_provider\.options\.base_path"):
        AzureConnection(profile="lake", container=name, options={"endpoint_url": "http://x"}, credentials=None)
    AzureConnection(profile="lake", container="$root", options={"endpoint_url": "http://x"}, credentials=None)


def test_L5_what_the_service_says_is_not_repeated() -> None:
    connection = AzureConnection(profile="lake", container="c", options={"endpoint_url": "http://x"}, credentials=None)
    failure = HttpResponseError("denied: https://x/c/k?sig=SECRET")
    failure.status_code = 400
    for error in (failure, ClientAuthenticationError("token SECRET is bad")):
        with pytest.raises(StorageError) as caught, connection.errors("k"):
            raise error
        assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("how", [reset, truncate, stall])
def test_R5_an_answer_that_breaks_off_is_an_error_and_never_short(
    container: Container, native: bool, fault_proxy: Callable[[str], FaultProxy], how: Callable[[int], Fault]
) -> None:
    content = os.urandom(9 * MIB)
    opened(container.profile).put("k", content)
    proxy = fault_proxy(container.server.url)
    provider = opened(container.through(proxy.url), rust_client=native, connect_timeout=0.5, read_timeout=0.5)
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


def signature(container: Container) -> str:
    return generate_container_sas(
        ACCOUNT,
        container.name,
        account_key=KEY,
        permission=ContainerSasPermissions(read=True, write=True, delete=True, list=True, add=True, create=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )


def work(provider: AzureProvider) -> None:
    put = provider.put("d/k", b"12345", metadata={"m": "1"})
    assert body(provider, "d/k", ByteRange(1, 2)) == b"23"
    assert provider.head("d/k").version == put.version
    assert keys(provider.list()) == ["d/k"]
    provider.copy("d/k", "l")
    provider.delete("d/k")
    assert keys(provider.list_directory("")) == ["l"]


def test_L5_signed_endpoint_works_and_is_not_told(container: Container, native: bool) -> None:
    url = f"{container.server.url}?{signature(container)}"
    provider = opened(container.profile | {"credentials_provider": None}, endpoint_url=url, rust_client=native)
    work(provider)
    assert "sig=" not in provider.identity
    assert provider.identity == f"{container.server.url}/{container.name}/{container.prefix}"


def test_connection_string_with_a_signature(container: Container, native: bool) -> None:
    connection = f"BlobEndpoint={container.server.url};SharedAccessSignature={signature(container)}"
    credentials = {"type": "AzureCredentials", "options": {"connection": connection}}
    work(opened(container.profile | {"credentials_provider": credentials}, rust_client=native))


def test_anonymous_reads_of_a_public_container(container: Container, native: bool) -> None:
    opened(container.profile).put("k", b"1", metadata={"m": "1"})
    container.client.set_container_access_policy({}, public_access="container")
    provider = opened(container.profile | {"credentials_provider": None}, rust_client=native)
    assert body(provider, "k") == b"1"
    assert provider.head("k").metadata == {"m": "1"}
    assert keys(provider.list()) == ["k"]
    with pytest.raises((AccessDeniedError, NotFoundError)):
        provider.put("k", b"2")
    assert body(provider, "k") == b"1"


class Tokens:
    """Stands for azure.identity.DefaultAzureCredential."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def get_token(self, scope: str) -> AccessToken:
        if self.options.get("broken"):
            raise ClientAuthenticationError("no credential in the chain knows SECRET")
        assert scope == "https://storage.azure.com/.default"
        return AccessToken("the token", int(time.time()) + 3600)


def test_default_credentials_give_tokens_to_the_native_client(
    monkeypatch: pytest.MonkeyPatch, recorder: Recorder
) -> None:
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Tokens)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    profile = {
        "storage_provider": {"options": {"base_path": "c/p", "endpoint_url": recorder.url}},
        "credentials_provider": {"type": "DefaultAzureCredentials", "options": {}},
    }
    with pytest.raises(StorageError):
        opened(profile).head("k")
    assert recorder.requests[0].startswith("HEAD /c/p/k ")
    assert "authorization: Bearer the token" in recorder.requests[0]


def test_each_process_has_credentials_with_connections_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Tokens)
    connection = AzureConnection(
        profile="lake",
        container="c",
        options={"endpoint_url": "https://127.0.0.1:9"},
        credentials=ProviderConfig("DefaultAzureCredentials", {}),
    )
    ours = connection._token_credential()
    assert connection._token_credential() is ours
    monkeypatch.setattr("os.getpid", lambda: 1)
    assert connection._token_credential() is not ours


def test_L5_failing_default_credentials_are_access_denied(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr("azure.identity.DefaultAzureCredential", Tokens)
    profile = {
        "storage_provider": {"options": {"base_path": "c/p", "endpoint_url": "https://127.0.0.1:9"}},
        "credentials_provider": {"type": "DefaultAzureCredentials", "options": {"broken": True}},
    }
    for call in CALLS.values():
        with pytest.raises(AccessDeniedError) as caught:
            call(opened(profile, rust_client=native))
        assert "SECRET" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("endpoint", "told"), [("http://127.0.0.1:9/a", "must start with https://"), ("https://127.0.0.1:9/a", "az login")]
)
def test_tokens_that_cannot_be_had_are_told_with_what_to_do(endpoint: str, told: str) -> None:
    options = {
        f"exclude_{name}_credential": True for name in ("managed_identity", "cli", "developer_cli", "powershell")
    }
    credentials = ProviderConfig("DefaultAzureCredentials", options)
    connection = AzureConnection(
        profile="lake", container="c", options={"endpoint_url": endpoint}, credentials=credentials
    )
    with pytest.raises(AccessDeniedError, match=told), connection.errors():
        connection.container.get_container_properties()


@pytest.mark.parametrize(
    ("url", "connection", "name"),
    [
        ("https://acct.blob.core.windows.net", "", "acct"),
        ("https://acct.blob.core.chinacloudapi.cn/", "", "acct"),
        ("http://127.0.0.1:10000/devstoreaccount1", "", "devstoreaccount1"),
        ("https://blobs.example", "", "blobs.example"),
        ("https://x.example", "AccountName=acct;AccountKey=a2V5;BlobEndpoint=https://y.example/acct", "acct"),
    ],
)
def test_account_name(url: str, connection: str, name: str) -> None:
    credentials = ProviderConfig("AzureCredentials", {"connection": connection}) if connection else None
    options = {"endpoint_url": url}
    assert AzureConnection(profile="p", container="c", options=options, credentials=credentials).account_name == name


def test_other_credentials_are_a_config_error() -> None:
    with pytest.raises(ConfigError):
        AzureProvider(
            options={"base_path": "c", "endpoint_url": "http://x"}, credentials=ProviderConfig("S3Credentials")
        )


def test_what_is_closed_is_freed(container: Container) -> None:
    assert frees_what_it_closes(lambda: opened(container.profile))
