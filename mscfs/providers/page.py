"""Pieces of a directory's listing as columns: what a worker process sends, and what the file system keeps.

A million entries as objects would cost a gigabyte; as columns they cost a quarter of it, and most pages are taken in
without looking at a single entry.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from mscfs.types import ObjectMetadata, from_ns, to_ns

FILE, DIRECTORY, SYMLINK, MAYBE_LINK = 1, 2, 3, 4
"""Kinds of entries. MAYBE_LINK: an empty object whose user metadata, which listings lack, may make it a link."""
KINDS = {"file": FILE, "directory": DIRECTORY, "symlink": SYMLINK}
PAGE_SIZE = 1000
NAME_MAX = 255
"""Bytes in one path segment, as Linux file systems have it."""


class Detail(msgspec.Struct, array_like=True, frozen=True):
    """What few stores tell in listings; entries of one page share equal ones. Fields as in ObjectMetadata."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    content_hash: str = ""
    metadata: dict[str, str] | None = None
    symlink_target: bytes | None = None


class Page(msgspec.Struct, array_like=True, frozen=True):
    """Entries of one directory, a column for each property, in the order of the store.

    Names are segments (no slash, valid as in N2). `sizes` and `modified` (ns since the epoch, 0: unknown) are arrays of
    type `q`. `detail_of` says which of `details` is whose; it is empty when no entry has any.
    """

    names: list[bytes]
    kinds: bytes
    sizes: bytes
    modified: bytes
    tags: list[bytes]
    details: list[Detail] = []
    detail_of: list[int] = []
    skipped: int = 0
    """Keys left out because they cannot be paths (N2), and one of them."""
    example: bytes = b""


class Entry(NamedTuple):
    """One entry of a page, or of what is kept of it."""

    name: bytes
    kind: int
    size: int
    modified_ns: int
    tag: bytes
    detail: Detail | None

    def metadata(self, directory: str) -> ObjectMetadata:
        """The same as the store's word on a key in `directory`."""
        detail = self.detail or _NO_DETAIL
        key = directory + self.name.decode("utf-8", "surrogateescape")
        target = detail.symlink_target
        return ObjectMetadata(
            key + "/" if self.kind == DIRECTORY else key,
            self.size,
            from_ns(self.modified_ns),
            tag=self.tag.decode("utf-8", "surrogateescape"),
            type="directory" if self.kind == DIRECTORY else "symlink" if self.kind == SYMLINK else "file",
            metadata=detail.metadata,
            content_hash=detail.content_hash,
            modified_ns=self.modified_ns,
            mode=detail.mode,
            uid=detail.uid,
            gid=detail.gid,
            symlink_target=None if target is None else target.decode("utf-8", "surrogateescape"),
        )


_NO_DETAIL, _NO_METADATA = Detail(), Detail(metadata={})
"""What most objects have: one value for all of them, as it is kept for each."""


def to_entry(found: ObjectMetadata, name: bytes, *, links: bool) -> Entry:
    """The entry of an object or directory. `links`: the store keeps links as empty objects."""
    kind = KINDS[found.type]
    if links and kind == FILE and found.content_length == 0 and found.metadata is None:
        kind = MAYBE_LINK
    target = found.symlink_target
    detail = Detail(
        found.mode,
        found.uid,
        found.gid,
        found.content_hash,
        None if found.metadata is None else dict(found.metadata),
        None if target is None else target.encode("utf-8", "surrogateescape"),
    )
    return Entry(
        name,
        kind,
        found.content_length,
        found.modified_ns or to_ns(found.last_modified),
        found.tag.encode("utf-8", "surrogateescape"),
        None if detail == _NO_DETAIL else _NO_METADATA if detail == _NO_METADATA else detail,
    )


def is_segment(name: bytes) -> bool:
    """Whether a key's segment can be a name in a directory (N2)."""
    return name not in {b"", b".", b".."} and b"\0" not in name and b"/" not in name and len(name) <= NAME_MAX


class PageBuilder:
    """Gathers entries for a page."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._skipped = 0
        self._example = b""

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Take an entry, if its name can be one."""
        if is_segment(entry.name):
            self._entries.append(entry)
        else:
            self.skip(entry.name)

    def skip(self, key: bytes) -> None:
        """Count a key that cannot be a path."""
        self._skipped += 1
        self._example = self._example or key[:NAME_MAX]

    def build(self) -> Page:
        """What was gathered; the builder is empty then."""
        names, kinds, sizes, modified, tags, details = zip(*self._entries, strict=True) if self._entries else [()] * 6
        shared: dict[int, int] = {}
        distinct: list[Detail] = []
        detail_of: list[int] = []
        if any(detail is not None for detail in details):
            for detail in details:
                position = shared.get(id(detail))
                if position is None:
                    position = shared[id(detail)] = len(distinct)
                    distinct.append(detail or _NO_DETAIL)
                detail_of.append(position)
        page = Page(
            list(names),
            bytes(kinds),
            array("q", sizes).tobytes(),
            array("q", modified).tobytes(),
            list(tags),
            distinct,
            detail_of,
            self._skipped,
            self._example,
        )
        self._entries, self._skipped, self._example = [], 0, b""
        return page


def paginate(found: Iterable[ObjectMetadata], directory: str, *, links: bool) -> Iterator[Page]:
    """The pages of a directory's listing, as `StorageProvider.list_directory` gives it."""
    builder, cut = PageBuilder(), len(directory)
    shared: dict[tuple[object, ...], Detail | None] = {}
    for item in found:
        end = -1 if item.is_directory else None
        name = item.key[cut:end].encode("utf-8", "surrogateescape")
        entry = to_entry(item, name, links=links)
        if entry.detail is not None and entry.detail.metadata in (None, {}):
            # Files of one owner and mode are the rule: one detail for all of them.
            plain = (item.mode, item.uid, item.gid, item.content_hash, item.metadata is None, item.symlink_target)
            entry = entry._replace(detail=shared.setdefault(plain, entry.detail))
        builder.add(entry)
        if len(builder) >= PAGE_SIZE:
            yield builder.build()
            shared.clear()
    yield builder.build()


def entries_of(page: Page) -> Iterator[Entry]:
    """The entries of a page, one by one."""
    sizes, modified = array("q", page.sizes), array("q", page.modified)
    details: list[Detail | None] = (
        [page.details[position] for position in page.detail_of] if page.detail_of else [None] * len(page.names)
    )
    return map(Entry, page.names, page.kinds, sizes, modified, page.tags, details)
