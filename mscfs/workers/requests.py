"""The requests a worker process has taken: foreground before background, and never all threads in the background."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from mscfs.workers.protocol import Request, is_foreground, is_second


@dataclass(slots=True, eq=False)
class TakenRequest:
    """A request between its arrival and its answer."""

    request: Request
    in_background: bool
    is_under_way: bool = False
    is_abandoned: bool = False
    is_given_up: bool = False
    """Its thread does not count any more: another has taken its place."""


class RequestQueue:
    """Filled by one thread, emptied by many."""

    def __init__(self, background_threads: int) -> None:
        self._background_threads = background_threads
        self._changed = threading.Condition()
        self._foreground: deque[TakenRequest] = deque()
        self._background: deque[TakenRequest] = deque()
        self._open: dict[int, TakenRequest] = {}
        self._in_background = 0

    @property
    def is_idle(self) -> bool:
        """Whether every request is answered."""
        return not self._open

    def put(self, request: Request) -> None:
        """Take a request."""
        taken = TakenRequest(request, in_background=not is_foreground(request))
        with self._changed:
            self._open[request.id] = taken
            if is_second(request):
                # It is late, and those before it may be about to wait for the very store that it is to avoid.
                self._foreground.appendleft(taken)
            else:
                (self._background if taken.in_background else self._foreground).append(taken)
            self._changed.notify()

    def get(self) -> TakenRequest:
        """The next request that this thread may perform; waits for one. Call `done` with it."""
        with self._changed:
            while True:
                taken = self._next()
                if taken is not None:
                    taken.is_under_way = True
                    return taken
                self._changed.wait()

    def done(self, taken: TakenRequest) -> None:
        """The request is answered, or was abandoned."""
        with self._changed:
            self._open.pop(taken.request.id, None)
            if taken.in_background and not taken.is_given_up:
                self._in_background -= 1
                self._changed.notify()

    def give_up(self, request_id: int) -> bool:
        """The thread that performs that request is stuck: count it no more. False when there is no such thread."""
        with self._changed:
            taken = self._open.get(request_id)
            if taken is None or not taken.is_under_way or taken.is_given_up:
                return False
            taken.is_given_up = True
            if taken.in_background:
                self._in_background -= 1
                self._changed.notify()
            return True

    def promote(self, request_id: int) -> None:
        """A program waits for that request now. It may be under way or answered already."""
        with self._changed:
            taken = self._open.get(request_id)
            if taken is not None and taken in self._background:
                self._background.remove(taken)
                taken.in_background = False
                self._foreground.append(taken)
                self._changed.notify()

    def abandon(self, request_id: int) -> Request | None:
        """Nobody waits for that request any more, which is returned. None: it was answered already."""
        with self._changed:
            taken = self._open.get(request_id)
            if taken is None:
                return None
            taken.is_abandoned = True
            return taken.request

    def _next(self) -> TakenRequest | None:
        if self._foreground:
            return self._foreground.popleft()
        if self._background and self._in_background < self._background_threads:
            self._in_background += 1
            return self._background.popleft()
        return None
