"""Two users, each a process of its own that makes every call on both directories."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.e2e.twin.calls import Result, Side, perform
from tests.e2e.twin.differences import DIFFERENCES

USERS = (61001, 61002)
GROUP = 61000


class User:
    """The other end of a user's process."""

    def __init__(self, uid: int) -> None:
        context = multiprocessing.get_context("fork")
        self._local = Side(Path())
        self._connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(uid, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, local: Path, mount: Path) -> None:
        """Use two other directories; what is open is closed."""
        self._local = Side(local)
        self.call("begin", local, mount)

    def call(self, name: str, *arguments: Any) -> tuple[Result, Result]:
        """The answers of the local directory and of the mount."""
        self._connection.send((name, arguments))
        if not self._connection.poll(60):
            raise AssertionError(f"{name}{arguments} hangs")
        here, there, undo = self._connection.recv()
        if undo is not None:
            # The two stay twins. The user may not be allowed to take back what he did.
            assert not perform(self._local, undo[0], undo[1:]).error
        return here, there

    def close(self) -> None:
        self._connection.close()
        self.process.join(10)
        self.process.kill()


def _serve(uid: int, connection: Connection) -> None:
    os.umask(0o022)
    os.setgroups([])
    os.setresgid(GROUP, GROUP, GROUP)
    os.setresuid(uid, uid, uid)
    sides: list[Side] = []
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        if name == "begin":
            for side in sides:
                side.close_all()
            sides = [Side(root) for root in arguments]
            connection.send((Result(), Result(), None))
            continue
        local, mount = (perform(side, name, arguments) for side in sides)
        undo = None
        if local != mount and any(difference.allows(name, local, mount) for difference in DIFFERENCES):
            mount, undo = local, sides[0].undo
        connection.send((local, mount, undo))


@contextmanager
def two_users() -> Iterator[list[User]]:
    users = [User(uid) for uid in USERS]
    try:
        yield users
    finally:
        for user in users:
            user.close()
