"""What was set on this mount and the store does not tell (yet)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mscfs.vfs.kept import Kept


@dataclass(slots=True)
class Overrides:
    """Attributes set on this mount, kept while it lasts (W9). None: what the store or the options say."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None
    ctime_ns: int | None = None
    """When attributes were set or the name was changed, which no store keeps. Changes of content are later or not."""
    is_time_chosen: bool = False
    """Whether the mtime is what a program asked for, and not the moment of a change."""
    xattrs: Mapping[str, bytes] | None = None
    """All extended attributes `user.*` but ours."""

    @property
    def any(self) -> bool:
        """Whether something was set that a store with POSIX attributes should keep."""
        return (self.mode, self.uid, self.gid, self.mtime_ns) != (None, None, None, None)

    @property
    def kept(self) -> Kept:
        """What user metadata should tell of them."""
        return Kept(self.mode, self.uid, self.gid, self.mtime_ns).storable

    def changed(self, moment_ns: int) -> None:
        """The content, or a directory's names, changed at that moment."""
        self.mtime_ns, self.is_time_chosen = moment_ns, False

    def stored(self, kept: Kept, xattrs: Mapping[str, bytes]) -> None:
        """The store tells these: what is no different need not be remembered here."""
        # The store tells less of some modes and times.
        if self.mode == kept.mode:
            self.mode = None
        if self.uid == kept.uid:
            self.uid = None
        if self.gid == kept.gid:
            self.gid = None
        if self.mtime_ns == kept.mtime_ns:
            self.mtime_ns, self.is_time_chosen = None, False
        if self.xattrs == xattrs:
            self.xattrs = None


NO_OVERRIDES = Overrides()
