"""The bytes of a chunk cache, counted exactly over all processes of a node that share it.

A page of 64-bit words in a mapped file, changed under a lock that the kernel gives back when its holder dies:

- *stored* bytes are those of chunk files in place, *reserved* bytes those of insertions under way. Both count against
  the limit, so that temporary files never exceed it either.
- Each process owns a slot with the part it reserved. A dead owner's slot is found unlocked and its reservation is
  returned: a process killed in the middle of an insertion costs no recount.
- *uncertain* is set while numbers and files are changed together. Found set by the next holder of the lock, it says
  that a process died in those microseconds; then, and after a power cut, the files are counted anew, and what is
  reserved is the sum of the slots.

Locks are those of open file descriptions: they exclude other processes and other openings, survive nothing, and need no
process ids, which mean little between containers that share a directory.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FORMAT = int.from_bytes(b"mscfsct1", "little")
_FORMAT_WORD, _UNCERTAIN, _CLEAN, _BOOT, _STORED, _RESERVED, _EVICTIONS, _FIRST_SLOT = range(8)
_SLOTS = 1024
_SIZE = (_FIRST_SLOT + _SLOTS) * 8
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_MUTEX_OFFSET = 0
_SLOT_OFFSET = 1


class SharedCounter:
    """Belongs to the process that opened it (a forked child opens its own); its threads may share it.

    `recount` returns the bytes really stored; it is called with the lock held. Raises OSError when the file cannot be
    made or all slots are taken.
    """

    def __init__(self, path: Path, recount: Callable[[], int]) -> None:
        self._path = path
        self._recount = recount
        self._thread_lock = threading.Lock()
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._descriptor, fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, _MUTEX_OFFSET)
            if os.fstat(self._descriptor).st_size != _SIZE:
                os.ftruncate(self._descriptor, _SIZE)
            # A full disk is an error here, and not a signal at the first change of a page that has no place on it.
            os.posix_fallocate(self._descriptor, 0, _SIZE)
            self._mapping = mmap.mmap(self._descriptor, _SIZE)
            self._words = memoryview(self._mapping).cast("Q")
            self._slot = self._claim_slot()
            self._begin()
            _lock(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _MUTEX_OFFSET)
        except BaseException:
            os.close(self._descriptor)
            raise

    @property
    def is_in_place(self) -> bool:
        """Whether others who open it now share this file: it may have been removed, or made anew."""
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    @property
    def used(self) -> int:
        """Stored and reserved bytes."""
        return self._words[_STORED] + self._words[_RESERVED]

    @property
    def stored(self) -> int:
        """Bytes of the chunk files in place."""
        return self._words[_STORED]

    @property
    def evictions(self) -> int:
        """Chunks evicted by all processes since the cache was made."""
        return self._words[_EVICTIONS]

    @property
    def slot(self) -> int:
        """The number that tells this process from the others that live now."""
        return self._slot

    @contextmanager
    def changing(self, *, wait: bool = True) -> Iterator[None]:
        """Hold the lock, to change files and then numbers.

        An error inside other than OSError (a file's, and so before any number is changed) leaves the numbers uncertain.

        Without `wait`, BlockingIOError when somebody else holds the lock or the files must be counted first.
        """
        if not self._thread_lock.acquire(blocking=wait):
            raise BlockingIOError(errno.EAGAIN, "the counter is locked")
        try:
            _lock(self._descriptor, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, fcntl.F_WRLCK, _MUTEX_OFFSET)
            try:
                if self._words[_UNCERTAIN]:
                    if not wait:
                        raise BlockingIOError(errno.EAGAIN, "the counter is uncertain")
                    self._words[_STORED] = self._recount()
                    self._words[_RESERVED] = self._reserved_by_all()
                self._words[_UNCERTAIN] = 1
                try:
                    yield
                except OSError:
                    self._words[_UNCERTAIN] = 0
                    raise
                self._words[_UNCERTAIN] = 0
            finally:
                _lock(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _MUTEX_OFFSET)
        finally:
            self._thread_lock.release()

    def reserve(self, size: int) -> None:
        """Count bytes that are about to be written. Lock held."""
        self._words[_RESERVED] += size
        self._words[_FIRST_SLOT + self._slot] += size

    def release(self, size: int) -> None:
        """Return a reservation. Lock held."""
        self._words[_RESERVED] -= size
        self._words[_FIRST_SLOT + self._slot] -= size

    def add_stored(self, size: int) -> None:
        """Count bytes that came into place, or (negative) went. Lock held."""
        # Files that were brought in by hand and then removed were never counted.
        self._words[_STORED] = max(0, self._words[_STORED] + size)

    def add_eviction(self) -> None:
        """Count one evicted chunk. Lock held."""
        self._words[_EVICTIONS] += 1

    def distrust(self) -> None:
        """Have the files counted before the next change: they do not look like the numbers."""
        self._words[_UNCERTAIN] = 1

    def is_dead(self, slot: int) -> bool:
        """Whether no living process owns this slot; the caller's own counts as living."""
        if slot == self._slot:
            return False
        try:
            _lock(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, _SLOT_OFFSET + slot)
        except BlockingIOError:
            return False
        _lock(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _SLOT_OFFSET + slot)
        return True

    def close(self) -> None:
        """Give the slot back. The last process to leave marks the numbers as good beyond the next reboot."""
        if not self._words[_UNCERTAIN]:
            with self.changing():
                self.release(self._words[_FIRST_SLOT + self._slot])
                _lock(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_UNLCK, _SLOT_OFFSET + self._slot)
                self._words[_CLEAN] = not _is_locked(self._descriptor, _SLOT_OFFSET, _SLOTS)
            if self._words[_CLEAN]:
                self._persist()
        self._words.release()
        self._mapping.close()
        os.close(self._descriptor)

    def _claim_slot(self) -> int:
        for slot in range(_SLOTS):
            try:
                _lock(self._descriptor, fcntl.F_OFD_SETLK, fcntl.F_WRLCK, _SLOT_OFFSET + slot)
            except BlockingIOError:
                continue
            return slot
        raise OSError(errno.EUSERS, f"more than {_SLOTS} processes share this cache")

    def _begin(self) -> None:
        words = self._words
        boot = int(_BOOT_ID.read_text().replace("-", "")[:16], 16)
        if words[_FORMAT_WORD] != _FORMAT:
            words[:] = memoryview(bytes(_SIZE)).cast("Q")
            words[_FORMAT_WORD] = _FORMAT
            words[_UNCERTAIN] = 1  # a new file over an old directory: count what is there
        elif words[_BOOT] != boot and not words[_CLEAN]:
            words[_UNCERTAIN] = 1  # the page may be older than the files
        words[_BOOT] = boot
        for slot in range(_SLOTS):
            if words[_FIRST_SLOT + slot] and (slot == self._slot or self.is_dead(slot)):
                words[_FIRST_SLOT + slot] = 0
        words[_RESERVED] = self._reserved_by_all()
        if words[_CLEAN]:
            words[_CLEAN] = 0
            self._persist()

    def _reserved_by_all(self) -> int:
        # Not kept up step by step: whoever died between the two words, or a power cut, left them in disagreement.
        return sum(self._words[_FIRST_SLOT:])

    def _persist(self) -> None:
        self._mapping.flush()
        os.fsync(self._descriptor)


def _lock(descriptor: int, command: int, kind: int, offset: int) -> None:
    fcntl.fcntl(descriptor, command, _flock(kind, offset, 1))


def _is_locked(descriptor: int, offset: int, length: int) -> bool:
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, offset, length))
    return bool(struct.unpack_from("h", answer)[0] != fcntl.F_UNLCK)


def _flock(kind: int, offset: int, length: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, length, 0)
