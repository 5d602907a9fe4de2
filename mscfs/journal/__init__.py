"""The journal: what must happen even after kill -9 or a reboot."""

from mscfs.journal.entries import (
    BegunUpload,
    ClaimedWish,
    FinishedUpload,
    Lag,
    MoveState,
    PendingDelete,
    PendingMove,
    PendingParts,
    PendingRename,
    PendingUpload,
    UploadMode,
    Wish,
    WishKind,
)
from mscfs.journal.journal import Journal
from mscfs.journal.process import boot, is_alive, process_token

__all__ = [
    "BegunUpload",
    "ClaimedWish",
    "FinishedUpload",
    "Journal",
    "Lag",
    "MoveState",
    "PendingDelete",
    "PendingMove",
    "PendingParts",
    "PendingRename",
    "PendingUpload",
    "UploadMode",
    "Wish",
    "WishKind",
    "boot",
    "is_alive",
    "process_token",
]
