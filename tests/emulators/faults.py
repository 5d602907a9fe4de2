"""What can go wrong between a client and a store, and the rules that say when it does."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Literal
from urllib.parse import parse_qsl, unquote


@dataclass(frozen=True)
class Request:
    """The head of a request; names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def key(self) -> str:
        """The path, unquoted: it ends in the object's key, whatever the protocol."""
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> Mapping[str, str]:
        return dict(parse_qsl(self.target.partition("?")[2], keep_blank_values=True))

    @property
    def offset(self) -> int:
        """The first byte that a read asks for."""
        return self._range[0]

    def asks_for(self, byte: int) -> bool:
        """Whether a read's range holds this byte of the object."""
        begin, end = self._range
        return begin <= byte < end

    @property
    def _range(self) -> tuple[int, float]:
        told = self.headers.get("range") or self.headers.get("x-ms-range") or "bytes=0-"
        first, _, last = told.removeprefix("bytes=").partition("-")
        return int(first), int(last) + 1 if last else math.inf

    def is_about(self, method: str, key: str) -> bool:
        """Whether method and key match the patterns; the key's is one of its last segments (`d/*.bin`)."""
        return fnmatchcase(self.method, method) and fnmatchcase(self.key, f"*/{key}")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Made by the functions below; `dataclasses.replace` combines them."""

    delay: float = 0.0
    status: int | None = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    twice: bool = False
    loses_answer: bool = False
    ends: Literal["reset", "truncate", "stall"] | None = None
    after: int | None = None
    rate: float | None = None
    length: int | str | None = None
    corrupts: int | None = None
    in_object: bool = False
    unheard: frozenset[str] = frozenset()


def delay(seconds: float) -> Fault:
    """The server hears of the request so much later."""
    return Fault(delay=seconds)


def status(code: int, body: bytes = b"", **headers: str) -> Fault:
    """The server hears of nothing; the client gets this answer."""
    return Fault(status=code, body=body, headers=headers)


def reset(after: int | None = None) -> Fault:
    """The connection is reset after so many bytes of the answer's body; None: before the server hears of anything."""
    return Fault(ends="reset", after=after)


def lost_answer() -> Fault:
    """The server does what is asked, and the connection is reset before the client hears of it."""
    return Fault(loses_answer=True)


def truncate(after: int = 0) -> Fault:
    """The connection is closed in order after so many bytes of the body."""
    return Fault(ends="truncate", after=after)


def stall(after: int | None = None) -> Fault:
    """Nothing more comes after so many bytes of the body (None: nothing at all) while the rule is in force."""
    return Fault(ends="stall", after=after)


def trickle(bytes_per_second: float) -> Fault:
    """The body comes so slowly."""
    return Fault(rate=bytes_per_second)


def wrong_length(told: int | str) -> Fault:
    """`Content-Length` is this text, or, a number, wrong by so much."""
    return Fault(length=told)


def corrupt(at: int) -> Fault:
    """The byte at this offset of the body is another one."""
    return Fault(corrupts=at)


def in_object(fault: Fault) -> Fault:
    """The same, with its position counted from the object's first byte, whatever range an answer is of."""
    return replace(fault, in_object=True)


def deaf_to(*headers: str) -> Fault:
    """The server does not get these headers, named in lower case, of requests that have any of them."""
    return Fault(unheard=frozenset(headers))


def duplicate() -> Fault:
    """The server gets the request twice, one after the other; the client gets the second answer."""
    return Fault(twice=True)


@dataclass(eq=False)
class Rule:
    """When a fault happens. `fired` counts how often it did: a fault behind the last byte of an answer does not."""

    fault: Fault
    method: str = "*"
    key: str = "*"
    times: int | None = None
    """So many requests are concerned, then no more."""
    where: Callable[[Request], bool] | None = None
    fired: int = 0
    is_active: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def takes(self, request: Request) -> bool:
        """Whether this request is concerned; counts it."""
        if not self.is_active or not request.is_about(self.method, self.key):
            return False
        if self.where is not None and not self.where(request):
            return False
        if self.fault.unheard and not self.fault.unheard & request.headers.keys():
            return False
        position = self.fault.corrupts if self.fault.after is None else self.fault.after
        if self.fault.in_object and position is not None and not request.asks_for(position):
            return False
        with self._lock:
            if self.times is None:
                return True
            self.times -= 1
            return self.times >= 0

    def fire(self) -> None:
        with self._lock:
            self.fired += 1

    def assert_fired(self, times: int | None = None) -> None:
        """That it happened at all, or exactly so often: a test whose fault never happened proves nothing."""
        assert self.fired, f"{self} never fired"
        assert times is None or self.fired == times, f"{self} fired {self.fired} times, not {times}"
