"""What the daemon and a worker process say to each other, over a socket pair that nobody else holds.

Each message is a frame: four bytes of length, then MessagePack. Many frames go into one send. The daemon begins with
`Start` and waits for `Ready`; then it sends requests in any number, and the worker answers each with any number of
`Arrived`, `Slow` or `PageDone` and exactly one `Result` or `Failed`. The end of the stream is the end of the worker.
The bytes of a fetch are not sent: both sides map the memory they lie in. Keys and paths are bytes here, as they need
not be UTF-8.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mscfs import errors
from mscfs.cache.chunks import CacheSettings
from mscfs.config.values import Config
from mscfs.errors import ConfigError, MscfsError, StorageError
from mscfs.providers.page import Page
from mscfs.replicas.latency import Waits
from mscfs.replicas.step import StepResult
from mscfs.types import ObjectMetadata, Version

PROTOCOL = 4
"""Raised when a message changes: a daemon that outlives an upgrade must not talk to the new version's workers."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class FetchSummary:
    """What a fetch came to: who served how many bytes, which replicas did not have the version, errors by profile.

    `skipped` were not asked, as they are said to lack the object. `first` and `seconds`: how long the store that served
    all of it took to begin, and to end; 0 when there was trouble.
    """

    source: str
    bytes: int
    missing: tuple[str, ...] = ()
    stale: tuple[str, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()
    first: float = field(default=0.0, compare=False)
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """All a worker must know. Holds secrets: it travels over the socket, never on a command line."""

    name: str
    """The process name, for people who look at a list of processes."""
    config: Config
    profile: str
    cache: CacheSettings | None
    """Where chunks are kept on disk; None: nowhere."""
    memory_size: int
    """Bytes of the shared memory that the daemon passes on."""
    namespace: str
    """The first part of chunk names: the primary's identity."""
    chunk_size: int
    threads: int
    background_threads: int
    """At most so many of the threads do background work at once: read-ahead, replication."""
    store_factory: str
    """`module:function` that opens the store, called as `mscfs.store.open_store` is."""
    log_level: int
    log_file: Path | None
    """See `mscfs.log.configure_logging`."""


class _Message(msgspec.Struct, array_like=True, tag=True):
    pass


class Start(_Message):
    """The daemon's first message: the protocol's version and the pickled `WorkerSettings`."""

    protocol: int
    settings: bytes


class Fetch(_Message):
    """Bring chunks of a version into the shared memory, with one ranged GET, and then into the cache.

    The first chunk goes to offset `target` of the memory, the others follow. `present` bytes are there already: an
    earlier attempt got them. Replicas that are said to be `lacking` the object are asked last, the stores `without`
    never. It is always answered, also when it was cancelled: nobody may use the memory before.
    """

    id: int
    key: bytes
    version: Version
    first: int
    count: int
    target: int
    foreground: bool
    present: int = 0
    lacking: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


class Download(_Message):
    """Write a whole version into an existing file."""

    id: int
    key: bytes
    version: Version
    target: bytes


class Upload(_Message):
    """Put a file to the primary. `repeated`: an earlier attempt ended with its worker, and may have succeeded."""

    id: int
    key: bytes
    path: bytes
    metadata: dict[str, str] | None
    content_type: str | None
    if_absent: bool
    expected: Version | None
    repeated: bool = False


class BeginParts(_Message):
    """Begin an upload in parts; its id is the name of the upload in what follows, for as long as the process lives."""

    id: int
    key: bytes
    metadata: dict[str, str] | None


class SendPart(_Message):
    """Send bytes of a file as one part. They must not change before the upload has ended."""

    id: int
    upload: int
    key: bytes
    number: int
    path: bytes
    offset: int
    size: int


class CompleteParts(_Message):
    """Make the object appear."""

    id: int
    upload: int
    key: bytes
    if_absent: bool
    expected: Version | None


class AbortParts(_Message):
    """Throw the parts away, also those of an upload that another process began: the token tells which."""

    id: int
    upload: int
    key: bytes
    token: str


class Step(_Message):
    """Bring one replica to the primary's present state."""

    id: int
    profile: str
    key: bytes
    delete: bool


class List(_Message):
    """List a directory, in pages: as the primary has it, as the replica `store` has it, or as one stands in for it."""

    id: int
    key: bytes
    store: str = ""
    stand_in: bool = False


class Cancel(_Message):
    """Nobody waits for that request any more. It may get no answer, unless it is a fetch."""

    id: int


class Promote(_Message):
    """A program waits now for that background fetch."""

    id: int


class Prepare(_Message):
    """Load what the first request needs; not answered."""


class Stores(_Message):
    """How the stores are: which are down, and how long an answer of each may take before the daemon is told."""

    down: tuple[str, ...]
    waits: dict[str, Waits]


class Ping(_Message):
    """Answer with a heartbeat."""


class Stop(_Message):
    """Close everything and end."""


class Ready(_Message):
    """The worker takes requests."""


class Arrived(_Message):
    """So many bytes of a fetch are in the memory, from its beginning."""

    id: int
    size: int


class Slow(_Message):
    """A fetch waits longer than usual for a store; it has `tried` others before."""

    id: int
    store: str
    tried: tuple[str, ...]


class PageDone(_Message):
    """A page of a listing."""

    id: int
    page: Page


class ListDone(_Message):
    """All pages of a listing were sent. `suspects` are stores that did not answer lately."""

    id: int
    suspects: list[str]


class FetchDone(_Message):
    """A fetch or download is complete: all its bytes are there."""

    id: int
    summary: FetchSummary


class UploadDone(_Message):
    """The primary holds the file. The metadata's key is left out."""

    id: int
    metadata: ObjectMetadata


class PartsBegun(_Message):
    """An upload in parts was begun. `token`: see `MultipartUpload`."""

    id: int
    token: str


class PartDone(_Message):
    """The store has the part, or threw all of them away."""

    id: int


class StepDone(_Message):
    """The replica is up to date."""

    id: int
    result: StepResult


class Failed(_Message):
    """The request failed, or with id 0 the start of the worker. `kind` names a class of `mscfs.errors`."""

    id: int
    kind: str
    message: bytes
    store: str
    key: bytes


class Trouble(_Message):
    """A store failed, whatever became of the request. As in `Failed`."""

    kind: str
    message: bytes
    store: str
    key: bytes


class Heartbeat(_Message):
    """The worker lives and receives."""


PartsRequest = BeginParts | SendPart | CompleteParts | AbortParts
Request = Fetch | Download | Upload | PartsRequest | Step | List
ToWorker = Request | Start | Cancel | Promote | Prepare | Stores | Ping | Stop
Part = Arrived | Slow | PageDone
"""What comes before a result, any number of times."""
Result = FetchDone | UploadDone | PartsBegun | PartDone | StepDone | ListDone
FromWorker = Part | Result | Failed | Trouble | Ready | Heartbeat

_encode = msgspec.msgpack.Encoder().encode
_to_worker: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)
_from_worker: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)
decode_to_worker = _to_worker.decode
decode_from_worker = _from_worker.decode


def frame(message: ToWorker | FromWorker) -> bytes:
    """A message as it is sent."""
    payload = _encode(message)
    return _LENGTH.pack(len(payload)) + payload


def is_foreground(request: Request) -> bool:
    """Whether a program waits for it."""
    return request.foreground if isinstance(request, Fetch) else not isinstance(request, Step)


def is_second(request: Request) -> bool:
    """Whether it is the second request for what a store keeps waiting."""
    return isinstance(request, Fetch) and bool(request.without)


class FrameBuffer:
    """Cuts a received stream into the payloads of frames."""

    def __init__(self) -> None:
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add what was received; gives the payloads that are complete now. Run it to its end."""
        received = self._received
        received += data
        begin = 0
        while len(received) - begin >= _LENGTH.size:
            end = begin + _LENGTH.size + _LENGTH.unpack_from(received, begin)[0]
            if end > len(received):
                break
            yield bytes(received[begin + _LENGTH.size : end])
            begin = end
        del received[:begin]


def pack_text(text: str) -> bytes:
    """A key, path or message that need not be UTF-8 (surrogate-escaped)."""
    return text.encode("utf-8", "surrogateescape")


def unpack_text(data: bytes) -> str:
    """The inverse of `pack_text`."""
    return data.decode("utf-8", "surrogateescape")


def pack_settings(settings: WorkerSettings) -> Start:
    """The first message to a worker."""
    return Start(PROTOCOL, pickle.dumps(settings))


def unpack_settings(start: Start) -> WorkerSettings:
    """The inverse of `pack_settings`; MscfsError when the daemon speaks another version."""
    if start.protocol != PROTOCOL:
        raise MscfsError(
            f"the worker speaks protocol {PROTOCOL} and the mount {start.protocol}: mscfs was upgraded, mount anew"
        )
    settings = pickle.loads(start.settings)  # noqa: S301 - from our parent, over a socket nobody else holds
    assert isinstance(settings, WorkerSettings)
    return settings


def pack_error(request_id: int, error: MscfsError) -> Failed:
    """An error on its way home."""
    if isinstance(error, StorageError):
        return Failed(request_id, type(error).__name__, pack_text(error.message), error.store, pack_text(error.key))
    return Failed(request_id, type(error).__name__, pack_text(str(error)), "", b"")


def pack_trouble(profile: str, error: StorageError) -> Trouble:
    """An error of a store that the request itself may survive."""
    return Trouble(type(error).__name__, pack_text(error.message), profile, pack_text(error.key))


def unpack_error(failed: Failed | Trouble) -> MscfsError:
    """The error that was packed; a storage error's class unknown here becomes StorageError."""
    kind = getattr(errors, failed.kind, StorageError)
    message = unpack_text(failed.message)
    if issubclass(kind, StorageError):
        return kind(message, store=failed.store, key=unpack_text(failed.key))
    return ConfigError(message) if kind is ConfigError else MscfsError(message)
