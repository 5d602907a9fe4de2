"""Names between two states: whoever wants one of them waits, so that nobody sees half of a change.

They are below a directory that is being moved (W7), or recovery has still to settle them (W4).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from types import TracebackType

import trio

from mscfs.vfs.inodes import Inode
from mscfs.vfs.unsettled import Unsettled


class Gate:
    """See the module. One move at a time; calls about other directories go on meanwhile.

    While the primary is down nobody waits for recovery, which does so itself: what was last known stands (R8).
    """

    def __init__(self, is_down: Callable[[], bool]) -> None:
        self.unsettled = Unsettled()
        self._is_down = is_down
        self._moving: Collection[Inode] = ()
        self._inside: set[Passage] = set()
        self._changed = trio.Event()

    def passage(self, *inodes: Inode) -> Passage:
        """`async with`: a call about what is in these directories, or about these inodes.

        Never one inside another: the outer would keep a move waiting that the inner waits for.
        """
        return Passage(self, inodes)

    def is_moving(self, inode: Inode) -> bool:
        """Whether an inode is being moved, or lies below a directory that is."""
        at: Inode | None = inode
        while at is not None and self._moving:
            if at in self._moving:
                return True
            at = at.parent
        return False

    @asynccontextmanager
    async def closed(self, *directories: Inode) -> AsyncIterator[None]:
        """Nobody is below these directories, or gets there, until the end of the block."""
        while self._moving or any(self._is_unsettled(directory, below=True) for directory in directories):
            await self._changed.wait()
        self._moving = directories
        try:
            while any(self.is_moving(inode) for passage in self._inside for inode in passage.inodes):
                await self._changed.wait()
            yield
        finally:
            self._moving = ()
            self.look_again()

    async def enter(self, passage: Passage) -> None:
        """Wait until none of a passage's inodes is being moved."""
        while (self._moving or self.unsettled) and any(map(self._is_between, passage.inodes)):
            await self._changed.wait()
        self._inside.add(passage)

    def leave(self, passage: Passage) -> None:
        """A call has ended."""
        self._inside.discard(passage)
        if self._moving:
            self.look_again()

    def look_again(self) -> None:
        """Something was settled, or the primary is down: who waits may go on."""
        self._changed.set()
        self._changed = trio.Event()

    def _is_between(self, inode: Inode) -> bool:
        return self.is_moving(inode) or self._is_unsettled(inode)

    def _is_unsettled(self, inode: Inode, *, below: bool = False) -> bool:
        if not self.unsettled or self._is_down():
            return False
        return self.unsettled.is_below(inode.key) if below else self.unsettled.concerns(inode.key)


class Passage:
    """See `Gate.passage`."""

    __slots__ = ("_gate", "inodes")

    def __init__(self, gate: Gate, inodes: tuple[Inode, ...]) -> None:
        self._gate = gate
        self.inodes = inodes

    async def __aenter__(self) -> None:
        await self._gate.enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gate.leave(self)
