"""Where mscfs keeps its own files: state, cache and runtime directories, all 0700 (contract L5).

What is not absolute in the variables of XDG is not used, as its specification says: a daemon works elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mscfs.errors import MscfsError


def state_directory() -> Path:
    """What must survive: journals and staging files. `STATE_DIRECTORY` under systemd, else XDG."""
    return _directory("STATE_DIRECTORY", "XDG_STATE_HOME", Path("~/.local/state"))


def cache_directory() -> Path:
    """What may be thrown away: the chunk cache. `CACHE_DIRECTORY` under systemd, else XDG."""
    return _directory("CACHE_DIRECTORY", "XDG_CACHE_HOME", Path("~/.cache"))


def runtime_directory() -> Path:
    """What lives as long as a mount: control sockets. `RUNTIME_DIRECTORY` under systemd, else XDG."""
    if os.environ.get("RUNTIME_DIRECTORY") or Path(os.environ.get("XDG_RUNTIME_DIR", "")).is_absolute():
        return _directory("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", Path())
    if os.geteuid() == 0:
        return private(Path("/run/mscfs"))
    shared = Path(tempfile.gettempdir()) / f"mscfs-{os.geteuid()}"
    if shared.is_symlink():
        raise PermissionError(f"{shared} is a symbolic link, perhaps somebody else's: set XDG_RUNTIME_DIR")
    return private(shared)


def private(path: Path) -> Path:
    """Make a directory that only its owner may enter; an existing one must be ours.

    Raises PermissionError when somebody else owns it (a squatter in a shared temporary directory).
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise PermissionError(f"{path} belongs to uid {status.st_uid}, not to us: choose another directory")
    if status.st_mode & 0o077:
        path.chmod(0o700)
    return path


def write_private(path: Path, text: str) -> None:
    """Give a file this content at once, whatever it was before and whoever else does so; 0600 whatever the umask."""
    with drafted(path) as writer:
        writer.write(text.encode())


@contextmanager
def drafted(path: Path) -> Iterator[IO[bytes]]:
    """A new file, 0600, that takes its name at the end of the context, and is gone when that fails. Raises OSError."""
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            yield writer
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def digest(*parts: str) -> str:
    """Sixteen hex digits that stand for some strings in file names."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _directory(systemd_variable: str, xdg_variable: str, home: Path) -> Path:
    # systemd may list several directories separated by ':'; ours is the first.
    given = os.environ.get(systemd_variable, "").split(":")[0]
    if given:
        return private(Path(given))
    base = Path(os.environ.get(xdg_variable, ""))
    if not base.is_absolute():
        try:
            base = home.expanduser()
        except RuntimeError:
            raise MscfsError(f"your home directory is not known: set HOME or {xdg_variable}") from None
    return private(base / "mscfs")
