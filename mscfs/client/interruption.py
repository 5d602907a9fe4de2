"""Background copies and the end of the program.

A thread that comes back from a store's native code while the interpreter is shutting down would abort the process. So
the end of the program interrupts the copies under way at their next call or piece, and waits a moment for those that
are in a call: what they were copying is still wished for in the journal.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, cast

from mscfs.errors import StoreUnavailableError
from mscfs.providers.base import ObjectReader, StorageProvider
from mscfs.replicas.manager import ReplicaManager
from mscfs.replicas.source import Replica, Source

LONGEST_WAIT = 1.0
"""Seconds that the end of a program waits for calls under way; only a store that does not answer takes so long."""


@dataclass(slots=True)
class _Steps:
    """How many steps are under way, and whether they are to end."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    under_way: int = 0
    interrupted: bool = False


class Interruption:
    """Shared by the threads that copy and by the end of the program, which it notices by itself."""

    def __init__(self) -> None:
        self._steps = _Steps()
        # Not by a method: what the end of the program holds must not keep this object, and the stores, alive.
        weakref.finalize(self, _interrupt, self._steps, os.getpid())

    @property
    def happened(self) -> bool:
        """Whether the program is ending."""
        return self._steps.interrupted

    @contextmanager
    def step(self) -> Iterator[None]:
        """The end of the program waits for this block, up to `LONGEST_WAIT`."""
        with self._steps.changed:
            self._steps.under_way += 1
        try:
            yield
        finally:
            with self._steps.changed:
                self._steps.under_way -= 1
                self._steps.changed.notify_all()

    def check(self) -> None:
        """StoreUnavailableError when the program is ending."""
        if self._steps.interrupted:
            raise StoreUnavailableError("the program is ending")

    def over(self, manager: ReplicaManager) -> ReplicaManager:
        """The same stores, with the same health and journal, whose calls this interruption ends."""

        def guarded(source: Source) -> Any:
            return replace(source, provider=cast("StorageProvider", _Guarded(source.provider, self)))

        primary: Source = guarded(manager.primary_source)
        replicas: list[Replica] = [guarded(replica) for replica in manager.replicas]
        return ReplicaManager(primary, replicas, manager.journal)


def _interrupt(steps: _Steps, process: int) -> None:
    if os.getpid() != process:
        return  # a forked child: the threads, and perhaps the lock, are its parent's
    with steps.changed:
        steps.interrupted = True
        steps.changed.wait_for(lambda: not steps.under_way, timeout=LONGEST_WAIT)


class _Guarded:
    """A storage provider whose every call asks first whether it is still wanted."""

    def __init__(self, provider: StorageProvider, interruption: Interruption) -> None:
        self._provider = provider
        self._interruption = interruption

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._provider, name)
        if not callable(attribute):
            return attribute

        @wraps(attribute)
        def call(*arguments: Any, **options: Any) -> Any:
            self._interruption.check()
            answer = attribute(*arguments, **options)
            if isinstance(answer, ObjectReader):
                return _GuardedReader(answer, self._interruption)
            return self._guarded(answer) if isinstance(answer, Iterator) else answer

        return call

    def _guarded(self, entries: Iterator[object]) -> Iterator[object]:
        for entry in entries:
            self._interruption.check()
            yield entry


class _GuardedReader(ObjectReader):
    def __init__(self, answer: ObjectReader, interruption: Interruption) -> None:
        super().__init__(answer.metadata, answer.byte_range, source=answer.source)
        self._answer = answer
        self._interruption = interruption

    def _pieces(self) -> Iterator[bytes | memoryview]:
        for piece in self._answer:
            self._interruption.check()
            yield piece

    def close(self) -> None:
        self._answer.close()
