"""`open()`: from a mode to a file object."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

from mscfs.client import transfer
from mscfs.client.attributes import without_own
from mscfs.client.file import ObjectReadFile, ObjectWriteFile, TextWriteFile
from mscfs.client.retry import while_replaced
from mscfs.errors import AlreadyExistsError, IsADirectoryKeyError, NotFoundError
from mscfs.providers.base import StorageProvider
from mscfs.types import ObjectMetadata

READ_BUFFER = 64 << 10


def open_file(
    store: Callable[[], StorageProvider],
    key: str,
    mode: str,
    *,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> IO[Any]:
    """Open an object; see `StorageClient.open`. ValueError for what the built-in `open` would not take either."""
    action, text, update = _parse(mode)
    if not text and not (encoding is errors is newline is None):
        raise ValueError("binary mode takes no encoding, errors or newline argument")
    if text and buffering == 0:
        raise ValueError("text is always buffered")
    encoding = encoding or "utf-8"
    if action == "r" and not update:
        raw = ObjectReadFile(store, key)
        if buffering == 0:
            return cast("IO[bytes]", raw)
        buffered = io.BufferedReader(raw, READ_BUFFER if buffering < 2 else buffering)
        return io.TextIOWrapper(buffered, encoding, errors, newline) if text else buffered
    content = _open_for_writing(store, key, action, readable=update, metadata=metadata)
    if not text:
        return cast("IO[bytes]", content)
    try:
        return TextWriteFile(content, encoding=encoding, errors=errors, newline=newline)
    except BaseException:
        content.discard()
        raise


def _parse(mode: str) -> tuple[str, bool, bool]:
    letters = set(mode)
    action = letters & set("rwax")
    if len(letters) != len(mode) or letters - set("rwaxbt+") or len(action) != 1 or {"b", "t"} <= letters:
        raise ValueError(f"invalid mode: {mode!r}")
    return action.pop(), "b" not in letters, "+" in letters


def _open_for_writing(
    store: Callable[[], StorageProvider], key: str, action: str, *, readable: bool, metadata: Mapping[str, str] | None
) -> ObjectWriteFile:
    if not key or key.endswith("/"):
        raise IsADirectoryKeyError("an object's key is neither empty nor ends in '/'", key=key)
    if action == "x":
        _refuse_existing(store(), key)
    base: ObjectMetadata | None = None

    def publish(content: bytes | Path) -> None:
        if action in {"a", "r"}:
            # Made from one version: putting it in the place of another would undo somebody's work.
            version = base.version if base else None
            kept = without_own(base).metadata if base and metadata is None else metadata
            store().put(key, content, metadata=kept, if_absent=base is None, expected=version)
        else:
            store().put(key, content, metadata=metadata, if_absent=action == "x")

    file = ObjectWriteFile(key, publish, readable=readable, append=action == "a")
    try:
        if action in {"a", "r"}:
            base = while_replaced(lambda: _load(store(), key, file, required=action == "r"))
    except BaseException:
        file.discard()
        raise
    if action == "r":
        file.seek(0)
    return file


def _load(store: StorageProvider, key: str, target: ObjectWriteFile, *, required: bool) -> ObjectMetadata | None:
    target.seek(0)
    target.truncate()
    try:
        return transfer.download_into(store, key, cast("IO[bytes]", target))
    except NotFoundError:
        if required:
            raise
        return None


def _refuse_existing(store: StorageProvider, key: str) -> None:
    try:
        store.head(key)
    except NotFoundError:
        return
    raise AlreadyExistsError("exists already", key=key)
