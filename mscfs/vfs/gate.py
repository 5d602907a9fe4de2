"""Directories that are being moved: whoever wants something below them waits, so that nobody sees half of it (W7)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from types import TracebackType

import trio

from mscfs.vfs.inodes import Inode


class Gate:
    """See the module. One move at a time; calls about other directories go on meanwhile."""

    def __init__(self) -> None:
        self._moving: Collection[Inode] = ()
        self._inside: set[Passage] = set()
        self._moved = trio.Event()

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
        while self._moving:
            await self._moved.wait()
        self._moving = directories
        try:
            while any(self.is_moving(inode) for passage in self._inside for inode in passage.inodes):
                await self._moved.wait()
            yield
        finally:
            self._moving = ()
            self._notify()

    async def enter(self, passage: Passage) -> None:
        """Wait until none of a passage's inodes is being moved."""
        while self._moving and any(map(self.is_moving, passage.inodes)):
            await self._moved.wait()
        self._inside.add(passage)

    def leave(self, passage: Passage) -> None:
        """A call has ended."""
        self._inside.discard(passage)
        if self._moving:
            self._notify()

    def _notify(self) -> None:
        self._moved.set()
        self._moved = trio.Event()


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
