"""The memory in which bytes wait for the kernel: one file without a name, mapped by the daemon and by its workers.

Its size is the mount's memory budget: read buffers and read-ahead of all handles come out of it, and when it is full
requests wait or shrink (contract L4). Workers write what they fetch straight into it and the daemon answers with slices
of it, so that no byte is copied between processes or touches a disk on its way. Memory that was used before is handed
out first: the kernel needs far longer to find a fresh page than to fill a used one.
"""

from __future__ import annotations

import mmap
import os

UNIT = 64 << 10
"""Bytes of the smallest run: small objects share the arena without much waste."""


class SharedMemory:
    """`size` bytes of memory under a descriptor that child processes may inherit. `view` is all of it, writable."""

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        self.size = size
        if descriptor is None:
            descriptor = os.memfd_create("mscfs-buffers", os.MFD_CLOEXEC)
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        self._mapping = mmap.mmap(descriptor, size)
        self.view = memoryview(self._mapping)

    def remove(self, offset: int, size: int) -> None:
        """Give pages back to the system; they read as zeros afterwards."""
        self._mapping.madvise(mmap.MADV_REMOVE, offset, size)

    def close(self) -> None:
        """Unmap it; it is gone when all processes have. Slices that somebody holds keep it mapped."""
        os.close(self.descriptor)
        try:
            self.view.release()
            self._mapping.close()
        except BufferError:
            pass


class Arena:
    """Hands out runs of a shared memory. It belongs to one thread, and never waits.

    Which units are free is a number with a bit for each, so that finding a run takes a few operations on it. The last
    `reserve` bytes are handed out to those alone who ask for them.
    """

    def __init__(self, memory: SharedMemory, *, reserve: int = 0) -> None:
        self.memory = memory
        self._units = memory.size // UNIT
        self._common = (1 << (self._units - reserve // UNIT)) - 1
        self._free = (1 << self._units) - 1
        self._touched = 0
        """Units that may hold pages."""
        self._recent = 0
        """Units handed out since the last `give_back`."""

    @property
    def size(self) -> int:
        """Bytes that can be handed out, the reserve among them."""
        return self._units * UNIT

    @property
    def used(self) -> int:
        """Bytes handed out."""
        return (self._units - self._free.bit_count()) * UNIT

    @property
    def resident(self) -> int:
        """Bytes that may hold pages."""
        return self._touched.bit_count() * UNIT

    def is_reserved(self, offset: int) -> bool:
        """Whether a run that begins there lies in the reserve."""
        return offset // UNIT >= self._common.bit_length()

    def allocate(self, size: int, *, reserved: bool = False) -> int | None:
        """The offset of a run of at least `size` bytes, in the reserve or outside it; None when none is long enough."""
        wanted = -(-size // UNIT)
        # A bit that stays set stands at the beginning of so many free units.
        beginnings, length = self._free & (~self._common if reserved else self._common), 1
        while length < wanted:
            step = min(length, wanted - length)
            beginnings &= beginnings >> step
            length += step
        if not beginnings:
            return None
        start = (beginnings & -beginnings).bit_length() - 1
        run = ((1 << wanted) - 1) << start
        self._free ^= run
        self._touched |= run
        self._recent |= run
        return start * UNIT

    def free(self, offset: int, size: int) -> None:
        """Take a run back, as it was allocated. Nobody may write into it any more."""
        run = ((1 << -(-size // UNIT)) - 1) << (offset // UNIT)
        assert not self._free & run, "freed twice"
        self._free |= run

    def give_back(self) -> int:
        """Return to the system what was free since the last call of this; the bytes returned."""
        idle = self._touched & self._free & ~self._recent
        self._recent = ~self._free & self._touched
        self._touched &= ~idle
        returned = 0
        while idle:
            start = (idle & -idle).bit_length() - 1
            length = (~(idle >> start) & ((idle >> start) + 1)).bit_length() - 1
            self.memory.remove(start * UNIT, length * UNIT)
            returned += length * UNIT
            idle &= ~(((1 << length) - 1) << start)
        return returned
