"""What is said arrives as it was said."""

import pickle

import pytest

from mscfs import errors
from mscfs.cache.chunks import CacheSettings
from mscfs.errors import ConfigError, MscfsError, StorageError
from mscfs.replicas.step import StepResult
from mscfs.types import ObjectMetadata, Version, from_ns
from mscfs.workers import protocol
from mscfs.workers.protocol import (
    AbortParts,
    Arrived,
    BeginParts,
    Cancel,
    CompleteParts,
    Download,
    Failed,
    Fetch,
    FetchDone,
    FetchSummary,
    FrameBuffer,
    Heartbeat,
    Ping,
    Prepare,
    Promote,
    Ready,
    SendPart,
    Start,
    Step,
    StepDone,
    Stop,
    Upload,
    UploadDone,
    WorkerSettings,
    decode_from_worker,
    decode_to_worker,
    frame,
    pack_error,
    pack_settings,
    pack_text,
    unpack_error,
    unpack_settings,
    unpack_text,
)
from tests.workers.stores import configuration

VERSION = Version(2**40, "tag", modified_ns=1_700_000_000_123_456_789, content_hash="md5:00ff")
ODD_KEY = "a b/\udcff\n+%"

TO_WORKER = [
    Start(1, b"settings"),
    Fetch(1, pack_text(ODD_KEY), VERSION, 5, 8, 2**40, True),
    Fetch(1, pack_text(ODD_KEY), VERSION, 5, 8, 0, False, present=3 << 20),
    Download(2, b"key", VERSION, b"/staging/\xff"),
    Upload(3, b"key", b"/staging/1", {"a": "b"}, "text/plain", True, VERSION, repeated=True),
    Upload(4, b"key", b"/staging/1", None, None, False, None),
    BeginParts(5, b"key", {"a": "b"}),
    SendPart(6, 5, b"key", 1, b"/staging/1", 0, 1000),
    CompleteParts(7, 5, b"key", False, VERSION),
    AbortParts(8, 5, b"key", "token"),
    Step(5, "replica", b"key", False),
    Cancel(2**40),
    Promote(2**40),
    Ping(),
    Prepare(),
    Stop(),
]
FROM_WORKER = [
    Ready(),
    Heartbeat(),
    Arrived(1, 1 << 20),
    FetchDone(1, FetchSummary("primary", 9, ("near",), ("far", "farther"), {"near": 2}, ("away",))),
    UploadDone(
        3,
        ObjectMetadata(
            "", 3, from_ns(1_700_000_000_123_456_000), "tag", metadata={"k": "v"}, modified_ns=1, mode=0o644
        ),
    ),
    StepDone(5, StepResult("copied", 12)),
    Failed(6, "NotFoundError", b"no such key", "primary", b"key"),
]


@pytest.mark.parametrize(
    ("messages", "decode"), [(TO_WORKER, decode_to_worker), (FROM_WORKER, decode_from_worker)], ids=["to", "from"]
)
@pytest.mark.parametrize("size", [1, 3, 4, 5, 64, 10**6])
def test_messages_arrive_whole_however_the_stream_is_cut(messages, decode, size):
    stream = b"".join(map(frame, messages))
    frames = FrameBuffer()
    received = []
    for begin in range(0, len(stream), size):
        received += [decode(payload) for payload in frames.feed(stream[begin : begin + size])]
    assert received == messages


def test_R4_the_evidence_of_a_version_travels_with_it():
    [payload] = FrameBuffer().feed(frame(Fetch(1, b"key", VERSION, 0, 1, 0, True)))
    arrived = decode_to_worker(payload).version
    assert (arrived.modified_ns, arrived.content_hash) == (VERSION.modified_ns, VERSION.content_hash)


def test_N3_keys_that_are_not_utf8_survive():
    assert unpack_text(pack_text(ODD_KEY)) == ODD_KEY


def error_classes(kind):
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from error_classes(child)


@pytest.mark.parametrize("kind", sorted(set(error_classes(StorageError)), key=lambda kind: kind.__name__))
def test_W1_every_storage_error_comes_home_as_what_it_is(kind):
    error = kind("the \udcff reason", store="primary", key=ODD_KEY)
    arrived = unpack_error(pack_error(7, error))
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert pickle.dumps(arrived) == pickle.dumps(error)


@pytest.mark.parametrize("kind", [ConfigError, MscfsError])
def test_what_keeps_a_worker_from_starting_comes_home(kind):
    arrived = unpack_error(pack_error(0, kind("the reason")))
    assert type(arrived) is kind
    assert str(arrived) == "the reason"


def test_an_error_class_of_another_version_is_a_storage_error():
    arrived = unpack_error(Failed(1, "FutureError", b"reason", "primary", b"key"))
    assert type(arrived) is StorageError
    assert str(arrived) == "primary:key: reason"


def settings(tmp_path):
    return WorkerSettings(
        name="mscfs-test",
        config=configuration(root="/", secret_key="hush"),
        profile="test",
        cache=CacheSettings(tmp_path, 100),
        memory_size=64 << 20,
        namespace="test://",
        chunk_size=1 << 20,
        threads=4,
        background_threads=3,
        store_factory="tests.workers.stores:open_store",
        log_level=30,
        log_file=None,
    )


def test_settings_arrive_with_the_configuration_and_show_no_secret(tmp_path):
    sent = settings(tmp_path)
    assert unpack_settings(pack_settings(sent)) == sent
    assert sent.config.profiles["test"].storage_provider.options["secret_key"] == "hush"
    assert "hush" not in repr(sent)


def test_a_worker_of_another_version_refuses_to_start(tmp_path, monkeypatch):
    start = pack_settings(settings(tmp_path))
    monkeypatch.setattr(protocol, "PROTOCOL", protocol.PROTOCOL + 1)
    with pytest.raises(MscfsError, match="mount anew") as caught:
        unpack_settings(start)
    assert not isinstance(caught.value, ConfigError)
