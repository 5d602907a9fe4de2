"""What listings leave open of a name, asked of its object: whether it is a link, and what user metadata tell.

Whoever goes through a directory asks for one name after the other: those that follow in the listing are asked for at
the same time, so that `ls -l` does not wait for a thousand answers in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

import trio

from mscfs.errors import StorageError
from mscfs.providers.page import DIRECTORY, SYMLINK, to_entry
from mscfs.types import ObjectMetadata
from mscfs.vfs.entries import GONE, HELD, UNSURE, Entries
from mscfs.vfs.inodes import Inode, InodeTable
from mscfs.vfs.paths import to_name
from mscfs.vfs.questions import Questions

AHEAD = 16
"""Names that are asked for together."""

Tell = Callable[[Inode, str, ObjectMetadata | None, float], None]


class Details:
    """See the module. With `wanted` what user metadata tell matters, else only whether a name is a link."""

    def __init__(
        self, table: InodeTable, questions: Questions, tell: Tell, *, wanted: bool, clock: Callable[[], float]
    ) -> None:
        self.wanted = wanted
        self._table = table
        self._questions = questions
        self._tell = tell
        self._clock = clock
        self._asked: dict[tuple[Entries, int], trio.Event] = {}

    def lacks(self, entries: Entries, slot: int) -> bool:
        """Whether a name's attributes are not known: its object has to be asked, if that can be done."""
        detail = entries.details[slot]
        return (
            self.wanted
            and (detail is None or detail.metadata is None)
            and entries.kinds[slot] != SYMLINK
            and not self._questions.is_down
        )

    async def complete(self, entries: Entries, slot: int) -> None:
        """Find out about a name whose details are lacking, and about those behind it when names are asked in order."""
        if slot and self.lacks(entries, slot - 1) and not entries.states[slot - 1]:
            await self._ask_once(entries, slot)
            return
        async with trio.open_nursery() as nursery:
            for behind in range(slot + 1, min(slot + AHEAD, len(entries.names))):
                if not entries.states[behind] and self.lacks(entries, behind):
                    nursery.start_soon(self._ask_quietly, entries, behind)
            await self._ask_once(entries, slot)

    async def settle_links(self, entries: Entries, slots: Iterable[int]) -> None:
        """Find out which of these entries that may be symbolic links are."""
        states = entries.states
        unsure = [slot for slot in slots if states[slot] & UNSURE]
        if unsure:
            async with trio.open_nursery() as nursery:
                for slot in unsure:
                    nursery.start_soon(self._settle_or_hide, entries, slot)

    async def settle(self, entries: Entries, slot: int) -> None:
        """Ask what listings leave open. The kernel has not seen a possible link yet: it may become one in place."""
        name, directory = entries.names[slot], entries.directory
        asked = self._clock()
        key = directory.key + to_name(name)
        is_directory = entries.kinds[slot] == DIRECTORY
        found = await (self._questions.marker(key + "/") if is_directory else self._questions.anyone(key))
        if entries.find(name) != slot or entries.states[slot] & (HELD | GONE):
            return  # taken away or replaced meanwhile
        if entries.moment(slot) > asked and not entries.states[slot] & UNSURE:
            return  # a later listing may tell of another version
        if found is None:
            self._table.lose(directory, to_name(name))
        else:
            found = replace(found, metadata=found.metadata or {})
            entries.put(slot, to_entry(found, name, links=False))
            if not self._questions.is_down:
                self._tell(directory, to_name(name), found, asked)

    async def _settle_or_hide(self, entries: Entries, slot: int) -> None:
        """As `settle`; while nobody can tell, the entry is not shown, and its neighbours are."""
        try:
            await self.settle(entries, slot)
        except StorageError:
            if not self._questions.is_down:
                raise

    async def _ask_once(self, entries: Entries, slot: int) -> None:
        """As `settle`, or wait for who asks already."""
        while (under_way := self._asked.get((entries, slot))) is not None:
            await under_way.wait()
            if not self.lacks(entries, slot):
                return
        done = self._asked[entries, slot] = trio.Event()
        try:
            await self.settle(entries, slot)
        finally:
            del self._asked[entries, slot]
            done.set()

    async def _ask_quietly(self, entries: Entries, slot: int) -> None:
        with suppress(StorageError):  # who needs it is told
            await self._ask_once(entries, slot)
