"""Buffers: ranges of object versions in memory, or on their way there, and which of them makes room for another.

Everything that is read from a store passes through a buffer, and all buffers together never exceed the arena (L4).
Who needs memory takes, in this order: what is free; buffers that were read to their end; and, for a program that waits,
the least recently used of the others. Read-ahead never takes another stream's unread bytes. A buffer that a worker
writes into, or that somebody waits for or copies from, stays. A part of the arena is kept for second requests, which
must have room just when all memory waits for a store that does not answer (R9).

A reader answers with a slice of the arena. Nothing may be allocated between taking the slice and sending it, as another
process writes into what was allocated: the callers see to it that they do not give way to other tasks in between.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import trio

from mscfs.cache.arena import Arena
from mscfs.errors import StorageError
from mscfs.vfs.pinned import PinnedObject
from mscfs.workers.calls import StartedFetch

CONSUMED_SHARE = 32
CONSUMED_AT_LEAST = 4 << 20
"""One part in so many of the arena, or so many bytes, may hold what was read already: for small steps back, a second
reader, and a kernel whose requests overtake each other.
"""
AHEAD_SHARE = 0.75
"""How much of the arena read-ahead may fill: the rest is for those who wait."""


@dataclass(eq=False, slots=True)
class Buffer:
    """Bytes `begin` to `end` of an object: chunks `first` to `first + count - 1`."""

    target: PinnedObject
    first: int
    count: int
    begin: int
    end: int
    offset: int | None = None
    """Where in the arena; None while it waits for memory."""
    arrived: int = 0
    """Bytes that are there, from `begin`."""
    over: bool = False
    """No worker writes into it any more."""
    error: StorageError | None = None
    fetch: StartedFetch | None = None
    pins: int = 0
    """Readers that wait for it or copy from it."""
    consumed: bool = False
    """It was read to its end."""
    discarded: bool = False
    """Nobody finds it any more; it is freed when it is over."""
    waiting: list[tuple[int, trio.Event]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes it is made for."""
        return self.end - self.begin

    def has(self, end: int) -> bool:
        """Whether everything up to that offset of the object is there."""
        return self.begin + self.arrived >= end

    def wake(self) -> None:
        """Tell those whose bytes are there; all, when it is over."""
        still = []
        for entry in self.waiting:
            if self.over or self.has(entry[0]):
                entry[1].set()
            else:
                still.append(entry)
        self.waiting = still


class BufferPool:
    """All buffers. `begin_fetch` is called for each that got its memory; it must not raise."""

    def __init__(self, arena: Arena, begin_fetch: Callable[[Buffer, bool], None]) -> None:
        self.arena = arena
        self._begin_fetch = begin_fetch
        self._found: dict[tuple[str, int], Buffer] = {}
        self._objects: dict[str, set[Buffer]] = {}
        self._unread: OrderedDict[Buffer, None] = OrderedDict()
        """Over, and not read to their end; the least recently used first."""
        self._consumed: OrderedDict[Buffer, None] = OrderedDict()
        self._consumed_bytes = 0
        self._idle: set[Buffer] = set()
        """Unread at the last `drop_idle`, and not looked at since."""
        self._hungry: deque[Buffer] = deque()
        """Wait for memory; programs wait for them."""
        self._has_refused = False
        self.on_room: Callable[[], None] = lambda: None
        """Called when there may be room again for what was not lent. As `begin_fetch`, it must not raise."""

    def __len__(self) -> int:
        return len({id(buffer) for buffer in self._found.values()})

    @property
    def hungry(self) -> int:
        """How many requests wait for memory."""
        return len(self._hungry)

    def find(self, digest: str, index: int) -> Buffer | None:
        """The buffer of a chunk, perhaps still on its way."""
        return self._found.get((digest, index))

    def slice(self, buffer: Buffer, begin: int, end: int) -> memoryview:
        """Bytes of a buffer that has them, good until the next allocation. Offsets are the object's."""
        assert buffer.offset is not None
        at = buffer.offset - buffer.begin
        view = self.arena.memory.view[at + begin : at + end]
        if buffer.over and not buffer.discarded:
            if end == buffer.end:
                self._read_to_end(buffer)
            elif not buffer.consumed:
                self._unread.move_to_end(buffer)
                self._idle.discard(buffer)
        elif end == buffer.end:
            buffer.consumed = True
        return view

    def add(self, target: PinnedObject, first: int, count: int, *, foreground: bool) -> Buffer | None:
        """A new buffer for chunks that have none, its fetch begun, or in `foreground` waiting for memory.

        None when there is no memory for read-ahead.
        """
        begin = first * target.chunk_size
        buffer = Buffer(target, first, count, begin, min((first + count) * target.chunk_size, target.version.size))
        if not foreground and (self._hungry or self.arena.used + buffer.size > self.arena.size * AHEAD_SHARE):
            self._shed(buffer.size)
            if self._hungry or self.arena.used + buffer.size > self.arena.size * AHEAD_SHARE:
                return None
        if not self._hungry:
            buffer.offset = self._allocate(buffer.size, foreground=foreground)
        if buffer.offset is None and not foreground:
            return None
        for index in range(first, first + count):
            self._found[target.digest, index] = buffer
        self._objects.setdefault(target.digest, set()).add(buffer)
        if buffer.offset is None:
            self._hungry.append(buffer)
        else:
            self._begin_fetch(buffer, foreground)
        return buffer

    def ended(self, buffer: Buffer, error: StorageError | None) -> None:
        """The fetch of a buffer is over."""
        buffer.over, buffer.error, buffer.fetch = True, error, None
        if error is None:
            buffer.arrived = buffer.size
        else:
            self._hide(buffer)
        buffer.wake()
        if buffer.discarded:
            self._release(buffer)
        elif buffer.consumed:
            self._read_to_end(buffer)
        else:
            self._unread[buffer] = None
        self.feed()

    def unpin(self, buffer: Buffer) -> None:
        """A reader is done with a buffer."""
        buffer.pins -= 1
        if not buffer.pins:
            if buffer.discarded and (buffer.over or buffer.offset is None):
                self._release(buffer)
            self._feed_soon()

    def discard_object(self, digest: str) -> None:
        """No handle reads this object any more: the kernel has what was read, and the rest nobody wants."""
        for buffer in [buffer for buffer in self._objects.get(digest, ()) if not buffer.pins]:
            self._hide(buffer)
            if buffer.over:
                self._release(buffer)
            elif buffer.fetch is not None:
                buffer.fetch.cancel()
            else:
                self._hungry.remove(buffer)
        self._feed_soon()

    def drop_idle(self) -> None:
        """Drop what lies unread since the last call of this: nobody seems to come for it."""
        for buffer in self._idle & self._unread.keys():
            if not buffer.pins:
                self._drop(buffer)
        self._idle = set(self._unread)

    def feed(self) -> None:
        """Give memory to those who wait for it. Not to be called between taking a slice and sending it."""
        while self._hungry:
            buffer = self._hungry[0]
            buffer.offset = self._allocate(buffer.size, foreground=True)
            if buffer.offset is None:
                break
            self._hungry.popleft()
            self._begin_fetch(buffer, True)
        if self._has_refused:
            self._has_refused = False
            self.on_room()

    def borrow(self, size: int) -> int | None:
        """Memory beside the buffers: what nobody waits for, else of the reserve. Its offset; give it back.

        None when there is none; `on_room` tells when to ask again.
        """
        offset = None if self._hungry else self._allocate(size, foreground=False)
        if offset is None:
            offset = self._allocate(size, foreground=True, reserved=True)
        self._has_refused = self._has_refused or offset is None
        return offset

    def give_back(self, offset: int, size: int) -> None:
        """Take borrowed memory back; nobody writes into it any more."""
        self.arena.free(offset, size)
        self.feed()

    # -- inside ---------------------------------------------------------------------------------------------------

    def _feed_soon(self) -> None:
        """Feed as soon as the running task has given way: it may be about to send a slice."""
        if self._hungry or self._has_refused:
            trio.lowlevel.current_trio_token().run_sync_soon(self.feed, idempotent=True)

    def _allocate(self, size: int, *, foreground: bool, reserved: bool = False) -> int | None:
        while True:
            offset = self.arena.allocate(size, reserved=reserved)
            if offset is not None:
                return offset
            victim = self._victim(self._consumed, reserved=reserved)
            if victim is None and foreground:
                victim = self._victim(self._unread, reserved=reserved)
            if victim is None:
                return None
            self._drop(victim)

    def _victim(self, buffers: Iterable[Buffer], *, reserved: bool) -> Buffer | None:
        return next((buffer for buffer in buffers if not buffer.pins and self._is_reserved(buffer) is reserved), None)

    def _is_reserved(self, buffer: Buffer) -> bool:
        return buffer.offset is not None and self.arena.is_reserved(buffer.offset)

    def _shed(self, size: int) -> None:
        """Drop what was read already until so many bytes more are free, or nothing is left to drop."""
        goal = self.arena.used - size
        for buffer in [buffer for buffer in self._consumed if not buffer.pins]:
            if self.arena.used <= goal:
                return
            self._drop(buffer)

    def _read_to_end(self, buffer: Buffer) -> None:
        buffer.consumed = True
        self._unread.pop(buffer, None)
        if buffer not in self._consumed:
            self._consumed[buffer] = None
            self._consumed_bytes += buffer.size
            self._trim()
        else:
            self._consumed.move_to_end(buffer)

    def _trim(self) -> None:
        """Keep a bounded amount of what was read already."""
        kept = max(CONSUMED_AT_LEAST, self.arena.size // CONSUMED_SHARE)
        for buffer in list(self._consumed) if self._consumed_bytes > kept else ():
            if self._consumed_bytes <= kept:
                return
            if not buffer.pins:
                self._drop(buffer)

    def _drop(self, buffer: Buffer) -> None:
        """Forget a buffer that is over and not pinned."""
        self._hide(buffer)
        self._release(buffer)

    def _hide(self, buffer: Buffer) -> None:
        if buffer.discarded:
            return
        buffer.discarded = True
        self._unread.pop(buffer, None)
        if self._consumed.pop(buffer, self) is None:
            self._consumed_bytes -= buffer.size
        digest = buffer.target.digest
        for index in range(buffer.first, buffer.first + buffer.count):
            del self._found[digest, index]
        buffers = self._objects[digest]
        buffers.discard(buffer)
        if not buffers:
            del self._objects[digest]

    def _release(self, buffer: Buffer) -> None:
        """Free the memory of a hidden buffer, as soon as nobody uses it."""
        if buffer.offset is not None and not buffer.pins:
            self.arena.free(buffer.offset, buffer.size)
            buffer.offset = None
